"""Data files as a recipe: a value that follows from rows or machine is a guess, and says from what. Writes nothing."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstrain.config.arguments import shell_command
from dstrain.config.data import Source
from dstrain.config.paths import MAX_RUN_NAME
from dstrain.draft.families import NamedFamily, named_family
from dstrain.draft.guess_task import NAMED, Language, guess_task
from dstrain.draft.languages import is_code
from dstrain.draft.look import Asked, Found, Rows, find_sources, look_at
from dstrain.draft.machine import Machine
from dstrain.draft.recipe_text import Items, Line, Section, section, write_recipe
from dstrain.draft.sections import Request, Sections
from dstrain.draft.sizes import count
from dstrain.draft.split import LANGUAGE_COLUMNS, num_apart
from dstrain.errors import UserError
from dstrain.run_folder.reading import read_bytes

EVALUATION_NAMES = re.compile(r"(?<![a-z])(dev|eval|evaluation|valid|validation|val)(?![a-z])", re.IGNORECASE)
TEST_NAMES = re.compile(r"(?<![a-z])test(?![a-z])", re.IGNORECASE)
TRAINING_NAMES = re.compile(r"(?<![a-z])(train|training|data|corpus)(?![a-z])", re.IGNORECASE)
"""Words in the names of files."""
SOURCE_KEYS = {
    "target_path": "the other side, line by line",
    "format": "its suffix does not say it",
    "quoted": "cells are in quotes where needed",
    "subset": "its configuration",
    "split": "its rows",
    "source_column": "the source of a row",
    "target_column": "its target",
    "source_language_column": "the language of its source",
    "target_language_column": "the language to translate it into",
}
"""What is said of the keys of a data source."""


@dataclass(frozen=True, slots=True)
class DataDraft:
    """A recipe for data, and what is to be said and done beside it."""

    lines: tuple[Line, ...]
    train_rows: Rows
    evaluation_rows: Rows | None
    machine: Machine
    text: str
    apart: tuple[tuple[Source, ...], Path, Path] | None = None
    """Where no evaluation rows were named: the sources to split, and the files to write, for training and evaluation."""
    notes: tuple[str, ...] = field(default=())


def recipe_path(request: Request, *, output: Path | None) -> Path:
    """Where the recipe goes: where the user says, else NAME.yaml."""
    return output or Path(f"{_name(request)}.yaml")


def draft_from_data(request: Request, *, machine: Machine, path: Path) -> DataDraft:
    """The recipe that is to lie at `path`.

    Raises UserError if the data cannot be read as pairs of texts.
    """
    files, evaluation_files, notes = divide(request.files, request.evaluation_files)
    found = find_sources(files, asked=request.asked)
    rows = look_at([each.source for each in found])
    name = _name(request)
    evaluated = find_sources(evaluation_files, asked=request.asked, split="validation")
    evaluation_rows = look_at([each.source for each in evaluated], has_references=True) if evaluated else None
    apart = None if evaluated else (tuple(each.source for each in found), *_files_apart(path))
    languages = _known_languages(request.asked, source=found[0].source)
    by_row = all(each.source.target_language_column is not None for each in found)
    guess = guess_task(
        rows.sample,
        kind=request.kind,
        languages=languages,
        target_column=found[0].source.target_column,
        by_row=by_row,
        codes=frozenset().union(*(each.codes for each in found)),
    )
    family = None if request.model is None else find_family(request.model)
    draft = Sections(request, guess, rows, machine, is_split=apart is not None, family=family)
    data = _split_data(apart, rows=rows) if apart else _data(found, evaluated, rows=(rows, evaluation_rows))
    lines = (
        Line("name", name, f"names the run folder, runs/{name}, and the model card"),
        Line("seed", 42, "decides initial weights, data order and dropout"),
        draft.precision(),
        section("model", *draft.model(), why="where the model comes from"),
        section("task", *draft.task(), why="what a row means"),
        section("data", *data, why="training and evaluation rows"),
        section("training", *draft.training(), why="how the weights change"),
        section("evaluation", *draft.evaluation(), why="when and how the model is scored"),
        section("machine", *draft.machine_lines(), why="how it is computed: nothing here changes what is learned"),
        section("logging", draft.logging(), why="what is written while training"),
    )
    head = [
        shell_command(["deepspeed", "--module", "dstrain.train", "--config", path]),
        "",
        f"Drafted by `dstrain init` for {', '.join(files)}. Each line says what it was taken from; change what you know better.",
    ]
    text = write_recipe(lines, head=head)
    notes += [*_remarks((*found, *evaluated)), *draft.notes()]
    return DataDraft(lines, rows, evaluation_rows, machine, text, apart, tuple(notes))


def divide(files: Sequence[str], evaluation: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Training files, evaluation files, and what is to be said of it: by their names, where the user does not say."""
    if evaluation:
        return list(files), list(evaluation), []
    dev = [file for file in files if EVALUATION_NAMES.search(Path(file).name)]
    test = [file for file in files if file not in dev and TEST_NAMES.search(Path(file).name)]
    train = [file for file in files if file not in (*dev, *test)]
    if not train or not (dev or test):
        return list(files), [], []
    chosen, left = (dev, test) if dev else (test, [])
    notes = [f"{', '.join(chosen)}: evaluation rows, by {'its name' if len(chosen) == 1 else 'their names'}"]
    if left:
        notes.append(f"{', '.join(left)}: left out, for `dstrain evaluate RUN --as test` when the model is chosen")
    return train, chosen, notes


