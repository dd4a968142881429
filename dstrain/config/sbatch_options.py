"""Which of sbatch's options a recipe may give to its evaluation jobs: size, place and account. Pure.

sbatch has options that run text (`--wrap`), overwrite files (`--output`) or change what the job sees (`--export`, `--chdir`),
takes abbreviations of them, and reads a bare word as the script. So only what is listed here is passed on.
"""

import re
from collections.abc import Iterator, Sequence

from dstrain.config.section import Conflict

SIZE = frozenset({
    "cores-per-socket", "cpus-per-gpu", "cpus-per-task", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task",
    "gres", "hint", "mem", "mem-per-cpu", "mem-per-gpu", "mincpus", "nodes", "ntasks", "ntasks-per-gpu",
    "ntasks-per-node", "ntasks-per-socket", "sockets-per-node", "threads-per-core", "time", "time-min", "tmp",
})  # fmt: skip
PLACE = frozenset({"constraint", "exclude", "licenses", "nodelist", "partition", "prefer", "reservation", "switches"})
ACCOUNT = frozenset({"account", "begin", "comment", "deadline", "nice", "priority", "qos", "wckey"})
FLAGS = frozenset({"contiguous", "exclusive", "no-requeue", "overcommit", "oversubscribe", "requeue", "spread-job"})
"""Options that stand alone. Only `--exclusive` and `--oversubscribe` may have a value too."""
WITH_VALUE = SIZE | PLACE | ACCOUNT | {"exclusive", "oversubscribe"}
FILE_OR_LIST = ("exclude", "nodelist")
"""Options whose value sbatch takes for the name of a file if it has a slash."""

_OPTION = re.compile(r"--(?P<key>[a-z]+(?:-[a-z]+)*)(?:=(?P<value>.+))?")


def sbatch_conflicts(options: Sequence[str], *, key: str) -> Iterator[Conflict]:
    """The items of `key` that are not passed on, each with what may stand there."""
    for number, option in enumerate(options):
        if (problem := _problem(option)) is not None:
            yield (f"{key}.{number}",), f"{problem}; found {option!r}"


def _problem(option: str) -> str | None:
    found = _OPTION.fullmatch(option)
    if found is None or not option.isprintable():
        return "must be one of sbatch's long options in one item, such as `--time=60`, of printable characters"
    name, value = found["key"], found["value"]
    if value is None and name in FLAGS:
        return None
    if value is None and name in WITH_VALUE:
        return f"needs a value in the same item: `--{name}=…`"
    if value is not None and name in FLAGS - WITH_VALUE:
        return f"takes no value: write `--{name}`"
    if name not in WITH_VALUE:
        return (
            f"`--{name}` is not passed on, because a recipe decides only size, place and account of a job: take of "
            f"{', '.join(sorted(WITH_VALUE | FLAGS))}; what else the job needs belongs in slurm/evaluate.sbatch"
        )
    if name in FILE_OR_LIST and "/" in value:
        return f"`--{name}` must list hosts: with a slash sbatch would read a file"
    return None
