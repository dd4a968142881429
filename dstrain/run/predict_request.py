"""What `dstrain predict` is to do, from its arguments: which model, which settings, which rows. No torch."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.config.arguments import Parser, add_local_rank, shell_command
from dstrain.config.evaluation import Evaluation
from dstrain.config.load import load_config
from dstrain.config.machine import Machine
from dstrain.config.paths import path_problem
from dstrain.config.recipe import Task
from dstrain.config.schema import RunConfig
from dstrain.config.section import Section
from dstrain.config.spelling import COMPRESSIONS, format_suffix
from dstrain.config.yaml_source import shown
from dstrain.data.inputs import Format, Layout
from dstrain.data.records import Column
from dstrain.errors import UserError
from dstrain.run.task_settings import TaskSettings, read_task_settings, settings_of
from dstrain.run_folder.atomic import write_problem
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.find import check_begun
from dstrain.run_folder.layout import MODELS, RunFolder
from dstrain.run_folder.reading import read_exported_pairs
from dstrain.run_folder.record import CountedPairs, counted_pairs, load_record
from dstrain.tasks.pairs import distinct_languages, matching, trained_pairs
from dstrain.tasks.translation import Languages

STANDARD_INPUT = Path("-")

FORMATS: Mapping[str, Format] = {"tsv": "tsv", "jsonl": "jsonl", "json": "jsonl", "ndjson": "jsonl"}
"""Suffix of the input to its format; any other file has plain lines."""
LENGTH = "max_new_tokens"
OF_SEARCH: Mapping[str, str] = {"num_beams": "beams", "length_penalty": "length_penalty", LENGTH: LENGTH}
"""Key of `evaluation` to the option that sets it."""
OPTIONS: Mapping[str, str] = {**OF_SEARCH, "source_prefix": "prefix", "evaluation_tokens": "batch_tokens"}
"""Key to the option that sets it, where it has another name."""
NO_LINES = ("csv", "parquet", "xlsx")
"""Suffixes of files that are read as plain lines by mistake only."""


class Settings(Section):
    """What a recipe says of the search and the machine; the defaults are those of a recipe."""

    task: Task = Task(kind="translation")
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """None is that of a folder that dstrain has exported, and fp32 for any other."""
    evaluation: Evaluation = Evaluation()
    machine: Machine = Machine()


@dataclass(frozen=True)
class PredictRequest:
    """What is to be predicted, with which model."""

    model: str
    """A model folder or hub name; a run folder if `step` is given."""
    step: int | None
    run: RunFolder | None
    """The run whose recipe, tokenizer and vocabulary are used; None for any other model."""
    recipe: str | None
    """Where the settings come from; None if the model's own are used."""
    settings: Settings
    given: Mapping[str, Any]
    """Settings of the search that were given as options, by their keys of `evaluation`."""
    layout: Layout
    num_best: int | None
    keeps_pointers: bool
    input: Path
    output: Path | None
    """None is standard output."""
    trained: tuple[Languages, ...] = ()
    """The pairs of languages that the model was trained in, its default first; empty where nothing says so."""

    @property
    def is_stream(self) -> bool:
        """Whether the rows can be read only once: from standard input, or from a pipe such as `<(…)`."""
        return self.input == STANDARD_INPUT or not os.path.isfile(self.input)


