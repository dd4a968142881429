"""The pairs of languages of a run: counted in its rows, or else those that its recipe names."""

from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.tasks.pairs import TrainedPair, distinct_languages, matching, trained_pairs
from dstrain.tasks.translation import Languages

COUNTED = [("ko", "en", "", 9), ("en", "ko", "", 7)]


def config(*sources: dict[str, Any], **task: Any) -> RunConfig:
    train = [{"path": "a.tsv"} | source for source in sources or ({},)]
    return RunConfig.model_validate(
        {
            "name": "run",
            "model": {"name": "base"},
            "task": {"kind": "translation"} | task,
            "data": {"train": train, "eval": [{"path": "b.tsv"}]},
            "training": {"batch_size": 1, "max_steps": 1, "learning_rate": 1.0},
        }
    )


def named(config: RunConfig, **given: Any) -> list[Languages]:
    return distinct_languages(trained_pairs(config, **given))


def test_the_pair_of_the_most_rows_is_the_default_unless_the_task_names_one_that_was_trained() -> None:
    assert named(config(), counted=COUNTED) == [Languages("ko", "en"), Languages("en", "ko")]
    asked = config(source_language="en", target_language="ko")
    assert named(asked, counted=COUNTED) == [Languages("en", "ko"), Languages("ko", "en")]
    not_trained = config(source_language="de", target_language="fr")
    assert named(not_trained, counted=COUNTED)[0] == Languages("ko", "en")


def test_without_counts_the_pairs_are_those_that_the_recipe_names() -> None:
    there, back = {"source_language": "ko", "target_language": "en"}, {"source_language": "en", "target_language": "ko"}
    assert named(config(there, back)) == [Languages("ko", "en"), Languages("en", "ko")]
    by_row = {
        "source_language_column": "from",
        "target_language_column": "to",
        "source_column": "a",
        "target_column": "b",
    }
    assert named(config(by_row)) == []
    assert named(config()) == []


def test_pairs_differ_by_their_prefix_too() -> None:
    counted = [("en", "de", ">>deu<< ", 3), ("en", "de", ">>nds<< ", 2)]
    assert [pair.prefix for pair in trained_pairs(config(), counted=counted)] == [">>deu<< ", ">>nds<< "]
    assert trained_pairs(config({"source_prefix": "x: "})) == [TrainedPair(Languages(None, None), "x: ")]
    assert named(config(), counted=counted) == [Languages("en", "de")]


def test_the_languages_that_are_given_choose_among_the_pairs() -> None:
    pairs = [Languages("ko", "en"), Languages("en", "ko"), Languages("en", "de")]
    assert matching(pairs, source="en", target=None) == pairs[1:]
    assert matching(pairs, source=None, target="en") == pairs[:1]
    assert matching(pairs, source="en", target="de") == pairs[2:]
    assert matching(pairs, source="af", target=None) == pairs
    assert matching(pairs, source=None, target=None) == pairs
