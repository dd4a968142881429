"""The command line of `launch/train.py`. Knows nothing of what the options do."""

import argparse
from collections.abc import Sequence


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a training; a wrong command ends the process with a usage message and code 2."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a sequence-to-sequence model from a recipe.")
    parser.add_argument("--config", required=True, help="a recipe file, or the name of a shipped recipe")
    parser.add_argument(
        "--debug", action="store_true", help="one process, a few rows, deterministic, anomaly detection"
    )
    parser.add_argument(
        "--overfit",
        type=_row_count,
        metavar="N",
        help="debug: train on N rows until they are memorised",
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="FIELD",
        help="resume from the checkpoint although this field has changed (training.learning_rate, data.train, …)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training.learning_rate=1e-4 ...")
    return parser.parse_intermixed_args(arguments)


def _row_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a number of rows, at least 1; found {text!r}")
    return int(text)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before `--`, which are one's own, and those after it, which are for launch/train.py."""
    found = list(arguments)
    if "--" not in found:
        return found, []
    place = found.index("--")
    return found[:place], found[place + 1 :]
