"""Settings of different sections that cannot go together, and why. Pure; conflicts inside one section are found there."""

import re
from collections.abc import Iterator, Mapping, Sequence

from dstrain.config.card import Card
from dstrain.config.data import Data
from dstrain.config.evaluation import Evaluation
from dstrain.config.machine import Machine
from dstrain.config.metrics import METRICS, choosing_metrics, has_rows
from dstrain.config.positions import limits_beyond, scratch_positions
from dstrain.config.recipe import Model, Task, Training
from dstrain.config.section import Conflict

T5_ARCHITECTURES = ("t5", "mt5", "umt5", "longt5")
"""Architectures whose activations overflow fp16 (transformers#9295): bf16 or fp32 unless forced."""

_NEED_LANGUAGES = ("m2m100", "nllb", "mbart")
"""Architectures with a token for each language: without a code they would take their tokenizer's default, whatever the data."""
_PUBLISHED = re.compile(rf"(?:[\w.-]+/)?({'|'.join(_NEED_LANGUAGES)})(?![a-z0-9])", re.IGNORECASE)
"""The names under which their models are published. A model of another name is looked at when a run starts."""
NO_LANGUAGES = ("marian", "t5", "mt5")
"""Architectures without language tokens: only the text of a source can tell them the target language."""
MARIAN_NAME = "opus-mt"
"""In the names of the published Marian models. A model of another name is looked at when a run starts."""


def evaluation_conflicts(
    task: Task, *, data: Data, evaluation: Evaluation, training: Training, machine: Machine
) -> Iterator[Conflict]:
    """A metric or a tokenizer that the task does not have; early stopping without periodic evaluations, or with another job's."""
    metric = evaluation.best_metric
    allowed = choosing_metrics(task.base_kind, wanted=evaluation.metrics, sets=data.eval_sets)
    if metric is not None and metric not in allowed:
        why = f"`{metric}` {_why_no_metric(metric, task=task, sets=data.eval_sets)}"
        yield (
            ("evaluation.best_metric", "evaluation.metrics", "task.kind"),
            f"{why}: take one of {', '.join(allowed)}{_how_to_compute(metric, computed=allowed)}",
        )
    if evaluation.bleu_tokenizer is not None and "bleu" not in allowed:
        keys = ("evaluation.bleu_tokenizer", "evaluation.metrics", "task.kind")
        yield keys, f"BLEU is not computed for task.kind `{task.kind}`: remove it, or add `bleu` to evaluation.metrics"
    if training.early_stopping is None:
        return
    if evaluation.every_steps is None and evaluation.every_epochs is None:
        keys = ("training.early_stopping", "evaluation.every_steps", "evaluation.every_epochs")
        yield keys, "needs evaluation.every_steps or evaluation.every_epochs"
    if machine.evaluation_job is not None:
        message = "cannot wait for scores of another job: set one of both to null"
        yield ("training.early_stopping", "machine.evaluation_job"), message


def significance_conflicts(
    metric: str, *, evaluation: Evaluation, training: Training, machine: Machine
) -> Iterator[Conflict]:
    """Ties asked for where `metric`, which chooses the best model, has no rows, or where another job has them."""
    asked = {
        "evaluation.best_by": evaluation.best_by == "tied_keeps_older",
        "training.early_stopping.significant": training.early_stopping is not None
        and training.early_stopping.significant,
    }
    for key in (key for key, is_asked in asked.items() if is_asked):
        if not has_rows(metric):
            message = f"needs a metric with numbers of each row, and `{metric}` has none: choose the best by another"
            yield (key, "evaluation.best_metric"), message
    if asked["evaluation.best_by"] and machine.evaluation_job is not None:
        message = "the evaluations of other jobs may come in any order: take `point`, or set the job to null"
        yield ("evaluation.best_by", "machine.evaluation_job"), message


def _how_to_compute(metric: str, *, computed: Sequence[str]) -> str:
    name = metric.rpartition("/")[2]
    item = next((known.wanted_as for known in METRICS if known.name == name and name not in computed), None)
    return f", or add `{item}` to evaluation.metrics" if item else ""


