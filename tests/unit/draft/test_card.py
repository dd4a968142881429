"""Model cards as they are read: the two shipped ones, those of other trainers, and hostile ones."""

from pathlib import Path

import pytest

from dstrain.draft.card import MAX_CARD_BYTES, parse_card, read_card, read_number
from dstrain.errors import UserError
from tests.unit.draft.card_texts import KO_EN, POINTER, card_text


def test_everything_that_the_shipped_cards_state_is_read() -> None:
    card = read_card(KO_EN)
    assert (card.title, card.base_model, card.datasets) == ("ko-en-m2m", "facebook/m2m100_418M", ())
    assert card.hyperparameters == {
        "learning_rate": "0.0003",
        "train_batch_size": "16",
        "eval_batch_size": "16",
        "seed": "42",
        "optimizer": "Adam with betas=(0.9,0.999) and epsilon=1e-08",
        "lr_scheduler_type": "linear",
        "num_epochs": "6",
        "mixed_precision_training": "Native AMP",
    }
    assert card.results == {"Loss": 0.4282, "Bleu": 25.8137, "Gen Len": 10.9556}
    assert card.table.columns == ("Training Loss", "Epoch", "Step", "Validation Loss", "Bleu", "Gen Len")
    assert len(card.table.rows) == 19
    assert card.table.rows[-1] == ("0.3244", "5.74", "95000", "0.4282", "25.8137", "10.9556")
    assert card.versions["transformers"] == "4.25.1"


def test_front_matter_names_data_and_languages() -> None:
    card = read_card(POINTER)
    assert (card.datasets, card.languages, card.tags) == (("mtop",), ("en",), ("generated_from_trainer",))
    named = parse_card(card_text(base=None, front="base_model:\n- a/b\npipeline_tag: translation"), file="x")
    assert (named.base_model, named.tags) == ("a/b", ("translation",))
    assert parse_card("This model is [b](c) on the some/opus en-ko dataset.", file="x").datasets == ("some/opus en-ko",)


@pytest.mark.parametrize(
    "front",
    [
        "a: !!python/object/apply:os.system [id]",
        "a: [",
        "- list",
        "a: &a [*a, *a]",
        "x: 1\nx: 2",
        "license: 2020-01-01",
        "\t",
    ],
)
def test_a_broken_or_hostile_front_matter_costs_nothing_else(front: str) -> None:
    card = parse_card(card_text(front=front), file="x")
    assert card.hyperparameters["learning_rate"] == "5e-05"
    assert card.base_model == "google/mt5-small"


def test_bombs_of_aliases_are_no_card() -> None:
    bomb = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))])
    assert parse_card(card_text(front=f"{bomb}\ndatasets: *a29"), file="x").datasets == ()


def test_what_is_no_table_of_results_is_left_out() -> None:
    rows = [("1.0", "10", "0.5"), ("1.0", "20")]
    card = parse_card(card_text(columns=("Training Loss", "Step", "Validation Loss"), rows=rows), file="x")
    assert card.table.rows == (("1.0", "10", "0.5"),)
    assert parse_card("### Training results\n\n| a | b |\n| 1 | 2 |\n", file="x").table.rows == ()


def test_code_and_scores_that_are_no_numbers_are_not_taken_for_statements() -> None:
    text = card_text(results={"Loss": "nan", "Bleu": "{'bleu': 3}", "Rouge1": "44.4982"})
    assert parse_card(text, file="x").results == {"Rouge1": 44.4982}
    code = "```\n# Not a heading\n### Training hyperparameters\n- seed: 1\n```\n" + card_text()
    assert parse_card(code, file="x").hyperparameters["seed"] == "42"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.0003", 3e-4), ("5e-05", 5e-5), ("1,000", 1000.0), (".5", 0.5), ("nan", None), ("inf", None), ("1e999", None),
     ("0x10", None), ("", None), ("1 2", None), ("9" * 50, None)],
)  # fmt: skip
def test_numbers_are_plain_and_finite(text: str, number: float | None) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# A model\n\nNice.\n", "names no hyperparameters"),
        (b"", "names no hyperparameters"),
        (b"\xff\xfe", "not UTF-8 at byte 1"),
        (b"a" * (MAX_CARD_BYTES + 1), "larger than 4,194,304 bytes"),
    ],
    ids=["prose", "nothing", "bytes", "large"],
)
def test_what_is_no_card_of_a_training_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_card(path)
