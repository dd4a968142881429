"""What `launch/train.py` is given on its command line. Knows nothing of what becomes of it."""

import argparse
from collections.abc import Sequence


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """What a training is started with; anything else ends the process with a usage message and code 2."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a sequence-to-sequence model from a recipe.")
    parser.add_argument("--config", required=True, help="a recipe file, or the name of a shipped recipe")
    parser.add_argument(
        "--debug", action="store_true", help="one process, a few rows, deterministic, anomaly detection"
    )
    parser.add_argument(
        "--overfit", type=_row_count, metavar="N", help="debug: learn N rows by heart, to prove the model can"
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="FIELD",
        help="go on from the checkpoint although this field has changed (training.learning_rate, data.train, …)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training.learning_rate=1e-4 ...")
    return parser.parse_intermixed_args(arguments)


def _row_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is a number of rows, 1 or more; found {text!r}")
    return int(text)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What stands before `--` and what after it: one's own arguments, and those of launch/train.py."""
    found = list(arguments)
    if "--" not in found:
        return found, []
    place = found.index("--")
    return found[:place], found[place + 1 :]
