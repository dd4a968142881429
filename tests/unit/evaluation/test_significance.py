"""Intervals and differences are those of sacreBLEU's program to the last digit; rates are tested by flipped signs."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest, _bootstrap_resample

from dstrain.errors import UserError
from dstrain.evaluation import significance
from dstrain.evaluation.significance import NUM_FLIPS, SEED, find_difference, find_intervals, flip_p
from tests.unit.evaluation.significance_cases import METRICS, garble, run_program, sentences, statistics

NAMES = {"bleu": "BLEU", "chrf": "chrF2", "ter": "TER"}


def one_each(texts: Sequence[str]) -> list[list[str]]:
    return [[text] for text in texts]


def corpora(real_data: Path | None = None) -> tuple[list[list[str]], list[str], list[str]]:
    """References by row, and two systems that differ a little."""
    answers = sentences(150)
    if real_data is not None:
        lines = (real_data / "ko_en" / "python_docs.dev.tsv").read_text(encoding="utf-8").splitlines()
        answers = [line.split("\t")[1].strip() for line in lines]
    return one_each(answers), garble(answers, share=0.35, seed=1), garble(answers, share=0.32, seed=2)


def check_intervals(references: list[list[str]], hypotheses: list[str], *, folder: Path) -> None:
    printed = run_program(folder, "--confidence", systems=[hypotheses], references=references)
    expected = {each["name"]: each["confidence_var"] for each in printed}
    found = find_intervals(statistics(hypotheses, references))
    assert {NAMES[metric]: found[metric] for metric in METRICS} == expected
    assert all(value > 0.0 for value in expected.values())


def check_differences(references: list[list[str]], first: list[str], second: list[str], *, folder: Path) -> None:
    # the program cannot print chrF and TER as JSON, because their intervals are in float32
    systems: list[tuple[str, Sequence[str]]] = [("one", first), ("other", second)]
    metrics = {"BLEU": BLEU(force=True), "CHRF": CHRF(), "TER": TER()}
    _, test = PairedTest(systems, metrics, list(zip(*references, strict=True)), test_type="bs")()
    printed = run_program(folder, "--paired-bs", systems=[first, second], references=references, metrics=["bleu"])
    assert [each["BLEU"] for each in printed] == [vars(each) for each in test["BLEU"]]
    one, other = statistics(first, references), statistics(second, references)
    for metric in METRICS:
        found = find_difference(metric, first=one[metric], second=other[metric])
        baseline, system = test[NAMES[metric]]
        assert found.p == system.p_value
        assert found.value == system.score - baseline.score
        assert found.test == "bs:1000|seed:12345"
        assert find_intervals(one)[metric] == float(baseline.ci)
        assert find_intervals(other)[metric] == float(system.ci)
        assert found.low < found.value < found.high


def test_intervals_are_those_of_the_sacrebleu_program_to_the_last_digit(tmp_path: Path) -> None:
    references, first, _ = corpora()
    check_intervals(references, first, folder=tmp_path)


def test_differences_are_those_of_the_sacrebleu_program_to_the_last_digit(tmp_path: Path) -> None:
    check_differences(*corpora(), folder=tmp_path)


def test_several_references_whose_mean_length_is_no_whole_number_give_the_same(tmp_path: Path) -> None:
    references, first, second = corpora()
    three = [[text, *garble([text, text], share=0.5, seed=row)] for row, (text,) in enumerate(references)]
    three = [[text or "x" for text in texts] for texts in three]
    check_intervals(three, first, folder=tmp_path)
    check_differences(three, first, second, folder=tmp_path)


@pytest.mark.real_data
@pytest.mark.slow
def test_real_translations_give_the_same(real_data: Path, tmp_path: Path) -> None:
    references, first, second = corpora(real_data)
    check_intervals(references, first, folder=tmp_path)
    check_differences(references, first, second, folder=tmp_path)


def test_a_seed_in_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    references, first, _ = corpora()
    rows = statistics(first, references)
    before = find_intervals(rows)
    monkeypatch.setenv("SACREBLEU_SEED", "1")
    assert find_intervals(rows) == before


def test_sums_that_float32_does_not_hold_are_rounded_as_sacrebleu_rounds_them() -> None:
    generator = np.random.default_rng(0)
    rows = generator.integers(1_000_000, 2_000_000, size=(40, 2)).astype(float).tolist()
    _, scores = _bootstrap_resample(rows, TER())
    ordered = sorted(each.score for each in scores)
    assert find_intervals({"ter": rows})["ter"] == float(0.5 * (ordered[974] - ordered[25]))


def test_draws_in_blocks_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    references, first, second = corpora()
    one, other = statistics(first, references)["bleu"], statistics(second, references)["bleu"]
    whole = find_intervals({"bleu": one}), find_difference("bleu", first=one, second=other)
    monkeypatch.setattr(significance, "_NUMBERS_AT_ONCE", 7 * len(one))
    assert (find_intervals({"bleu": one}), find_difference("bleu", first=one, second=other)) == whole


def test_the_interval_of_a_mean_is_that_of_drawn_means() -> None:
    values = np.random.default_rng(3).random(60)
    drawn = np.random.default_rng(SEED).choice(60, size=(1000, 60), replace=True)
    means = np.sort(values[drawn].mean(axis=1))
    found = find_intervals({"rouge_l": [(value,) for value in values], "news/rouge_l": [(1.0,)] * 5})
    assert found["rouge_l"] == pytest.approx((means[974] - means[25]) / 2, rel=1e-12)
    assert found["news/rouge_l"] == 0.0


def test_the_same_system_differs_by_nothing_and_a_much_better_one_beyond_chance() -> None:
    references, first, _ = corpora()
    answers = [text for (text,) in references]
    one, best = statistics(first, references)["bleu"], statistics(answers, references)["bleu"]
    same = find_difference("bleu", first=one, second=one)
    assert (same.value, same.low, same.high, same.is_tie) == (0.0, 0.0, 0.0, True)
    assert same.p == 1 / 1001  # as in sacreBLEU, where no sample differs by more than nothing
    better = find_difference("bleu", first=one, second=best)
    assert not better.is_tie
    assert better.low > 0.0
    worse = find_difference("bleu", first=best, second=one)
    assert (worse.low, worse.high) == (-better.high, -better.low)
    assert not worse.is_tie


def exact_p(differences: Sequence[float]) -> float:
    """By trying every choice of signs."""
    observed = abs(sum(differences))
    sums = [abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
            for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    return sum(each >= observed - 1e-9 for each in sums) / len(sums)


@pytest.mark.parametrize(
    "differences",
    [[1.0] * 6, [1, 1, 1, -1, 0, 0, 1, 1], [0.0] * 4, [-1, -1, 1, 0], [1, -1], [0.5, -0.5, 0.5, 0.5], [1.0]],
)
def test_p_of_wins_and_losses_is_that_of_every_choice_of_signs(differences: list[float]) -> None:
    p, test = flip_p(np.array(differences, dtype=float))
    assert p == pytest.approx(exact_p(differences))
    assert test == "McNemar, exact"


def test_p_of_any_numbers_comes_near_that_of_every_choice_of_signs() -> None:
    differences = np.random.default_rng(5).normal(0.4, 1.0, 14)
    p, test = flip_p(differences)
    exact = exact_p(differences.tolist())
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact / NUM_FLIPS))
    assert test == f"flips:{NUM_FLIPS}|seed:{SEED}"
    assert flip_p(-differences)[0] == p


def test_p_of_many_rows_is_a_number() -> None:
    p, _ = flip_p(np.array([1.0] * 60_000 + [-1.0] * 59_000 + [0.0] * 10))
    assert p == pytest.approx(math.erfc(1000 / math.sqrt(119_000) / math.sqrt(2)), rel=0.02)


def test_exact_matches_are_compared_row_by_row() -> None:
    first, second = [(0.0,)] * 20, [(1.0,)] * 6 + [(0.0,)] * 14
    found = find_difference("exact_match", first=first, second=second)
    assert (found.value, found.p, found.test) == (pytest.approx(0.3), pytest.approx(2 / 2**6), "McNemar, exact")
    assert not found.is_tie


@pytest.mark.parametrize(("metric", "rows"), [("bleu", [(1.0,)]), ("chrf", [(1.0,) * 17]), ("mine", [(1.0, 2.0)])])
def test_numbers_that_are_none_of_the_metric_are_refused(metric: str, rows: list[tuple[float, ...]]) -> None:
    with pytest.raises(UserError, match=f"`{metric}` must have"):
        find_intervals({metric: rows})


def test_other_numbers_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="found 1 and 2"):
        find_difference("exact_match", first=[(1.0,)], second=[(1.0,)] * 2)
