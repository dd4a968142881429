"""A sweep: one recipe, many overrides, one run folder per member. Plans and checks the members; starts none, reads no run.

python -m dstrain.sweep FILE --member N [key=value ...]     the arguments of launch/train.py for slurm/sweep.sbatch
"""

import argparse
import itertools
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dstrain.cluster.console import say
from dstrain.cluster.exit_codes import EXIT_USAGE
from dstrain.config.arguments import shell_command
from dstrain.config.differences import differences
from dstrain.config.load import ConfigError
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.config.secrets import mask_override
from dstrain.config.spelling import keep_spelling
from dstrain.config.yaml_source import Problem, Where, write_value
from dstrain.errors import UserError
from dstrain.run_folder.began import load_run_config, read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.sweep.form import Setting, Sweep, read_form

MAX_NAME = 80
"""Longest name of a run folder, in characters."""
MAX_VALUE = 24
"""Longest value in that name, in characters."""
SCRIPT = "slurm/sweep.sbatch"
SIZE = ("--nodes=1", "--gpus-per-node=1")
"""Default size of one member's job, as sbatch options."""

_UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")
_NUMBERED = re.compile(r"(\d+)-")


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep."""

    number: int
    """Its index in the job array."""
    overrides: tuple[str, ...]
    """`key=value` as typed, without the run folder."""
    run_dir: str
    varied: tuple[str, ...] = ()
    """The overrides that only this member has."""
    places: Mapping[str, Where] = field(default_factory=dict)
    """Override to its line in the sweep file."""

    def arguments(self, config: str) -> list[str]:
        """The arguments of launch/train.py."""
        return ["--config", config, *self.overrides, f"output_dir={write_value(self.run_dir)}"]


def read_sweep(path: str, *, typed: Sequence[str] = ()) -> Sweep:
    """The sweep in a file, with overrides of the command line.

    Raises:
        ConfigError: everything that is wrong with its form, each with file and line, and what is wrong with the recipe under
            its readable overrides.
    """
    sweep, problems = read_form(path, typed=typed)
    if problems and sweep.config:
        problems += _load_members(sweep, plan_members(sweep))[1]
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.where.line == 0, problem.where)))
    return sweep


def plan_members(sweep: Sweep) -> list[Member]:
    """Every run of the sweep, numbered in the order of the file. Pure."""
    short = _shorten_keys({setting.key for choice in sweep.choices for setting in choice})
    width = max(3, len(str(len(sweep.choices) - 1)))
    members = []
    for number, choice in enumerate(sweep.choices):
        settings = (*sweep.common, *choice)
        name = _name(f"{number:0{width}}", choice, short=short)
        members.append(
            Member(
                number,
                (*(setting.text for setting in settings), *sweep.typed),
                f"{sweep.output_dir.rstrip('/')}/{name}",
                varied=tuple(setting.text for setting in choice),
                places={setting.text: setting.where for setting in settings},
            )
        )
    return members


def check_members(sweep: Sweep, members: Sequence[Member]) -> list[RunConfig]:
    """The recipe of every member.

    Raises:
        UserError: everything that is wrong, each with its members; members that are equal; a folder whose number belongs to
            another member.
    """
    configs, faults = _load_members(sweep, members)
    in_order = sorted(faults, key=lambda problem: problem.where)
    lines = [f"{_called(faults[problem], of=len(members))}: {problem}" for problem in in_order]
    lines += _find_equal(configs)
    if lines := [*lines, *find_strangers(members)]:
        raise UserError("\n".join(lines))
    return list(configs.values())


def find_strangers(members: Sequence[Member]) -> Iterator[str]:
    """A message for each run folder whose number now belongs to another member: the sweep has changed since it began.

    A job reads the sweep at each start. Without this check it would continue as another run after a requeue.
    """
    wanted = {member.number: Path(member.run_dir) for member in members}
    for parent in sorted({folder.parent for folder in wanted.values()}):
        for other in sorted(parent.iterdir()) if parent.is_dir() else ():
            number = int(match[1]) if (match := _NUMBERED.match(other.name)) else None
            if number in wanted and wanted[number].name != other.name and other.is_dir():
                yield (
                    f"member {number} began as {other}, and is {wanted[number].name} now: the sweep has changed; add members "
                    "at its end only, or give it another output_dir"
                )


def find_change(config: RunConfig) -> str | None:
    """The first difference between the recipe of the run in a member's folder and the member's own; None if there is none."""
    try:
        before = read_run_config(RunFolder(Path(config.run_dir)))
    except UserError:  # it has not begun, or another version wrote the file: its next attempt reports that
        return None
    now_as_before = keep_spelling(config, as_in=before.model_dump())
    old, new = (each.model_dump(mode="json", include=set(RECIPE_KEYS)) for each in (before, now_as_before))
    changes = [change for change in differences(old, new) if not change[0].endswith("path")]  # files may be moved
    if not changes:
        return None
    key, was, now = changes[0]
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{key} was {write_value(was)}, is {write_value(now)}{more}"


def write_indices(numbers: Iterable[int]) -> str:
    """Numbers as `sbatch --array=` takes them: `0-3,7`."""
    parts = []
    for _, group in itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(parts)


def write_submit(file: str, numbers: Iterable[int], *, typed: Sequence[str]) -> str:
    """The command that submits members; the user may change their size."""
    return shell_command(["sbatch", f"--array={write_indices(numbers)}", *SIZE, SCRIPT, file, *typed])


def main(argv: Sequence[str] | None = None) -> int:
    """Print a member's arguments for launch/train.py, each ended by a NUL, which no argument can contain."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    try:
        sweep = read_sweep(options.file, typed=options.overrides)
        members = plan_members(sweep)
        if options.member not in range(len(members)):
            last = len(members) - 1
            raise UserError(
                f"{options.file} has members 0 to {last}, not {options.member}: submit it with --array=0-{last}"
            )
        member = members[options.member]
        if strangers := list(find_strangers([member])):
            raise UserError("\n".join(strangers))
    except UserError as error:
        say(error, err=True)
        return EXIT_USAGE
    sys.stdout.buffer.write(b"".join(os.fsencode(argument) + b"\0" for argument in member.arguments(sweep.config)))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.sweep", description="Used by slurm/sweep.sbatch.")
    parser.add_argument("file", metavar="FILE", help="a sweep file")
    parser.add_argument("--member", type=int, required=True, metavar="N", help="its number, from 0")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all members")
    return parser.parse_intermixed_args(argv)