def parse_arguments(arguments: Sequence[str], *, program: str) -> argparse.Namespace:
    """The parsed arguments; a mistake ends the process with a usage message and exit code 2."""
    parser = Parser(prog=program, description="Translate or parse the rows of a file.")
    parser.add_argument("model", help="a run folder (its best model is taken), a model folder or a hub name")
    parser.add_argument(
        "--input", type=Path, default=STANDARD_INPUT, help="a file; `-`, the default, is standard input"
    )
    parser.add_argument("--output", type=Path, help="the file to write; standard output is the default")
    parser.add_argument("--format", choices=("lines", "tsv", "jsonl"), help="of both; else by the suffix of the input")
    parser.add_argument("--config", help="the recipe that the model was trained with; a run folder has its own")
    parser.add_argument("--step", type=int, help="take the checkpoint of this step of a run")
    parser.add_argument("--source-column", type=_column, help="a name, or in TSV a number from 0; 0, or `source`")
    parser.add_argument("--source-language-column", type=_column, help="column with the language code of each source")
    parser.add_argument("--target-language-column", type=_column, help="column with the code of the wanted language")
    parser.add_argument("--source-language", help="language code of the sources")
    parser.add_argument("--target-language", help="language code of the predictions")
    parser.add_argument("--prefix", help="text before every source")
    parser.add_argument("--beams", type=int, help="beam size; 1 is greedy search")
    parser.add_argument("--length-penalty", type=float, help="exponent of the length in beam scores")
    parser.add_argument("--max-new-tokens", type=int, help="longest prediction in tokens")
    parser.add_argument("--max-source-tokens", type=int, help="longest source in tokens; longer ones are cut")
    parser.add_argument(
        "--n-best", type=int, metavar="N", help="write the N best predictions of a row with their scores"
    )
    parser.add_argument(
        "--pointers", action="store_true", help="parsing: leave `<pt-N>` instead of words of the source"
    )
    parser.add_argument("--batch-tokens", type=int, help="source tokens of a batch, beams and padding included")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one is the default")
    add_local_rank(parser)
    return parser.parse_args(arguments)


def _column(text: str) -> Column:
    return int(text) if text.isdecimal() else text


def plan_prediction(options: argparse.Namespace) -> PredictRequest:
    """The request that the arguments describe.

    Raises:
        UserError: the arguments contradict each other, or what they name does not exist.
    """
    _check_files(options)
    run, model = _find_model(options)
    config: RunConfig | None = None
    if options.config is not None:
        config = load_config(options.config, trains=False)
    elif run is not None:
        config = read_run_config(run)
    counted = () if run is None else counted_pairs(run)
    held = settings_of(config) if config is not None else read_task_settings(Path(model))
    if config is None and held is not None and held.task.own:
        raise UserError(
            f"{model}: its task is the class `{held.task.own}` of somebody's own, and a model folder starts no code: name the "
            "recipe that it was trained with, --config RECIPE"
        )
    exported = [Languages(*pair) for pair in read_exported_pairs(Path(model))]
    named = exported if config is None else [pair.languages for pair in trained_pairs(config, counted=counted)]
    settings = _settings(config, held=held, trained=named, options=options)
    given = {key: getattr(options, name) for key, name in OF_SEARCH.items() if getattr(options, name) is not None}
    _validated(Evaluation, given)
    if options.step is not None and not {**given, **settings.evaluation.model_dump(exclude_none=True)}.get(LENGTH):
        assert run is not None
        given[LENGTH] = _recorded_length(run, step=options.step)
    if options.n_best is not None and (config is not None or options.beams is not None):
        check_beams(options.n_best, num_beams=given.get("num_beams", settings.evaluation.num_beams))
    return PredictRequest(
        model=model,
        step=options.step,
        run=run,
        recipe=options.config or (None if run is None else str(run.config)),
        settings=settings,
        given=given,
        layout=_layout(options),
        num_best=options.n_best,
        keeps_pointers=options.pointers,
        input=options.input,
        output=options.output,
        trained=tuple(_trained(config, counted=counted) or exported),
    )


def _trained(config: RunConfig | None, *, counted: CountedPairs) -> list[Languages]:
    """The pairs that the run counted; empty if it is not one, or has counted none."""
    return distinct_languages(trained_pairs(config, counted=counted)) if counted and config is not None else []


def check_beams(num_best: int, *, num_beams: int) -> None:
    """Raises UserError where a search has not as many hypotheses, or no scores."""
    if num_beams < max(2, num_best):
        beams = "1 beam" if num_beams == 1 else f"{num_beams} beams"
        raise UserError(
            f"--n-best {num_best} with {beams}: give --beams {max(2, num_best)} or more; scores are those of a beam search"
        )


