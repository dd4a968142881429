"""A sweep: one recipe, many overrides, a run folder for each. Plans its members and checks them; starts none and reads no run.

    python -m dstrain.sweep FILE --member N [key=value ...]     what slurm/sweep.sbatch gives launch/train.py, NUL after each

A sweep file names a recipe, a folder, and either a `grid` (every combination) or a `list` of overrides.
"""

import argparse
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from dstrain.config.load import MAX_CONFIG_BYTES, ConfigError, find_config, load_config
from dstrain.config.schema import RunConfig
from dstrain.config.yaml_source import Document, Dumper, KeyPath, Problem, Where, read_document, shown

KEYS = {
    "config": "a recipe file, or the name of a shipped recipe",
    "output_dir": "the folder that gets one run folder a member",
    "overrides": "keys and values for all members",
    "grid": "keys, each with a list of values: every combination is a member, the last key changes fastest",
    "list": "one mapping of keys to values a member",
}
EXIT_USAGE = 2
MAX_MEMBERS = 1001
"""Slurm's own limit where a site sets no other (MaxArraySize)."""
MAX_NAME = 80
"""Characters of a run folder's name."""
MAX_VALUE = 24
"""Characters of a value in it."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_UNSAFE = re.compile(r"[^A-Za-z0-9.+_-]+")
_NUMBERED = re.compile(r"(\d+)-")


@dataclass(frozen=True, slots=True)
class Setting:
    """An override, and where the sweep gives it."""

    key: str
    value: Any
    where: Where

    @property
    def text(self) -> str:
        """As it would be typed."""
        return f"{self.key}={write_value(self.value)}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep file as it was read."""

    config: str
    output_dir: str
    common: tuple[Setting, ...]
    choices: tuple[tuple[Setting, ...], ...]
    """What each member sets besides."""
    typed: tuple[str, ...] = ()
    """Overrides of the command line, for all members."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep."""

    number: int
    """Its index in the job array."""
    overrides: tuple[str, ...]
    """`key=value` as one would type them, without the run folder."""
    run_dir: str
    varied: tuple[str, ...] = ()
    """Those of the overrides that are its own."""
    places: Mapping[str, Where] = field(default_factory=dict)
    """Override to the line of the sweep file."""

    def arguments(self, config: str) -> list[str]:
        """What launch/train.py is given."""
        return ["--config", config, *self.overrides, f"output_dir={write_value(self.run_dir)}"]


def read_sweep(path: str, *, typed: Sequence[str] = ()) -> Sweep:
    """The sweep in a file, with overrides of the command line.

    Raises:
        ConfigError: everything that is wrong with its form, each with file and line.
    """
    document = _read(Path(path))
    # a text that is no YAML is told as that alone
    problems = list(document.problems if document.problems and not document.value else _find_problems(document))
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.where))
    value = document.value
    common = _settings(document, at=("overrides",)) if value.get("overrides") else ()
    sweep = Sweep(value["config"], value["output_dir"], common, _choices(document), tuple(typed))
    if problems := [problem for text in typed if (problem := _typed_problem(text, sweep=sweep))]:
        raise ConfigError(problems)
    return sweep


def plan_members(sweep: Sweep) -> list[Member]:
    """Every run of the sweep, numbered as it stands in the file. Pure."""
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
        ValueError: everything that is wrong with any of them, and which; members that are equal; a folder whose number
            belongs to another member.
    """
    configs: dict[int, RunConfig] = {}
    faults: dict[Problem, list[int]] = {}
    for member in members:
        try:
            configs[member.number] = _load(sweep, member)
        except ConfigError as error:
            for problem in error.problems:
                faults.setdefault(_placed(problem, member=member), []).append(member.number)
    in_order = sorted(faults, key=lambda problem: problem.where)
    lines = [f"{_called(faults[problem], of=len(members))}: {problem}" for problem in in_order]
    lines += _find_equal(configs)
    if lines := [*lines, *find_strangers(members)]:
        raise ValueError("\n".join(lines))
    return list(configs.values())


def find_strangers(members: Sequence[Member]) -> Iterator[str]:
    """Run folders whose number belongs to another member now, in words: the sweep has changed since they began.

    A job reads the sweep at each of its starts: without this it would go on as another run after a requeue.
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