def _shorten_keys(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or the full key where two share it."""
    ends = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(ends.values())
    return {key: end if count[end] == 1 else key for key, end in ends.items()}


def _name(number: str, choice: Sequence[Setting], *, short: Mapping[str, str]) -> str:
    """A readable folder name, unique by its number. Characters that a shell or a file system could misread become `_`."""
    parts = [number]
    for setting in choice:
        value = setting.value if isinstance(setting.value, str) else write_value(setting.value)
        parts.append(f"{short[setting.key]}={_UNSAFE.sub('_', value).strip('_')[:MAX_VALUE]}")
    name = "-".join(parts) if choice else f"{number}-unchanged"
    return name[:MAX_NAME].rstrip(".-=")


def _load_members(sweep: Sweep, members: Sequence[Member]) -> tuple[dict[int, RunConfig], dict[Problem, list[int]]]:
    """The recipes of the valid members, and each problem of the others with the members that have it."""
    configs: dict[int, RunConfig] = {}
    faults: dict[Problem, list[int]] = {}
    for member in members:
        _, config, *overrides = member.arguments(sweep.config)
        try:
            configs[member.number] = load_run_config(config, overrides=overrides, check_files=True)
        except ConfigError as error:
            for problem in error.problems:
                faults.setdefault(_placed(problem, member=member), []).append(member.number)
    return configs, faults


def _placed(problem: Problem, *, member: Member) -> Problem:
    """The problem of an override, moved to its line in the sweep file."""
    for text, where in member.places.items():
        if problem.where.file == f"override `{mask_override(text)}`":
            return replace(problem, where=where)
    return problem


def _find_equal(configs: Mapping[int, RunConfig]) -> Iterator[str]:
    first: dict[str, int] = {}
    for number, config in configs.items():
        same = first.setdefault(config.model_dump_json(exclude={"output_dir"}), number)
        if same != number:
            yield f"members {same} and {number} are equal and would train the same model: remove one"


def _called(numbers: Sequence[int], *, of: int) -> str:
    if len(numbers) == of > 1:
        return "all members"
    return f"member{'s' if len(numbers) > 1 else ''} {write_indices(numbers)}"
