"""What `dstrain evaluate` is to score, from its arguments. No torch."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.config.arguments import Parser, add_local_rank, shell_command
from dstrain.config.differences import differences
from dstrain.config.paths import path_problem
from dstrain.config.schema import RunConfig
from dstrain.config.spelling import keep_spelling
from dstrain.config.yaml_source import shown
from dstrain.errors import UserError
from dstrain.run_folder.began import load_run_config, read_run_config
from dstrain.run_folder.find import check_begun
from dstrain.run_folder.layout import MODELS, RunFolder

EFFECTIVE_KEYS = (
    "task",
    "data.eval",
    "data.rules",
    "precision",
    *(
        f"evaluation.{key}"
        for key in (
            "batch_size",
            "num_beams",
            "length_penalty",
            "max_new_tokens",
            "metrics",
            "external",
            "bleu_tokenizer",
            "loss",
            "max_rows",
        )
    ),
    *(f"machine.{key}" for key in ("evaluation_tokens", "cache_dir", "lease_seconds", "collective_timeout_minutes")),
)
"""Recipe keys that affect scoring; other overrides are ignored, with a notice."""

COMPARED_KEYS = (
    "task",
    "data.rules",
    "precision",
    *(f"evaluation.{key}" for key in ("num_beams", "length_penalty", "max_new_tokens", "bleu_tokenizer", "max_rows")),
)
"""Recipe keys without whose values scores cannot be compared."""

OF_SOURCES = ("source_language", "target_language", "source_prefix")
"""Keys of `task` that a data source may override."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be scored, and where the scores go."""

    config: RunConfig
    model: str
    """A model folder or hub name; a run folder if `step` is given."""
    step: int | None
    output: Path
    """Where scores and hypotheses are written."""
    is_pending: bool
    """Score what the run in `output` left to another job, rather than one model."""
    card_of: RunFolder | None
    """The run whose card shows these scores as those of another test set."""
    ignored: tuple[str, ...]
    """Overrides that have no effect on scores."""
    run: RunFolder | None = None
    """The run whose model is scored; None for any other model."""
    changes: Mapping[str, Any] | None = None
    """Keys that decide a score and have other values than in the run's own evaluations; None without a run."""


def parse_arguments(arguments: Sequence[str], *, program: str) -> argparse.Namespace:
    """The parsed arguments; a mistake ends the process with a usage message and exit code 2."""
    parser = Parser(prog=program, description="Score a model on the evaluation rows of a recipe.")
    parser.add_argument("model", help="a run folder (its best model is taken), a model folder or a hub name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.eval=… evaluation.num_beams=5 …")
    parser.add_argument("--config", help="the recipe; a run folder has its own")
    parser.add_argument("--step", type=int, help="score the checkpoint of this step of a run")
    parser.add_argument("--as", dest="name", help="name of another test set: its scores join the run's card, by step")
    parser.add_argument("--pending", action="store_true", help="score what the run left to another job")
    parser.add_argument("--output", type=Path, help="where scores and hypotheses are written")
    add_local_rank(parser)
    return parser.parse_intermixed_args(arguments)


def plan_evaluation(options: argparse.Namespace) -> EvaluationRequest:
    """The request that the arguments describe.

    Raises:
        UserError: the arguments contradict each other, or what they name does not exist.
    """
    run = RunFolder(Path(options.model)) if os.path.lexists(RunFolder(Path(options.model)).config) else None
    if run is None:
        _check_without_run(options)
    if options.pending and (options.step or options.name or options.output or options.config):
        raise UserError("--pending scores a run's own evaluations: omit --step, --as, --output and --config")
    if options.name and options.output:
        raise UserError("--as keeps the scores in the run folder: omit --output, or --as")
    # what chooses the best model has no effect here, and may name a set that is not among these rows
    overrides = [*options.overrides, "evaluation.best_metric=null"]
    settings: dict[str, Any] = {"overrides": overrides, "check_files": True, "trains": False}
    own = None if run is None else read_run_config(run)
    if options.config is not None or run is None:
        config = load_run_config(options.config, **settings)
    else:
        config = read_run_config(run, **settings)
    if options.pending and (changed := [text for text in options.overrides if not text.startswith("machine.")]):
        raise UserError(f"--pending scores what the run's own recipe says: `{changed[0]}` would change that; omit it")
    changes = [text for text in options.overrides if _sets_any(text, keys=EFFECTIVE_KEYS)]
    if options.name and options.config is None and all(text.startswith("machine.") for text in changes):
        raise UserError(
            f"--as {options.name} would be the run's own evaluation rows under another name: give the rows of the test set, "
            "'data.eval=[{path: other.tsv}]', or omit --as"
        )
    if run is not None and own is not None and not (options.name or options.output or options.pending):
        _check_own_rows(run, own=own, config=config)
    return EvaluationRequest(
        config,
        options.model if run is None or options.pending else _model_of(run, step=options.step),
        step=options.step,
        output=_output(options, run=run, config=config),
        is_pending=options.pending,
        card_of=run if options.name else None,
        ignored=tuple(text for text in options.overrides if text not in changes),
        run=run,
        changes=None if own is None else describe_changes(own, config),
    )