def write_value(value: Any) -> str:
    """A value as one would type it behind `key=`: read as YAML it is equal to `value`."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def write_indices(numbers: Iterable[int]) -> str:
    """Numbers as `sbatch --array=` takes them: `0-3,7`."""
    parts = []
    for _, group in itertools.groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a member's arguments for launch/train.py, a NUL after each, which no argument can hold."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    try:
        sweep = read_sweep(options.file, typed=options.overrides)
        members = plan_members(sweep)
        if options.member not in range(len(members)):
            last = len(members) - 1
            raise ValueError(
                f"{options.file} has members 0 to {last}, and none {options.member}: submit it with --array=0-{last}"
            )
        member = members[options.member]
        if strangers := list(find_strangers([member])):
            raise ValueError("\n".join(strangers))
    except ValueError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    sys.stdout.buffer.write(b"".join(os.fsencode(argument) + b"\0" for argument in member.arguments(sweep.config)))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.sweep", description="Asked by slurm/sweep.sbatch.")
    parser.add_argument("file", metavar="FILE", help="a sweep file")
    parser.add_argument("--member", type=int, required=True, metavar="N", help="its number, from 0")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all members")
    return parser.parse_intermixed_args(argv)


def _read(path: Path) -> Document:
    try:
        content = path.read_bytes()[: MAX_CONFIG_BYTES + 1]
        if len(content) > MAX_CONFIG_BYTES:
            raise ConfigError([Problem(Where(str(path), 1), (), f"larger than {MAX_CONFIG_BYTES:,} bytes: no sweep")])
        return read_document(content.decode("utf-8-sig"), file=str(path))
    except OSError as error:
        raise ConfigError([Problem(Where(str(path), 0), (), "cannot be read", error.strerror)]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(Where(str(path), 1), (), "not UTF-8")]) from error


def _find_problems(document: Document) -> Iterator[Problem]:
    yield from document.problems
    value = document.value
    for key in value.keys() - KEYS.keys():
        close = get_close_matches(key, KEYS, n=1)
        way_out = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(KEYS)}"
        yield Problem(document.place((key,)), (key,), "unknown key", shown(value[key]), way_out)
    for key in ("config", "output_dir"):
        if (key,) not in document.broken and (not isinstance(value.get(key), str) or not value[key]):
            found = shown(value[key]) if key in value else "nothing"
            yield Problem(document.place((key,)), (key,), "must be text", found, KEYS[key])
        elif key == "config" and key in value:
            yield from _missing_recipe(value[key], where=document.place((key,)))
    if value.get("overrides") is not None:
        yield from _mapping_problems(document, at=("overrides",), refused=("output_dir",))
    given = [key for key in ("grid", "list") if value.get(key) is not None or (key,) in document.broken]
    if len(given) != 1:
        way_out = f"`grid`: {KEYS['grid']}; `list`: {KEYS['list']}; what all share stands in `overrides`"
        where = document.place(("list",) if given else ())
        yield Problem(where, (), "give exactly one of `grid` and `list`", " and ".join(given) or "none", way_out)
    elif (given[0],) not in document.broken:
        yield from (_grid_problems if given == ["grid"] else _list_problems)(document)


def _missing_recipe(name: str, *, where: Where) -> Iterator[Problem]:
    try:
        find_config(name)
    except ConfigError as error:
        for problem in error.problems:
            yield replace(problem, where=where, path=("config",), found=shown(name))


def _grid_problems(document: Document) -> Iterator[Problem]:
    grid, at = document.value["grid"], ("grid",)
    yield from _mapping_problems(document, at=at, refused=("output_dir", "name"), may_be_empty=False)
    for key, values in grid.items() if isinstance(grid, dict) else ():
        if not isinstance(values, list) or not values:
            place = document.place((*at, key))
            yield Problem(place, (*at, key), "must be a list of values", shown(values), f"write `{key}: […]`")
    if isinstance(grid, dict):
        number = math.prod(len(values) for values in grid.values() if isinstance(values, list))
        yield from _too_many(number, where=document.place(at), at=at)


def _list_problems(document: Document) -> Iterator[Problem]:
    members, at = document.value["list"], ("list",)
    if not isinstance(members, list) or not members:
        yield Problem(document.place(at), at, f"must be {KEYS['list']}", shown(members))
        return
    for number in range(len(members)):
        yield from _mapping_problems(document, at=(*at, number), refused=("output_dir", "name"))
    yield from _too_many(len(members), where=document.place(at), at=at)


def _too_many(number: int, *, where: Where, at: KeyPath) -> Iterator[Problem]:
    if number > MAX_MEMBERS:
        yield Problem(where, at, f"makes more than {MAX_MEMBERS:,} members", f"{number:,}", "make several sweeps")


def _mapping_problems(
    document: Document, *, at: KeyPath, refused: Sequence[str], may_be_empty: bool = True
) -> Iterator[Problem]:
    """What is wrong with a mapping of override keys; the values are the recipe's business."""
    value: Any = document.value
    for part in at:
        value = value[part]
    if at in document.broken:
        return
    if not isinstance(value, dict) or not (value or may_be_empty):
        yield Problem(document.place(at), at, "must be a mapping of keys to values", shown(value))
        return
    for key in value:
        if rule := _key_problem(key, refused=refused):
            yield Problem(document.place((*at, key)), (*at, key), rule)


