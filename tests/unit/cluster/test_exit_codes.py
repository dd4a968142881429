"""Exit codes: each has one name and a meaning."""

from dstrain.cluster import exit_codes
from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE, MEANINGS


def test_every_code_has_one_name_and_a_meaning() -> None:
    constants = {name: value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    assert MEANINGS.keys() == {0, *constants.values()}
    assert len(set(constants.values())) == len(constants)
    assert all(MEANINGS.values())


def test_the_codes_are_those_that_the_batch_scripts_and_the_documentation_name() -> None:
    assert (EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED) == (2, 85, 130)


def test_no_code_can_be_taken_for_success_or_for_a_failure_of_the_program() -> None:
    assert not {EXIT_USAGE, EXIT_PREEMPTED, EXIT_INTERRUPTED} & {0, 1}
