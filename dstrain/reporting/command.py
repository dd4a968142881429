"""The command that started a run, as run.json has it: its words, or one text where an earlier version wrote it.

A run folder may be a stranger's, and the card's readers copy the command: it is shown only if it starts a training of dstrain.
"""

import shlex
from collections.abc import Sequence

from dstrain.config.arguments import shell_command
from dstrain.config.schema import RunConfig

COUNTS = {"deepspeed": "--num_gpus", "torchrun": "--nproc-per-node", "srun": "--ntasks"}
"""Launchers with a number of processes, and its option."""
PROGRAM, MODULE = "launch/train.py", "dstrain.train"

Recorded = str | Sequence[str] | None


def command_to_copy(recorded: Recorded) -> str | None:
    """The command quoted for bash, `~/` still to be expanded; None if there is none, or one that starts something else."""
    words = _split(recorded) if isinstance(recorded, str) else list(recorded or ())
    return shell_command(words, expands_home=True) if words is not None and starts_training(words) else None


def starts_training(words: Sequence[str]) -> bool:
    """Whether these words are a command as `launch/train.py` records it: a launcher, dstrain's program, its arguments."""
    launcher, rest = (words[0] if words else ""), list(words[1:])
    if launcher not in (*COUNTS, "python"):
        return False
    if launcher in COUNTS and rest[:1] == [COUNTS[launcher]]:
        if not "".join(rest[1:2]).isdecimal():
            return False
        rest = rest[2:]
    if launcher == "srun":
        if rest[:1] != ["python"]:
            return False
        rest = rest[1:]
    module = "--module" if launcher in ("deepspeed", "torchrun") else "-m"
    return rest[:1] == [PROGRAM] or rest[:2] == [module, MODULE]


def command_overrides(recorded: Recorded) -> list[str]:
    """The `dotted.key=value` arguments of a command, in their order; to be displayed, whatever the command is."""
    words = list(recorded or ())
    if isinstance(recorded, str):
        try:
            words = shlex.split(recorded)
        except ValueError:  # an unclosed quote: good enough, since the words are only displayed
            words = recorded.split()
    return [word for word in words if "=" in word and word.split("=")[0].split(".")[0] in RunConfig.model_fields]


def _split(text: str) -> list[str] | None:
    """The words of one plain command; None if a shell would read more than that in the text."""
    if "\n" in text or "$'" in text:  # several commands; an escape that shlex does not read
        return None
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:  # an unclosed quote
        return None
    # an operator is a word of its own then; one in quotes is not told from it, and no argument of ours is one
    return None if any(word and not word.strip("();<>|&") for word in words) else words
