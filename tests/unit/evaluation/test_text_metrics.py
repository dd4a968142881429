"""Scores of texts against sacreBLEU itself and against values by hand."""

import pytest
import sacrebleu

from dstrain.config.metrics import METRICS, WANTED
from dstrain.evaluation.metrics import Score
from dstrain.evaluation.text_metrics import Corpus, text_scores

HYPOTHESES = ["the cat sat on the mat .", "two cups of coffee", "half past three in the afternoon"]
REFERENCES = ["the cat sat on a mat.", "two cups of coffee", "half past three in the morning"]


def score(
    hypotheses: list[str], references: list[str], *, wanted: tuple[str, ...] = ("bleu", "chrf", "ter")
) -> dict[str, Score]:
    found = text_scores(Corpus(hypotheses, [[text] for text in references]), wanted=wanted)
    return {each.name: each for each in found}


def test_the_scores_of_sacrebleu_are_its_own_and_not_rounded() -> None:
    scores = score(HYPOTHESES, REFERENCES)
    assert scores["bleu"].value == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores["chrf"].value == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert scores["ter"].value == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    assert scores["bleu"].value != round(scores["bleu"].value, 4)


def test_scores_have_the_full_signature() -> None:
    signatures = {name: each.signature for name, each in score(["a b"], ["a b"]).items()}
    version = sacrebleu.__version__
    assert signatures == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}",
        "ter": f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:{version}",
    }


def test_a_corpus_score_is_not_the_mean_of_its_parts() -> None:
    whole = score(HYPOTHESES, REFERENCES)["bleu"].value
    parts = [score([one], [other])["bleu"].value for one, other in zip(HYPOTHESES, REFERENCES, strict=True)]
    assert whole != pytest.approx(sum(parts) / len(parts), abs=1.0)


def test_texts_without_spaces_score_by_the_tokenizer_that_splits_them() -> None:
    (found,) = text_scores(Corpus(["我喝兩杯咖啡"], [["我喝兩杯咖啡"]], "zh"), wanted=["bleu"])
    assert found.value == pytest.approx(100.0)
    assert "tok:zh" in str(found.signature)


def test_a_hypothesis_is_compared_with_all_references_of_its_row() -> None:
    several = [[REFERENCES[0], HYPOTHESES[0]], [REFERENCES[1]], ["a", "b", REFERENCES[2]]]
    scores = {each.name: each for each in text_scores(Corpus(HYPOTHESES, several), wanted=["bleu", "chrf"])}
    columns = [[REFERENCES[0], REFERENCES[1], "a"], [HYPOTHESES[0], None, "b"], [None, None, REFERENCES[2]]]
    assert scores["bleu"].value == sacrebleu.corpus_bleu(HYPOTHESES, columns).score
    assert scores["chrf"].value == sacrebleu.corpus_chrf(HYPOTHESES, columns).score
    assert str(scores["bleu"].signature).startswith("nrefs:3|")


def test_exact_match_is_strict_and_accuracy_forgives_case_and_white_space() -> None:
    hypotheses, references = ["Yes", "no ", "May  be", "x"], ["yes", "no", "may be", "y"]
    scores = score(hypotheses, references, wanted=("exact_match", "accuracy"))
    assert scores["exact_match"].value == 0.25  # `no`, since a line has no white space at its end
    assert scores["accuracy"].value == 0.75


def test_every_item_that_a_recipe_may_name_gives_the_scores_of_the_table_with_the_best_value_for_equal_texts() -> None:
    for item in WANTED:
        found = score(REFERENCES, REFERENCES, wanted=(item,))
        expected = {metric.name: metric for metric in METRICS if metric.wanted_as == item}
        assert found.keys() == expected.keys()
        for name, metric in expected.items():
            best = 0.0 if metric.lower_is_better else 100.0 if metric.unit == "0 to 100" else 1.0
            assert found[name].value == pytest.approx(best), name


def test_an_empty_corpus_and_uneven_sides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.eval"):
        text_scores(Corpus([], []), wanted=["bleu"])
    with pytest.raises(ValueError, match="found 2 and 1"):
        text_scores(Corpus(["a", "b"], [["a"]]), wanted=["bleu"])
