"""Results of cards in terms of this program: names, units, cadence, and how many rows the data had."""

from itertools import pairwise

import pytest

from dstrain.draft.card import ModelCard, parse_card, read_card
from dstrain.draft.published import MAX_ROWS, Step, best_step, cadence, read_results, rows_of, score_name
from tests.unit.draft.card_texts import KO_EN, POINTER, card_text


def card_of(columns: tuple[str, ...], rows: list[tuple[str, ...]], **results: str) -> ModelCard:
    return parse_card(card_text(columns=columns, rows=rows, results=results or None), file="x")


def test_the_shipped_cards_have_their_numbers() -> None:
    results = read_results(read_card(POINTER))
    assert results.scores == {"loss": 0.1202, "exact_match": 0.7445}
    assert results.steps[5] == Step(1200, 39.98, {"loss": 0.1202, "exact_match": 0.5365})
    assert [step.step for step in results.steps] == list(range(200, 3001, 200))
    assert results.notes == ()
    assert read_results(read_card(KO_EN)).names == ("loss", "bleu", "gen_len")


@pytest.mark.parametrize(
    ("text", "name"),
    [("Validation Loss", "loss"), ("Rougel", "rouge_l"), ("Rouge1", "rouge_1"), ("Rougelsum", "rougelsum"),
     ("Gen Len", "gen_len"), ("eval_bleu", "bleu"), ("Sacrebleu", "bleu"), ("Exact Match", "exact_match"),
     ("Training Loss", None), ("Epoch", None),
     ("Train Rouge1", None), ("42", None), ("", None), ("Übung", "bung"), ("a" * 50, None)],
)  # fmt: skip
def test_scores_go_by_their_names_here(text: str, name: str | None) -> None:
    assert score_name(text) == name


def test_percent_become_shares_where_scores_here_are_shares() -> None:
    rows = [("1.0", "10", "0.5", "40.5"), ("2.0", "20", "0.4", "0.9")]
    results = read_results(card_of(("Epoch", "Step", "Validation Loss", "Rougel"), rows, Rougel="44.0", Loss="0.4"))
    assert [step.scores["rouge_l"] for step in results.steps] == [0.405, 0.009]
    assert results.scores == {"rouge_l": 0.44, "loss": 0.4}
    assert "rouge_l is in percent on the card" in results.notes[0]


def test_bleu_of_at_most_1_is_doubted_and_kept() -> None:
    results = read_results(card_of(("Step", "Bleu"), [("10", "0.1"), ("20", "0.2")]))
    assert [step.scores for step in results.steps] == [{"bleu": 0.1}, {"bleu": 0.2}]
    assert "no BLEU of the card is over 1" in results.notes[0]


def test_cells_that_are_no_numbers_and_steps_that_are_none_are_left_out() -> None:
    rows = [
        ("No log", "10", "0.5"),
        ("0.3", "x", "0.4"),
        ("0.3", "1.5", "0.4"),
        ("0.3", "10", "0.3"),
        ("0.3", "5", "nan"),
    ]
    steps = read_results(card_of(("Training Loss", "Step", "Validation Loss"), rows)).steps
    assert steps == (Step(5, None, {}), Step(10, None, {"loss": 0.3}))


def test_a_table_without_steps_is_named() -> None:
    results = read_results(card_of(("Train Loss", "Validation Loss", "Epoch"), [("3.1", "3.2", "0")]))
    assert results.steps == ()
    assert "has no steps" in results.notes[0]


def test_long_tables_are_thinned_evenly_and_keep_their_last_row() -> None:
    rows = [(str(step), "0.5") for step in range(1, 4 * MAX_ROWS + 2)]
    results = read_results(card_of(("Step", "Validation Loss"), rows))
    steps = [step.step for step in results.steps]
    assert len(steps) <= MAX_ROWS
    assert steps[-1] == 4 * MAX_ROWS + 1
    assert len({later - earlier for earlier, later in pairwise(steps)}) == 1
    assert f"of the card's {4 * MAX_ROWS + 1:,} rows" in results.notes[0]


def steps_at(*places: tuple[int, float | None]) -> list[Step]:
    return [Step(step, epoch, {"bleu": float(step), "loss": 1 / step}) for step, epoch in places]


def test_the_cadence_is_in_steps_or_epochs_or_not_to_be_seen() -> None:
    assert cadence(steps_at((500, 0.4), (1000, 0.8), (1200, 1.0))) == ("every_steps", 500.0)
    assert cadence(steps_at((313, 1.0), (626, 2.0), (939, 3.0))) == ("every_epochs", 1.0)
    assert cadence(steps_at((100, 0.1), (300, 0.3), (700, 0.7))) is None
    assert cadence(steps_at((100, 0.1))) is None


def test_the_number_of_rows_follows_from_steps_and_epochs() -> None:
    assert rows_of(read_results(read_card(KO_EN)).steps, batch_size=16) == 265_000
    assert rows_of(read_results(read_card(POINTER)).steps, batch_size=512) == 15_400
    assert rows_of(steps_at((10, None)), batch_size=16) is None
    assert rows_of([], batch_size=16) is None
    assert rows_of(steps_at((1, 2.0)), batch_size=16) == 8


def test_the_best_step_is_the_highest_score_or_the_lowest_loss() -> None:
    steps = steps_at((10, None), (20, None))
    assert (best_step(steps, by="bleu"), best_step(steps[::-1], by="loss")) == (steps[1], steps[1])
    assert best_step(steps, by="chrf") is None


def test_scores_of_hypotheses_that_keras_calls_train_are_read() -> None:
    given = {"Train Loss": "1.6", "Validation Loss": "1.5", "Train Bleu": "20.1", "Train Gen Len": "15.0"}
    text = card_text(results=given) + "- TensorFlow 2.12.0\n"
    results = read_results(parse_card(text, file="x"))
    assert results.scores == {"loss": 1.5, "bleu": 20.1, "gen_len": 15.0}
    assert "Keras calls scores of hypotheses" in results.notes[0]
    assert read_results(parse_card(card_text(results=given), file="x")).scores == {"loss": 1.5}


def test_every_rouge_is_divided_alike() -> None:
    results = read_results(card_of((), [], Rouge1="30.0", Rougelsum="16.8"))
    assert results.scores == {"rouge_1": 0.3, "rougelsum": 0.168}
