"""ROUGE against Google's rouge-score, SQuAD's F1 against values by hand, the longest common subsequence against a table."""

from random import Random

import pytest

from dstrain.evaluation.overlap import longest_common, rouge_f1, token_f1

# F1 of rouge-score 0.1.2 without its stemmer: rougeL, rouge1, rouge2
OF_GOOGLE = (
    ("the cat sat on the mat", "the cat was on a mat", 0.6666666667, 0.6666666667, 0.2),
    ("A quick brown fox, jumps over 13 dogs!", "the quick fox jumped over thirteen dogs", 0.5333333333, 0.5333333333, 0.0),
    ("police killed the gunman", "police kill the gunman", 0.75, 0.75, 0.3333333333),
    ("the gunman police killed", "police killed the gunman", 0.5, 1.0, 0.6666666667),
    ("one", "one two", 0.6666666667, 0.6666666667, 0.0),
    ("a b c d e f g", "g f e d c b a", 0.1428571429, 1.0, 0.0),
    ("", "x", 0.0, 0.0, 0.0),
    ("x_y z", "x y z", 1.0, 1.0, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(("hypothesis", "reference", "rouge_l", "rouge_1", "rouge_2"), OF_GOOGLE)
def test_rouge_of_ascii_text_is_that_of_google(
    hypothesis: str, reference: str, rouge_l: float, rouge_1: float, rouge_2: float
) -> None:
    found = rouge_f1([hypothesis], [[reference]])
    assert [found[name][0] for name in ("rouge_l", "rouge_1", "rouge_2")] == pytest.approx([rouge_l, rouge_1, rouge_2])


@pytest.mark.parametrize(
    "text", ["정부는 새 정책을 발표했다", "政府发布了新政策", "รัฐบาลประกาศนโยบาย", "हिन्दी में लिखा", "Füße über Öl"]
)
def test_a_text_of_any_script_equals_itself_and_half_of_it_less(text: str) -> None:
    assert rouge_f1([text], [[text]])["rouge_l"] == [1.0]
    assert 0 < rouge_f1([text[: len(text) // 2]], [[text]])["rouge_l"][0] < 1


def test_the_closest_reference_of_a_row_counts() -> None:
    assert rouge_f1(["a b", "c"], [["x", "a b"], ["c d"]]) == {
        "rouge_l": [1.0, pytest.approx(2 / 3)],
        "rouge_1": [1.0, pytest.approx(2 / 3)],
        "rouge_2": [1.0, 0.0],
    }
    assert token_f1(["a b", "c"], [["x", "b"], ["c d"]]) == [1.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("hypothesis", "reference", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("in the year 1889", "1889", 0.5),  # in, year, 1889
        ("Paris", "London", 0.0),
        ("the", "an", 1.0),  # no word is left on either side
        ("the", "tower", 0.0),
        ("two two", "two", 2 / 3),
        ("don't", "dont", 1.0),
        ("北京市", "北京", 0.8),
    ],
)
def test_the_f1_of_answers_is_squads(hypothesis: str, reference: str, f1: float) -> None:
    assert token_f1([hypothesis], [[reference]]) == [pytest.approx(f1)]


def test_the_longest_common_subsequence_is_that_of_the_table_of_all_prefixes() -> None:
    rng = Random(0)
    for _ in range(300):
        one, other = ([rng.choice("abcd") for _ in range(rng.randrange(40))] for _ in range(2))
        row = [0] * (len(other) + 1)
        for left in one:
            before, row = row, [0]
            for place, right in enumerate(other):
                row.append(before[place] + 1 if left == right else max(before[place + 1], row[place]))
        assert longest_common(one, other) == row[-1]