def _remarks(found: Sequence[Found]) -> list[str]:
    """A sentence for each source of which the first row may be a header, and for each with columns of which nothing is made."""
    of_headers = [f"{each.source.place}: {each.first_row}" for each in found if each.first_row]
    return of_headers + [
        f"{each.source.place}: not used: {'column' if len(each.unused) == 1 else 'columns'} "
        + ", ".join(f"`{name}`" for name in each.unused)
        for each in found
        if each.unused
    ]


def find_family(model: str) -> NamedFamily | None:
    """The family of a model: by its name, else by the configuration in its folder."""
    config = Path(model) / "config.json"
    family = named_family(Path(model).resolve().name if config.is_file() else model)
    if family is not None or not config.is_file():
        return family
    try:
        values = json.loads(read_bytes(config))
    except (OSError, ValueError, RecursionError):
        return None
    kind = values.get("model_type") if isinstance(values, dict) else None
    return named_family(kind) if isinstance(kind, str) else None


def run_name(files: Sequence[str]) -> str:
    """A name for the run, by its first file or the folder in which it lies."""
    path = Path(files[0])
    stem = TRAINING_NAMES.sub("", path.name.partition(".")[0])
    candidates = (stem, path.resolve().parent.name)
    cleaned = (re.sub(r"[^A-Za-z0-9]+", "-", each).strip("-")[: MAX_RUN_NAME // 2] for each in candidates)
    return next((each for each in cleaned if each), "my-run")


def _known_languages(asked: Asked, *, source: Source) -> tuple[Language | None, Language | None]:
    """The languages that the user names, or that both columns or both files of a source are called after."""
    if source.target_paths:
        names, what = (
            [Path(str(source.path)).suffix[1:], Path(source.target_paths[0]).suffix[1:]],
            "the suffix of its file",
        )
    else:
        names = [str(column).rpartition(".")[2] for column in (source.source_column, source.target_column)]
        what = "the name of its column"
    codes = [name if is_code(name) else name.lower() for name in names if is_code(name) or is_code(name.lower())]
    by_name: list[Language | None] = [(code, what) for code in codes] if len({*codes}) == len(names) else [None, None]
    given: list[Language | None] = [
        (code, NAMED) if code else None for code in (asked.source_language, asked.target_language)
    ]
    return given[0] or by_name[0], given[1] or by_name[1]


def _name(request: Request) -> str:
    files, _, _ = divide(request.files, request.evaluation_files)
    return request.name or run_name(files)


def _files_apart(path: Path) -> tuple[Path, Path]:
    """The files beside the recipe with the rows for training and for evaluation."""
    return path.with_name(f"{path.stem}.train.jsonl"), path.with_name(f"{path.stem}.eval.jsonl")


def _split_data(apart: tuple[tuple[Source, ...], Path, Path], *, rows: Rows) -> list[Line]:
    sources, train, evaluation = apart
    places = ", ".join(source.place for source in sources)
    columns = [Line("source_column", "source", "its key in each line"), Line("target_column", "target", "likewise")]
    columns += [
        Line(key, key.removesuffix("_column"), f"{SOURCE_KEYS[key]}; the column holds codes alone", "guess")
        for key in LANGUAGE_COLUMNS
        if all(key in source.further_columns for source in sources)
    ]
    why = f"about {count(num_apart(rows.num_rows), 'source')}, chosen by a hash: none is in both files; --eval names others"
    of_training = Section((Line("path", str(train), f"the other rows of {places}", "guess"), *columns))
    of_evaluation = Section((Line("path", str(evaluation), why, "guess"), *columns))
    return [
        Line("train", Items((of_training,)), "a list: several sources may be mixed"),
        Line("eval", Items((of_evaluation,)), "scored at every evaluation"),
    ]


def _data(found: Sequence[Found], evaluated: Sequence[Found], *, rows: tuple[Rows, Rows | None]) -> list[Line]:
    lines = [
        Line("train", Items(tuple(map(_source, found))), count(rows[0].num_rows, "row")),
        Line("eval", Items(tuple(map(_source, evaluated))), count(rows[1].num_rows, "row") if rows[1] else ""),
    ]
    broken = [each for each in rows if each is not None and each.bad["undecodable"]]
    if broken:
        number = sum(each.bad["undecodable"] for each in broken)
        why = f"{count(number, 'row')} cannot be read, the first at {broken[0].first_bad}; `error` stops at it"
        lines.append(
            section("rules", Line("undecodable", "skip", why, "guess"), why="what happens to rows that cannot be used")
        )
    return lines


def _source(found: Found) -> Section:
    values: dict[str, Any] = found.source.model_dump(exclude_unset=True)
    lines = [Line(key, value, SOURCE_KEYS.get(key, "")) for key, value in values.items() if value is not None]
    return Section((Line(lines[0].key, lines[0].value, found.why, "guess"), *lines[1:]))


def check_request(request: Request) -> None:
    """Raises UserError where options exclude each other, or a name cannot be one."""
    if request.model is not None and request.size is not None:
        raise UserError("--size is that of a model from scratch, and --model names another: give one of them")
    for file in {*map(os.path.realpath, request.files)} & {*map(os.path.realpath, request.evaluation_files)}:
        raise UserError(
            f"--eval: {file} is a file of training rows, and scores on these say nothing of others: name another, or leave "
            "--eval out, and rows are set apart"
        )
    if request.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", request.name):
        raise UserError(f"--name: at most 100 letters, digits, `.`, `_` and `-`; found {request.name!r}")