def describe_changes(own: RunConfig, config: RunConfig) -> dict[str, Any]:
    """The keys that decide a score and are not in `config` as in a run's `own` recipe, with their values in `config`."""
    before, after = own.model_dump(mode="json"), keep_spelling(config, as_in=own.model_dump()).model_dump(mode="json")
    found = {key: new for key, _, new in differences(before, after) if _sets_any(key, keys=COMPARED_KEYS)}
    found = {key: new for key, new in found.items() if key.removeprefix("task.") not in OF_SOURCES}
    for key in OF_SOURCES:
        values = _values(config, key=key)
        if values != _values(own, key=key):
            found[key] = values[0] if len(values) == 1 else values
    return found


def _values(config: RunConfig, *, key: str) -> list[str | None]:
    """The values of a key in all evaluation rows, the source's own before the task's."""
    own = (getattr(source, key) for source in config.data.eval)
    return sorted({getattr(config.task, key) if value is None else value for value in own}, key=str)


def _check_own_rows(run: RunFolder, *, own: RunConfig, config: RunConfig) -> None:
    """Refuse other rows than the run's: their scores would stand for those of the run's rows."""
    if config.data.eval != own.data.eval:
        raise UserError(
            f"data.eval names other rows than those of {run.path}: give this test set a name, --as NAME, and its scores join "
            "the run's card, or a folder, --output FOLDER"
        )


def _check_without_run(options: argparse.Namespace) -> None:
    """Refuse arguments that need a run folder, and paths that do not exist, before the hub is queried, which is slow."""
    name, folder = options.model, Path(options.model)
    if problem := path_problem(name):
        raise UserError(f"MODEL {problem}; found {shown(name)}")
    check_begun(RunFolder(folder))
    if (checkpoint := parse_checkpoint_name(folder)) is not None and os.path.isdir(folder):
        command = shell_command(["dstrain", "evaluate", folder.parents[1], "--step", checkpoint.step])
        raise UserError(f"{name} is a checkpoint: {command}")
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    if not os.path.exists(folder) and (is_path or (os.path.isdir(folder.parent) and folder.parent != Path())):
        raise UserError(
            f"{name}: no such folder; give a run folder, a model folder, or owner/name of a model on the hub"
        )
    config = RunFolder(folder).config.name
    if given := [option for option in ("step", "name", "pending") if getattr(options, option)]:
        flag = {"name": "--as"}.get(given[0], f"--{given[0]}")
        raise UserError(f"{flag} needs a run folder, and {name} is not one: it holds no {config}")
    if options.config is None:
        raise UserError(f"{name} is not a run folder with a {config}: name a recipe with --config")


def _sets_any(override: str, *, keys: Sequence[str]) -> bool:
    """Whether `a.b=value` sets one of `keys`, a part of one, or a section that holds one."""
    path = override.split("=", 1)[0] + "."
    return any(path.startswith(f"{key}.") or f"{key}.".startswith(path) for key in keys)


def _model_of(run: RunFolder, *, step: int | None) -> str:
    if step is not None:
        return str(run.path)
    for name in MODELS:
        if run.model(name).is_dir():
            return str(run.model(name))
    raise UserError(
        f"{run.path} holds no model yet, neither {' nor '.join(f'{name}/' for name in MODELS)}: score one of its checkpoints "
        f"with --step ({shell_command(['dstrain', 'verify', run.path])} lists them)"
    )


def _output(options: argparse.Namespace, *, run: RunFolder | None, config: RunConfig) -> Path:
    if options.output:
        return Path(options.output)
    if run is None:
        return Path("evaluate") / config.name
    if options.name:
        return run.test_set(options.name).path
    return run.path if options.pending else run.evaluation