def average_conflicts(evaluation: Evaluation, *, model: Model, machine: Machine) -> Iterator[Conflict]:
    """An average of adapters, or one that another job would have to score."""
    if evaluation.average_last is None:
        return
    if model.adapter is not None:
        message = "the mean of adapters is not the adapter of the mean: set it to null"
        yield ("evaluation.average_last", "model.adapter"), message
    if machine.evaluation_job is not None:
        message = "is scored by the run itself: set it to null, and average afterwards with `dstrain average`"
        yield ("evaluation.average_last", "machine.evaluation_job"), message


def _why_no_metric(metric: str, *, task: Task, sets: Sequence[str]) -> str:
    name, slash, of_set = metric.partition("/")
    if slash and name not in sets:
        named = f"the names are {', '.join(sets)}" if sets else "no source has a name"
        return f"is of an evaluation set `{name}`, which no source of data.eval has as its name ({named})"
    if of_set == "loss":
        return "is not computed: the loss is that of all evaluation rows, not of one set"
    return f"is not computed for task.kind `{task.kind}`"


def task_conflicts(task: Task, *, data: Data, model: Model) -> Iterator[Conflict]:
    """Demo rows of another task; languages that the architecture needs, or cannot tell apart."""
    for side, sources in (("train", data.train), ("eval", data.eval)):
        for number, source in enumerate(sources):
            if source.demo not in (None, task.kind) and not task.own:
                message = f"demo `{source.demo}` has no rows for task.kind `{task.kind}`: make them equal"
                yield (f"data.{side}.{number}.demo", "task.kind"), message
    architecture, name = model.scratch.architecture if model.scratch else None, model.name or ""
    published = _PUBLISHED.match(name)
    if architecture in _NEED_LANGUAGES or published:
        owner = f"architecture `{architecture}`" if architecture else f"model.name `{name}`"
        for key, message in missing_languages(task, data=data, owner=owner):
            yield (key, "model.name" if published else "model.scratch.architecture", "task.kind"), message
    if model.scratch is not None:
        for key, message in limits_beyond(task, positions=scratch_positions(model.scratch)):
            yield (
                (key, "model.scratch.max_positions", "model.scratch.architecture"),
                f"{message}, or raise max_positions",
            )
    if (architecture or _named_architecture(name)) in NO_LANGUAGES or MARIAN_NAME in name:
        yield from language_conflicts(task, data=data)


def missing_languages(task: Task, *, data: Data, owner: str) -> Iterator[tuple[str, str]]:
    """(key, message) for each language that a translation model with language tokens needs and the recipe does not name.

    A parse is in no language: without a code both sides have the default token, in training as in use.
    """
    if task.kind != "translation":
        return
    sources = {f"data.train.{number}": source for number, source in enumerate(data.train)}
    sources |= {f"data.eval.{number}": source for number, source in enumerate(data.eval)}
    for key in ("source_language", "target_language"):
        lacking = [
            place
            for place, source in sources.items()
            if getattr(source, key) is None
            and getattr(task, key) is None
            and f"{key}_column" not in source.further_columns
        ]
        places = ["task"] if len(lacking) == len(sources) else lacking
        for place in places:
            yield f"{place}.{key}", f"is needed by {owner}, which tells languages apart by their codes"


