"""The machine-readable front matter of a card: names, languages, metrics and the model index.

Owns how data sets, models and scores are named; independent of the card's text.
"""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from huggingface_hub import EvalResult, ModelCardData

from dstrain.config.data import Source
from dstrain.config.local_paths import HIDDEN, shorten_paths
from dstrain.config.metrics import METRICS, choosing_metrics, is_of_set
from dstrain.config.recipe import Task
from dstrain.config.schema import RunConfig
from dstrain.reporting.markdown import one_line
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow
from dstrain.tasks.pairs import TrainedPair, distinct_languages, trained_pairs

HUB_METRICS = {name: name for name in ("bleu", "chrf", "ter", "exact_match", "accuracy")} | dict.fromkeys(
    ("rouge_l", "rouge_1", "rouge_2"), "rouge"
)
"""Scores that the Hub has a page for, by its name."""
TASKS = {"translation": "translation", "parsing": "text-generation", "text": "text-generation"}
"""The Hub's task of each kind. It files its former `text2text-generation` under `text-generation`; transformers 5 has no
pipeline for either, so that the card shows code."""
LABELS = {
    "loss": "Loss", "bleu": "Bleu", "chrf": "chrF", "ter": "TER", "rouge_l": "Rouge L", "token_f1": "Token F1",
}  # fmt: skip
"""Names of scores on the card, where the name is not the key in title case."""
TITLES = {
    "bleu": "BLEU", "chrf": "chrF", "ter": "TER", "rouge_l": "ROUGE-L", "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2",
    "token_f1": "token F1", "exact_match": "exact match", "loss": "validation loss", "gen_len": "length of hypotheses",
    "hit_cap_rate": "hypotheses that were cut", "valid_brackets": "valid brackets",
}  # fmt: skip
"""Names of scores in plots and reports, where the name is not the key."""


def label(metric: str) -> str:
    """The name of a score on the card: `gen_len` is `Gen Len`, `flores/bleu` is `Bleu (flores)`."""
    if is_of_set(metric):
        name, _, of_set = metric.partition("/")
        return f"{label(of_set)} ({name})"
    return LABELS.get(metric, metric.replace("_", " ").title())


def title(metric: str) -> str:
    """The name of a score in a plot: `BLEU`, or `BLEU (flores)` for that of one evaluation set."""
    name, _, of_set = metric.rpartition("/")
    found = TITLES.get(of_set, of_set)
    return f"{found} ({name})" if name else found


def build_metadata(record: RunRecord, *, headline: EvalRow | None) -> ModelCardData:
    """The front matter, limited to the keys that the Hub defines; what the recipe does not state is left out."""
    config, card = record.config, record.config.card
    return ModelCardData(
        license=card.license,
        license_name=card.license_name,
        license_link=card.license_link,
        language=language_codes(record) or None,
        library_name="transformers",
        tags=_distinct(["dstrain", *card.tags]),
        datasets=[one_line(name) for name in hub_datasets(config)] or None,
        metrics=_distinct(HUB_METRICS[metric] for metric in config.choosing if metric in HUB_METRICS),
        base_model=hub_model(record),
        pipeline_tag=TASKS[config.task.base_kind],
        model_name=config.name,
        eval_results=build_results(record, headline=headline) if headline else None,
    )


def build_results(record: RunRecord, *, headline: EvalRow) -> list[EvalResult]:
    """The model index: every finite score of the headline that dstrain computes, with its sacrebleu signature if it has one."""
    sources = record.config.data.eval
    only = sources[0] if len(sources) == 1 and sources[0].hub else None
    return [
        EvalResult(
            task_type=TASKS[record.config.task.base_kind],
            task_name=one_line(record.config.task.title).capitalize(),
            dataset_type=one_line(only.hub or "") if only else "local",
            dataset_name=dataset_name(sources),
            dataset_config=only.subset if only else None,
            dataset_split=only.split if only else None,
            dataset_revision=only.revision if only else None,
            metric_type=metric,
            metric_name=label(metric),
            metric_value=round(value, 4),
            metric_args={"signature": one_line(signature)} if (signature := headline.signature_of(metric)) else None,
        )
        for metric, value in headline.scores.items()
        if math.isfinite(value) and _is_known(metric, config=record.config)
    ]


def _is_known(metric: str, *, config: RunConfig) -> bool:
    """Whether a score has a name that an evaluation gives: the file may be a stranger's, and the Hub shows what stands here."""
    of_sets = choosing_metrics(config.task.base_kind, wanted=config.evaluation.metrics, sets=config.data.eval_sets)
    return metric in of_sets or metric in (known.name for known in METRICS)


def pairs_of(record: RunRecord) -> list[TrainedPair]:
    """The languages and prefixes that the run trained, the default first."""
    report = record.info.data.get("train")
    return trained_pairs(record.config, counted=report.pairs if report is not None else ())


def language_codes(record: RunRecord) -> list[str]:
    """ISO 639 codes of the languages of the recipe and of the training rows: `ko_KR` becomes `ko`, `kor_Hang` `kor`."""
    config = record.config
    sections: tuple[Task | Source, ...] = (config.task, *config.data.train, *config.data.eval)
    named = [code for section in sections for code in (section.source_language, section.target_language)]
    named += [code for each in distinct_languages(pairs_of(record)) for code in (each.source, each.target)]
    codes = [re.split(r"[_-]", code)[0].lower() for code in named if code]
    return _distinct(code for code in codes if re.fullmatch(r"[a-z]{2,3}", code))


def hub_datasets(config: RunConfig) -> list[str]:
    """Names of the data sets from the Hub, those for training first."""
    return _distinct(source.hub for source in (*config.data.train, *config.data.eval) if source.hub)


def hub_model(record: RunRecord) -> str | None:
    """The name of the base model on the Hub: that which the recipe states, else the one that was loaded.

    None for a local folder, a run or a model trained from scratch of which the recipe states nothing.
    """
    if record.config.card.base_model is not None:
        return record.config.card.base_model
    name = record.config.model.name
    # whatever the run says: the name of a link on the card must be one
    can_be_on_hub = name is not None and re.fullmatch(r"(?!\.)[\w.-]+(/[\w.-]+)?", name, flags=re.ASCII) is not None
    if record.config.model.from_run is not None:
        return None
    return name if can_be_on_hub and record.info.model.origin in ("hub", None) else None


def dataset_name(sources: Sequence[Source]) -> str:
    """The name of all sources together: `mtop`, `tatoeba/train.tsv + docs/train.tsv`."""
    return one_line(" + ".join(_distinct(source_name(source) for source in sources)))


def source_name(source: Source) -> str:
    """The name of a source: its Hub name, the end of its path without a user's home, or its built-in demo."""
    if source.hub is not None:
        return f"{source.hub} ({source.subset})" if source.subset else source.hub
    if source.demo is not None:
        return f"built-in {source.demo} demo"
    path = shorten_paths(source.path or "").removeprefix(f"{HIDDEN}/")
    parts = [part for part in PurePath(path).parts if part not in ("/", "..", ".")]
    return "/".join(parts[-2:])


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