def _key_problem(key: str, *, refused: Sequence[str]) -> str | None:
    if not _KEY.fullmatch(key):
        return "is no key of a recipe; write it as you would type it, such as `training.learning_rate`"
    if key not in refused:
        return None
    if key == "output_dir":
        return "every member gets a folder of its own in the sweep's `output_dir`: change that one"
    return "names the model card, and cannot be varied; a member is known by its run folder"


def _typed_problem(text: str, *, sweep: Sweep) -> Problem | None:
    key, equals, _ = text.partition("=")
    where = Where(f"override `{text}`", 0)
    if not equals:
        return Problem(where, (), "an override is written `dotted.key=value`")
    if rule := _key_problem(key, refused=("output_dir",)):
        return Problem(where, (), rule)
    for setting in itertools.chain.from_iterable(sweep.choices):
        if f"{setting.key}.".startswith(f"{key}.") or f"{key}.".startswith(f"{setting.key}."):
            rule = f"is for all members, and would undo `{setting.key}`, which the sweep varies"
            return Problem(where, (), rule, way_out=f"change {setting.where}")
    return None


def _settings(document: Document, *, at: KeyPath) -> tuple[Setting, ...]:
    value: Any = document.value
    for part in at:
        value = value[part]
    return tuple(Setting(key, item, document.place((*at, key))) for key, item in value.items())


def _choices(document: Document) -> tuple[tuple[Setting, ...], ...]:
    value = document.value
    if value.get("list") is not None:
        return tuple(_settings(document, at=("list", number)) for number in range(len(value["list"])))
    columns = [
        [Setting(key, item, document.place(("grid", key, place))) for place, item in enumerate(items)]
        for key, items in value["grid"].items()
    ]
    return tuple(itertools.product(*columns))


def _shorten_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key's last part, or the whole key where two have the same."""
    ends = {key: key.rpartition(".")[2] for key in keys}
    count = Counter(ends.values())
    return {key: end if count[end] == 1 else key for key, end in ends.items()}


def _name(number: str, choice: Sequence[Setting], *, short: Mapping[str, str]) -> str:
    """Readable, and unique by its number; letters that a shell, a file system or a tool could misread become `_`."""
    parts = [number]
    for setting in choice:
        value = setting.value if isinstance(setting.value, str) else write_value(setting.value)
        parts.append(f"{short[setting.key]}={_UNSAFE.sub('_', value).strip('_')[:MAX_VALUE]}")
    name = "-".join(parts) if choice else f"{number}-unchanged"
    return name[:MAX_NAME].rstrip(".-=")


def _load(sweep: Sweep, member: Member) -> RunConfig:
    _, config, *overrides = member.arguments(sweep.config)
    return load_config(config, overrides=overrides, check_files=True)


def _placed(problem: Problem, *, member: Member) -> Problem:
    """A problem of an override at its line of the sweep file."""
    for text, where in member.places.items():
        if problem.where.file == f"override `{text}`":
            return replace(problem, where=where)
    return problem


def _find_equal(configs: Mapping[int, RunConfig]) -> Iterator[str]:
    first: dict[str, int] = {}
    for number, config in configs.items():
        same = first.setdefault(config.model_dump_json(exclude={"output_dir"}), number)
        if same != number:
            yield f"members {same} and {number} are equal: they would train the same; remove one"


def _called(numbers: Sequence[int], *, of: int) -> str:
    if len(numbers) == of > 1:
        return "all members"
    return f"member{'s' if len(numbers) > 1 else ''} {write_indices(numbers)}"


if __name__ == "__main__":
    sys.exit(main())