def language_conflicts(task: Task, *, data: Data) -> Iterator[Conflict]:
    """A target language that a model without language tokens cannot tell from another: both have the same prefix."""
    if task.kind != "translation":
        return
    first: dict[str, tuple[str, str]] = {}
    for side, sources in (("train", data.train), ("eval", data.eval)):
        for number, source in enumerate(sources):
            prefix = task.source_prefix if source.source_prefix is None else source.source_prefix
            language = source.target_language or task.target_language
            key = f"data.{side}.{number}"
            if "{target_language}" in prefix:
                continue
            if source.target_language_column is not None:
                message = (
                    "Marian, T5 and mT5 have no language tokens, and nothing else in the text tells the languages of this "
                    "column apart: put `{target_language}` into the source_prefix, such as `>>{target_language}<< `; found "
                    f"{prefix!r}"
                )
                yield (f"{key}.target_language_column", f"{key}.source_prefix"), message
                continue
            if language is None:
                continue
            other, place = first.setdefault(prefix, (language, key))
            if other != language:
                message = (
                    f"this model has no language tokens, and nothing else in the text tells `{language}` from the "
                    f"`{other}` of {place}: give each of both a source_prefix of its own, such as `>>{language}<< ` for "
                    f"Marian; found {prefix!r} for both"
                )
                yield (f"{key}.target_language", f"{key}.source_prefix", "task.target_language"), message


def prefix_conflicts(task: Task, *, data: Data) -> Iterator[Conflict]:
    """A language in a prefix that neither the recipe nor a column of the data names."""
    for side, sources in (("train", data.train), ("eval", data.eval)):
        for number, source in enumerate(sources):
            prefix = task.source_prefix if source.source_prefix is None else source.source_prefix
            for key in ("source_language", "target_language"):
                named = getattr(source, key) or getattr(task, key) or source.further_columns.get(f"{key}_column")
                if f"{{{key}}}" in prefix and named is None:
                    place, owner = (
                        f"data.{side}.{number}",
                        "task" if source.source_prefix is None else f"data.{side}.{number}",
                    )
                    message = f"has `{{{key}}}`, which no key names: set {key} or {key}_column; found {prefix!r}"
                    yield (f"{owner}.source_prefix", f"{place}.{key}"), message


def embedding_conflicts(machine: Machine, *, model: Model, training: Training) -> Iterator[Conflict]:
    """A compact embedding where it would change what is learned, or where nothing is left to leave out."""
    if not machine.compact_embedding:
        return
    key = "machine.compact_embedding"
    if model.vocabulary == "seen":
        yield (
            (key, "model.vocabulary"),
            "model.vocabulary `seen` leaves these rows out already: set it to null or false",
        )
    if training.weight_decay:
        changes = f"training.weight_decay {training.weight_decay:g} changes rows that training does not read"
        yield (key, "training.weight_decay"), f"{changes}: set it to null or false"


def path_conflicts(paths: Mapping[str, str | None]) -> Iterator[Conflict]:
    """Folders, by key, that a shell would have expanded: as they are, they would be made under these very names."""
    for key, path in paths.items():
        if path is not None and (path.startswith("~") or "$" in path):
            sign = "~" if path.startswith("~") else "$"
            yield (key,), f"`{sign}` is not expanded: write the full path; found {path}"


def precision_conflicts(precision: str, *, model: Model) -> Iterator[Conflict]:
    """Arithmetic in fp16 for a model that overflows it, unless the recipe allows it."""
    architecture = model.scratch.architecture if model.scratch else _named_architecture(model.name or "")
    if precision == "fp16" and architecture in T5_ARCHITECTURES and not model.allow_fp16_t5:
        yield ("precision", "model.name", "model.scratch.architecture"), fp16_refusal(architecture)


def fp16_refusal(architecture: str) -> str:
    """Why fp16 is refused for the T5 family, and the way out."""
    return (
        f"`fp16` overflows in `{architecture}` (activations over 65,504; transformers#9295): use bf16 or fp32, or set "
        "model.allow_fp16_t5=true to try all the same"
    )


def _named_architecture(name: str) -> str | None:
    """The T5 architecture that a model's name contains: `t5` for `google/flan-t5-small`, `mt5` for `mt5-small`."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return next((architecture for architecture in T5_ARCHITECTURES if architecture in parts), None)


def card_conflicts(card: Card, *, model: Model) -> Iterator[Conflict]:
    """A base model on the card of a model that has none."""
    if card.base_model is not None and model.scratch is not None:
        keys = ("card.base_model", "model.scratch")
        yield keys, "a model with random weights was made from no other: remove it"
