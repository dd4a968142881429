"""The scores of each direction beside a headline that mixes target languages."""

from typing import Any

from dstrain.reporting.pair_scores import explain_pair_scores
from dstrain.run_folder.record import RunRecord, build_record
from tests.unit.reporting.reporting_cases import run_info, translation_config, translation_row

PAIRS = [["ko", "en", "", 9], ["en", "ko", "", 9]]
COLUMNS = {"source_column": "a", "target_column": "b", "source_language_column": "c", "target_language_column": "d"}
GROUPS = {"en-ko": {"bleu": 11.0, "chrf": 31.0}, "ko-en": {"bleu": 22.0, "chrf": 42.0}}


def record(*, groups: dict[str, Any] = GROUPS, pairs: list[list[Any]] = PAIRS, sets: tuple[str, ...] = ()) -> RunRecord:
    sources = [{"path": f"{name}.tsv", "name": name} | COLUMNS for name in sets] or [{"path": "b.tsv"} | COLUMNS]
    data = {"train": [{"path": "a.tsv"} | COLUMNS], "eval": sources}
    row = translation_row(
        10,
        bleu=15.0,
        loss=1.0,
        groups=groups,
        group_intervals={"en-ko": {"bleu": 0.5}},
        signatures={"bleu": "nrefs:1|tok:13a|version:2", "bleu (en-ko)": "nrefs:1|tok:ko-mecab-1|version:2"},
    )
    config = translation_config(task={"kind": "translation"}, data=data)
    return build_record(config, info=run_info(data={"train": {"pairs": pairs}}), rows=[row])


def test_each_direction_has_its_scores_their_interval_and_their_tokenizer() -> None:
    (sentence,) = explain_pair_scores(record())
    assert "are not comparable with those of one language" in sentence
    assert "`ko-en`: Bleu 22.0000 (tok:13a), chrF 42.0000" in sentence
    assert "`en-ko`: Bleu 11.0000 ± 0.5000 (tok:ko-mecab-1), chrF 31.0000" in sentence


def test_a_set_stands_for_its_direction() -> None:
    groups = {"there": GROUPS["ko-en"], "back": GROUPS["en-ko"], "not in training": GROUPS["ko-en"]}
    (sentence,) = explain_pair_scores(record(groups=groups, sets=("there", "back")))
    assert sentence.index("`there`: Bleu 22.0000") < sentence.index("`back`: Bleu 11.0000")
    assert "not in training" not in sentence


def test_one_target_language_needs_no_word() -> None:
    assert explain_pair_scores(record(pairs=[["ko", "en", "", 9], ["de", "en", "", 9]])) == []
    assert explain_pair_scores(record(groups={})) == []
