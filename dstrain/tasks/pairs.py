"""The pairs of languages that a model was trained in, and the one that it translates by default."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dstrain.config.schema import RunConfig
from dstrain.tasks.translation import Languages, choose_languages, choose_prefix


@dataclass(frozen=True, slots=True)
class TrainedPair:
    """The languages of training rows and the text before their sources."""

    languages: Languages
    prefix: str


def trained_pairs(
    config: RunConfig, *, counted: Iterable[tuple[str | None, str | None, str, int]] = ()
) -> list[TrainedPair]:
    """The pairs of the training rows, the default one first, the others by their number of rows.

    `counted` are the pairs that the rows were found to have, those of the most rows first. Without them, as in a run of an
    earlier version, the pairs are those that the recipe names. The default is the pair of the task if rows have it, otherwise
    that of the most rows, and of the earliest row where several have as many.
    """
    found = [TrainedPair(Languages(source, target), prefix) for source, target, prefix, _ in counted]
    found = found or list(dict.fromkeys(_named_pairs(config)))
    of_task = Languages(config.task.source_language, config.task.target_language)
    return sorted(found, key=lambda pair: pair.languages != of_task)


def distinct_languages(pairs: Iterable[TrainedPair]) -> list[Languages]:
    """The languages of the pairs without those of rows that name none on either side, each once, in order."""
    named = (pair.languages for pair in pairs)
    return [*dict.fromkeys(each for each in named if each.source is not None or each.target is not None)]


def matching(pairs: Iterable[Languages], *, source: str | None, target: str | None) -> list[Languages]:
    """Those of the pairs that have the languages which are given; all of them where no pair has."""
    everything = list(pairs)
    found = [
        pair
        for pair in everything
        if (source is None or pair.source == source) and (target is None or pair.target == target)
    ]
    return found or everything


def _named_pairs(config: RunConfig) -> Iterator[TrainedPair]:
    for source in config.data.train:
        languages = choose_languages(config.task, source=source.source_language, target=source.target_language)
        by_column = (
            "source_language_column" in source.further_columns or "target_language_column" in source.further_columns
        )
        if not by_column or None not in (languages.source, languages.target):
            yield TrainedPair(languages, choose_prefix(config.task, prefix=source.source_prefix, languages=languages))
