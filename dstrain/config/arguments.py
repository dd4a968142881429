"""The command line of `launch/train.py`, and commands as text for a shell. Knows nothing of what the options do."""

import argparse
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dstrain.config.secrets import mask
from dstrain.config.yaml_source import shown, write_value

TRAINING_OPTIONS: Mapping[str, bool] = {
    "--config": True,
    "--debug": False,
    "--overfit": True,
    "--allow-changed": True,
    "--local_rank": True,
    "--local-rank": True,
    "--help": False,
    "-h": False,
}
"""The options of a training, each with whether a value follows it."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses an option of one value if it is given twice, where argparse would silently take the last."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.register("action", None, _StoreOnce)


class _StoreOnce(argparse.Action):
    _earlier: str | None = None

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *given: Any
    ) -> None:
        if self.option_strings and self._earlier is not None:
            parser.error(given_twice(self.option_strings[0], self._earlier, str(values)))
        self._earlier = str(values)
        setattr(namespace, self.dest, values)


def find_given_twice(
    arguments: Sequence[str], *, options: Mapping[str, bool], repeatable: Collection[str] = ()
) -> str | None:
    """That one of these options has two values, as a message; None if none has.

    Args:
        options: each with whether a value follows it.
        repeatable: those that may be given several times.
    """
    earlier: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if options.get(name, False):
            value = value if equals else next(words, "")
            if name in earlier and name not in repeatable:
                return given_twice(name, earlier[name], value)
            earlier[name] = value
    return None


def given_twice(option: str, earlier: str, later: str) -> str:
    """That an option or a key has two values, and the way out."""
    return f"{option} is given twice, {shown(mask(earlier))} and {shown(mask(later))}: leave one of them out"


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a training; a wrong command ends the process with a usage message and code 2."""
    parser = Parser(prog="train.py", description="Train a sequence-to-sequence model from a recipe.")
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
    add_local_rank(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training.learning_rate=1e-4 ...")
    return parser.parse_intermixed_args(arguments)


def add_local_rank(parser: argparse.ArgumentParser) -> None:
    """The option that deepspeed gives to each process, beside whatever its user gives."""
    parser.add_argument("--local_rank", "--local-rank", action="store", type=int, help=argparse.SUPPRESS)


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


def shell_command(words: Iterable[object], *, expands_home: bool = False) -> str:
    """A command as one printable line, from which bash and zsh make these words again, whatever is in them.

    With `expands_home` the shell replaces a `~` at the beginning of a path by the home folder.
    """
    quoted = (_quoted_below_home(str(word)) if expands_home else _quoted(str(word)) for word in words)
    return " ".join(quoted)


def weights_overrides(folder: object, *, model: Mapping[str, Any]) -> list[str]:
    """The overrides that begin a run with the weights in a model folder, in the place of the recipe's `model`."""
    unset = [
        f"model.{key}=null"
        for key in ("scratch", "from_run", "revision", "add_languages")
        if model.get(key) is not None
    ]
    return [f"model.name={write_value(str(folder))}", *unset]


def _quoted_below_home(word: str) -> str:
    # a quoted ~ would not be expanded
    return f"~/{_quoted(word[2:]) if word[2:] else ''}" if word.startswith("~/") else _quoted(word)


def _quoted(word: str) -> str:
    r"""One word: what is not printable, such as a line break or a no-break space, is written as `$'\x0a'`."""
    if word.isprintable():
        return shlex.quote(word)
    runs = (match[0] for match in re.finditer(r"[ -~]+|.", word, flags=re.DOTALL))
    return "".join(shlex.quote(run) if run.isprintable() else _escaped(run) for run in runs)


def _escaped(char: str) -> str:
    # bytes, because bash reads \u by the locale; what is no byte of an argument is half of a surrogate pair from a file
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "$'" + "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", errors)) + "'"