def _check_files(options: argparse.Namespace) -> None:
    for name in ("input", "output"):
        path = getattr(options, name)
        if path is not None and (problem := path_problem(path)):
            raise UserError(f"--{name} {problem}; found {shown(str(path))}")
    if options.input != STANDARD_INPUT and os.path.isdir(options.input):
        raise UserError(f"--input {options.input} is a folder: name a file in it")
    if options.input != STANDARD_INPUT and not os.path.exists(options.input):
        raise UserError(f"--input {options.input}: no such file (looked in {Path.cwd()})")
    if options.output is not None and os.path.isdir(options.output):
        raise UserError(f"--output {options.output} is a folder: name a file in it")
    if options.output is not None and (problem := write_problem(options.output)):
        raise UserError(f"--output {options.output} cannot be written: {problem}: name another file")
    if options.output is not None and options.output.suffix.lower() in COMPRESSIONS:
        raise UserError(f"--output {options.output}: the output is not compressed: leave out {options.output.suffix}")
    if options.n_best is not None and options.n_best < 1:
        raise UserError(f"--n-best must be at least 1; found {options.n_best}")


def _find_model(options: argparse.Namespace) -> tuple[RunFolder | None, str]:
    """The run, if the model is one's, and the folder or name that holds the weights."""
    name, folder = options.model, Path(options.model)
    if problem := path_problem(name):
        raise UserError(f"MODEL {problem}; found {shown(name)}")
    if _is_run(folder):
        run = RunFolder(folder)
        return run, str(folder) if options.step is not None else _best_model(run)
    check_begun(RunFolder(folder))
    if (checkpoint := parse_checkpoint_name(folder)) is not None and os.path.isdir(folder):
        command = shell_command(["dstrain", "predict", folder.parents[1], "--step", checkpoint.step])
        raise UserError(f"{name} is a checkpoint: {command}")
    if options.step is not None:
        raise UserError(
            f"--step needs a run folder, and {name} is not one: it holds no {RunFolder(folder).config.name}"
        )
    above = Path(os.path.abspath(folder)).parent
    if folder.name in MODELS and os.path.isdir(folder) and _is_run(above):
        return RunFolder(folder.parent if folder.parent != Path() else above), name
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    if not os.path.exists(folder) and (is_path or (os.path.isdir(folder.parent) and folder.parent != Path())):
        raise UserError(
            f"{name}: no such folder; give a run folder, a model folder, or owner/name of a model on the hub"
        )
    return None, name


def _is_run(folder: Path) -> bool:
    return os.path.lexists(RunFolder(folder).config)


def _best_model(run: RunFolder) -> str:
    for name in MODELS:
        if run.model(name).is_dir():
            return str(run.model(name))
    raise UserError(
        f"{run.path} holds no model yet, neither {' nor '.join(f'{name}/' for name in MODELS)}: take one of its checkpoints "
        f"with --step ({shell_command(['dstrain', 'verify', run.path])} lists them)"
    )


def _settings(
    config: RunConfig | None, *, held: TaskSettings | None, trained: Sequence[Languages], options: argparse.Namespace
) -> Settings:
    """The settings of the recipe, or of the task that the model folder holds, with those of the options."""
    values = Settings().model_dump()
    if config is not None:
        values = config.model_dump(include={"precision", "evaluation", "machine"})
    if held is not None:
        values["task"] = held.task.model_dump() | _defaults(held, trained=trained, options=options)
    task = {
        "source_language": options.source_language,
        "target_language": options.target_language,
        "source_prefix": options.prefix,
        "max_source_tokens": options.max_source_tokens,
    }
    machine = {"evaluation_tokens": options.batch_tokens, "device": options.device}
    for section, changes in (("task", task), ("machine", machine)):
        values[section] |= {key: value for key, value in changes.items() if value is not None}
    settings: Settings = _validated(Settings, values)
    return settings


