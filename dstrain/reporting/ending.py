"""What a run says at its end: why it ended, what is best, and what to do next.

Functions of a RunRecord; of the run folder they see only whether it has plots.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from dstrain.config.arguments import shell_command
from dstrain.config.schema import RunConfig
from dstrain.reporting.command import command_to_copy
from dstrain.run_folder.layout import BEST, FINAL, RunFolder
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.record import RunRecord
from dstrain.tasks.translation import choose_languages, choose_prefix

Command = tuple[str, str]
"""What can be typed, and what it does."""


def describe_end(
    record: RunRecord, *, outcome: RunOutcome, sources: Path | None = None, program: Sequence[str] = ("dstrain",)
) -> list[str]:
    """Lines for the terminal; every command in them works as it is shown.

    `sources` is a file with sources that the model can be tried on, a line for each, and `program` the words that start
    dstrain's commands.
    """
    folder = RunFolder(Path(record.config.run_dir))
    rows = [("why", _why(record, outcome=outcome)), ("best", _best(record, folder=folder))]
    if outcome.outcome == "finished" and BEST not in record.exports and FINAL in record.exports:
        rows.append(("model", str(folder.model(FINAL))))
    plots = f", with plots in {folder.plots}" if folder.plots.is_dir() else ""
    rows.append(("card", f"{folder.card}{plots}"))
    commands = _next(record, outcome=outcome, folder=folder, sources=sources, program=program)
    rows += [("" if number else "next", f"{typed}  # {what}") for number, (typed, what) in enumerate(commands)]
    return [f"{folder.path}: {_headline(record, outcome=outcome)}", *(f"  {topic:<5}  {text}" for topic, text in rows)]


def _headline(record: RunRecord, *, outcome: RunOutcome) -> str:
    state = {"finished": "finished", "preempted": "stopped early, its work saved"}.get(outcome.outcome, outcome.outcome)
    total = record.info.total_steps
    return f"{state} at step {outcome.step or 0:,}{'' if total is None else f' of {total:,}'}"


def _why(record: RunRecord, *, outcome: RunOutcome) -> str:
    training = record.config.training
    if outcome.message:
        return outcome.message
    if training.epochs is None:
        return f"all {training.max_steps:,} steps are done (training.max_steps)"
    return f"{'1 epoch is' if training.epochs == 1 else f'{training.epochs:g} epochs are'} done (training.epochs)"


def _best(record: RunRecord, *, folder: RunFolder) -> str:
    best, metric = record.best, record.config.best_metric
    if best is None:
        return "none: the model was not evaluated yet"
    interval = f" ± {best.intervals[metric]:.4f}" if metric in best.intervals else ""
    where = f", in {folder.model(BEST)}" if record.exports.get(BEST) == best.step else ""
    return f"{metric} {best.scores[metric]:.4f}{interval} at step {best.step:,}{where}"


def _next(
    record: RunRecord, *, outcome: RunOutcome, folder: RunFolder, sources: Path | None, program: Sequence[str]
) -> Iterator[Command]:
    if outcome.outcome != "finished":
        command = None if record.info.launcher == "srun" else command_to_copy(record.info.command)
        if command is not None:
            yield command, "resume from the newest checkpoint"
        yield shell_command([*program, "status", folder.path]), "what is saved, and what a restart repeats"
        return
    languages = _languages(record.config)
    if sources is not None and languages is not None:
        words = [*program, "predict", folder.path, *languages]
        yield f"{shell_command(words)} < {shell_command([sources])}", "or any file of yours with a source in each line"
    if record.eval_rows:
        yield shell_command([*program, "evaluate", folder.path]), "score the best model again, or on other data"
    publish = [*program, "push", folder.path, "OWNER/NAME", "--dry-run"]
    yield shell_command(publish), "what would be published on the Hugging Face Hub"


def _languages(config: RunConfig) -> list[str] | None:
    """The options by which a prediction knows which of several directions is wanted; None if they stand in the rows."""
    task, train = config.task, config.data.train
    if any(each.source_language_column or each.target_language_column for each in train):
        return None
    pairs = [choose_languages(task, source=each.source_language, target=each.target_language) for each in train]
    prefixes = [
        choose_prefix(task, prefix=each.source_prefix, languages=pair) for each, pair in zip(train, pairs, strict=True)
    ]
    several: dict[str, list[str | None]] = {
        "--source-language": [pair.source for pair in pairs],
        "--target-language": [pair.target for pair in pairs],
        "--prefix": [*prefixes],
    }
    return [f"{option}={values[0] or ''}" for option, values in several.items() if len(set(values)) > 1]
