"""`dstrain card`: the model card of a run, written again."""

from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cluster.console import say


def card(run: RunArgument) -> None:
    """Write the model card of a run again from the run's files."""
    with clean_errors():
        from dstrain.reporting.card import write_card  # imports matplotlib, which the other commands do not need

        say(write_card(run))