def _defaults(
    held: TaskSettings, *, trained: Sequence[Languages], options: argparse.Namespace
) -> dict[str, str | None]:
    """The languages and the prefix of the training rows.

    Raises UserError where they have several, and neither an option nor a column says which is meant, nor the task of the
    recipe both languages.
    """
    task_pair = Languages(held.task.source_language, held.task.target_language)
    is_told = options.source_language is not None or options.target_language is not None
    if trained and trained[0] == task_pair and None not in astuple(task_pair) and not is_told:
        trained = trained[:1]
    pairs = matching(trained, source=options.source_language, target=options.target_language)
    of_pairs = {"source_language": [pair.source for pair in pairs], "target_language": [pair.target for pair in pairs]}
    found = {**held.trained_with, **(of_pairs if pairs else {})}
    defaults: dict[str, str | None] = {}
    for key in ("source_language", "target_language", "source_prefix"):
        distinct = list(dict.fromkeys(found.get(key, []))) or [None]
        option = "prefix" if key == "source_prefix" else key
        is_told = any(getattr(options, name, None) is not None for name in (option, f"{option}_column"))
        if len(distinct) > 1 and not is_told:
            flag = f"--{option.replace('_', '-')}"
            column = "" if key == "source_prefix" else f", or with {flag}-column by row"
            shown_values = ", ".join(f"`{value}`" for value in distinct)
            raise UserError(
                f"the model was trained with several values of {key} ({shown_values}): say which with {flag}{column}"
            )
        defaults[key] = distinct[0] if len(distinct) == 1 else None
    return defaults | {"source_prefix": defaults["source_prefix"] or ""}


def _validated(kind: type[Section], values: Mapping[str, Any]) -> Any:
    """The section with these values; raises UserError that names the option of a wrong one."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][-1])
        option = OPTIONS.get(key, key).replace("_", "-")
        raise UserError(f"--{option} {first['msg'][:1].lower()}{first['msg'][1:]}; found {first['input']!r}") from error


def _recorded_length(run: RunFolder, *, step: int) -> int:
    """The longest hypothesis, in tokens, that the run's evaluation of this step allowed, or else its latest one."""
    rows = load_record(run.path).eval_rows
    of_step = [row for row in rows if row.step == step] or list(rows)
    length = of_step[-1].generation.get(LENGTH) if of_step else None
    if not isinstance(length, int):
        raise UserError(
            f"{run.path} has no evaluation yet that says how long predictions may be: give --max-new-tokens"
        )
    return length


def _layout(options: argparse.Namespace) -> Layout:
    """How the rows are laid out; raises UserError for columns and several predictions where there is no place for them."""
    suffix = "" if options.input == STANDARD_INPUT else format_suffix(options.input)
    if options.format is None and suffix in NO_LINES:
        raise UserError(f"--input {options.input}: {suffix} is not read here: write TSV, JSON lines or plain lines")
    found: Format = options.format or FORMATS.get(suffix, "lines")
    languages = ("source_language_column", "target_language_column")
    given = {
        name: getattr(options, name) for name in ("source_column", *languages) if getattr(options, name) is not None
    }
    for name, column in given.items():
        flag = f"--{name.replace('_', '-')} {column}"
        if found == "lines":
            raise UserError(f"{flag}: plain lines have no columns: leave it out, or give --format tsv or jsonl")
        if found == "jsonl" and isinstance(column, int):
            raise UserError(f"{flag}: in JSON lines columns have names, dotted for nested ones")
    if found == "lines" and options.n_best is not None:
        raise UserError(
            f"--n-best {options.n_best}: plain lines have one text a row: give --format tsv, which takes them as rows of one "
            "cell, or jsonl"
        )
    return Layout(
        format=found,
        source_column=given.get("source_column", "source" if found == "jsonl" else 0),
        source_language_column=options.source_language_column,
        target_language_column=options.target_language_column,
        has_several=options.n_best is not None,
    )
