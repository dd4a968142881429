"""Cards as recipes: both shipped cards equal their recipes by hand, and every card gives a recipe that loads."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.config.load import ConfigError, load_config
from dstrain.config.schema import RunConfig
from dstrain.draft.card import parse_card, read_card
from dstrain.draft.from_card import Draft, draft_from_card, recipe_name
from dstrain.draft.recipe_text import WIDTH, Rows, all_lines
from dstrain.reporting.card import build_card
from tests.unit.draft.card_texts import KO_EN, POINTER, card_text
from tests.unit.reporting.reporting_cases import parsing_record, translation_record


def draft_of(**changes: Any) -> Draft:
    return draft_from_card(parse_card(card_text(**changes), file="x"))


def load(draft: Draft) -> RunConfig:
    return load_config(f"{draft.name}.yaml", content=draft.text.encode())


def value_at(config: RunConfig, key: str) -> Any:
    value: Any = config.model_dump()
    for part in key.split("."):
        value = value[int(part)] if part.isdecimal() else value[part]
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("card", "recipe", "stated"),
    [
        (
            KO_EN,
            "ko_en_m2m",
            {
                "seed": 42,
                "precision": "fp16",
                "model.name": "facebook/m2m100_418M",
                "training.batch_size": 16,
                "training.epochs": 6,
                "training.learning_rate": 3e-4,
                "training.schedule": "linear",
                "training.optimizer": "adam",
                "training.betas": [0.9, 0.999],
                "training.epsilon": 1e-8,
                "evaluation.every_steps": 5000,
                "evaluation.batch_size": 16,
            },
        ),
        (
            POINTER,
            "mt5_pointer_mtop",
            {
                "seed": 42,
                "model.name": "google/mt5-small",
                "training.batch_size": 512,
                "training.max_steps": 3000,
                "training.learning_rate": 1e-3,
                "training.schedule": "linear",
                "training.optimizer": "adam",
                "training.betas": [0.9, 0.999],
                "training.epsilon": 1e-8,
                "evaluation.every_steps": 200,
                "evaluation.batch_size": 16,
            },
        ),
    ],
    ids=["ko-en-m2m", "t5-small-pointer-mtop"],
)
def test_a_shipped_card_gives_the_values_of_its_recipe_by_hand(card: Any, recipe: str, stated: dict[str, Any]) -> None:
    draft = draft_from_card(read_card(card))
    found = {
        key: line.value
        for key, line in all_lines(draft.lines)
        if line.origin == "stated" and not key.startswith("card.")
    }
    assert found == stated
    by_hand, drafted = load_config(recipe), load(draft)
    for key in stated:
        assert value_at(drafted, key) == value_at(by_hand, key), key
    # and what the cards do not state is as in the recipes by hand, but for names, lengths and where the data are
    for key in ("precision", "task.kind", "task.form", "task.segmentation", "task.source_prefix", "task.source_language",
                "task.target_language", "training.warmup_steps", "training.weight_decay", "training.max_grad_norm",
                "training.label_smoothing", "evaluation.num_beams", "evaluation.max_new_tokens", "evaluation.best_metric",
                "model.layerdrop", "machine.micro_batch_tokens", "machine.min_micro_batches"):  # fmt: skip
        assert value_at(drafted, key) == value_at(by_hand, key), key


@pytest.mark.parametrize("card", [KO_EN, POINTER], ids=lambda path: path.stem)
def test_a_drafted_recipe_has_a_comment_for_every_line_and_fits_a_screen(card: Any) -> None:
    lines = draft_from_card(read_card(card)).text.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    values = [
        line for number, line in enumerate(lines) if line.strip() and "#" not in line and "#" not in lines[number - 1]
    ]
    assert [line for line in values if not line.lstrip().startswith("- {step:")] == []


def test_the_published_table_travels_with_the_recipe() -> None:
    published = load(draft_from_card(read_card(POINTER))).card.published
    assert published is not None
    assert published.name == "t5-small-pointer-mtop"
    assert published.scores == {"loss": 0.1202, "exact_match": 0.7445}
    assert len(published.steps) == 15
    assert (published.steps[11].step, published.steps[11].scores["exact_match"]) == (2400, 0.5539)


def test_known_harm_of_the_pointer_card_is_named() -> None:
    cap, by_loss = draft_from_card(read_card(POINTER)).harm
    assert "hypotheses cut at 20 tokens: its table has exact_match 0.5365 where 0.7445 was true" in cap
    assert "exact_match was 0.5365 at step 1,200, and 0.5539 at step 2,400" in by_loss
    assert draft_from_card(read_card(KO_EN)).harm == ()


def test_a_mean_length_at_the_old_cap_shows_it() -> None:
    rows = [("1.0", "10", "0.5", "30.1", "18.97")]
    columns = ("Epoch", "Step", "Validation Loss", "Rouge1", "Gen Len")
    draft = draft_of(base="t5-small", columns=columns, rows=rows, mixed_precision_training="Native AMP")
    assert "fp16 overflows T5" in draft.harm[0]
    assert "mean length of its hypotheses is up to 18.97" in draft.harm[1]
    assert load(draft).evaluation.max_new_tokens is None


def test_fine_tuning_for_summaries_is_a_text_task_scored_as_on_the_card() -> None:
    results = {"Loss": "0.4", "Rouge1": "44.4", "Rougel": "43.8", "Bleu": "12.5"}
    config = load(
        draft_of(base="facebook/bart-base", title="bart-xsum", results=results, front="tags: [summarization]")
    )
    assert config.task.kind == "translation"  # BLEU speaks first
    config = load(draft_of(base="facebook/bart-base", title="bart-xsum", results={"Rouge1": "44.4", "Meteor": "0.2"}))
    assert (config.task.kind, config.best_metric, config.evaluation.metrics) == ("text", "rouge_l", None)


def test_scores_that_the_task_lacks_by_default_are_asked_for() -> None:
    config = load(draft_of(base="Helsinki-NLP/opus-mt-de-en", results={"Bleu": "30.1", "Ter": "50.0"}))
    assert config.evaluation.metrics == ("bleu", "chrf", "ter")
    assert config.best_metric == "bleu"


@pytest.mark.parametrize("base", [None, "./save/t5", "/models/t5", "a b", "x" * 190 + "/" + "y" * 5])
def test_a_card_without_a_model_of_the_hub_asks_for_one(base: str | None) -> None:
    draft = draft_of(base=base)
    if base is not None and "/y" in base:
        assert load(draft).model.name == base
        return
    assert "question: the card" in draft.text
    with pytest.raises(ConfigError, match="exactly one of `name`"):
        load(draft)


def test_codes_are_those_of_the_family_or_a_question() -> None:
    config = load(draft_of(base="facebook/nllb-200-distilled-600M", title="nllb-ko-en", results={"Bleu": "30"}))
    assert (config.task.source_language, config.task.target_language) == ("kor_Hang", "eng_Latn")
    draft = draft_of(base="facebook/nllb-200-distilled-600M", title="my-nllb", results={"Bleu": "30"})
    assert draft.text.count("which code of NLLB?") == 2


def test_a_card_of_an_adapter_asks_for_what_it_does_not_state() -> None:
    draft = draft_of(front="library_name: peft", base="google/flan-t5-small")
    assert "states neither rank nor targets" in draft.text
    assert load(draft).model.adapter is not None


def test_a_card_of_dstrain_gives_its_recipe_again() -> None:
    for record in (translation_record(), parsing_record()):
        config = load(draft_from_card(parse_card(build_card(record), file="README.md")))
        assert config.model.name == record.config.model.name
        assert (config.seed, config.precision) == (record.config.seed, record.config.precision)
        for key in (
            "batch_size",
            "epochs",
            "max_steps",
            "learning_rate",
            "schedule",
            "optimizer",
            "betas",
            "epsilon",
            "label_smoothing",
        ):
            assert getattr(config.training, key) == getattr(record.config.training, key), key
        assert config.evaluation.batch_size == record.config.evaluation.batch_size
        published = config.card.published
        assert published is not None
        assert [row.step for row in published.steps] == [row.step for row in record.eval_rows]


@pytest.mark.parametrize(
    "title",
    ["../../etc", "a\tb", "x" * 500, "-- rm", "`id` $(id)", "\u202ex", "日本", "a: b\nseed: 1", "hf_" + "a" * 40],
)
def test_whatever_a_card_is_called_the_recipe_loads_under_a_harmless_name(title: str) -> None:
    draft = draft_of(title=title)
    config = load(draft)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config.name)
    assert (config.seed, config.training.learning_rate) == (42, 5e-5)
    assert recipe_name(parse_card(card_text(title=title), file="x")) == config.name


@given(st.text(), st.text(), st.text(), st.text())
def test_no_card_makes_a_recipe_that_does_not_load(title: str, optimizer: str, schedule: str, cell: str) -> None:
    rows = [(cell, "10", "1.0"), ("0.5", cell, "2.0"), ("0.5", "30", cell)]
    draft = draft_of(
        title=title, optimizer=optimizer, lr_scheduler_type=schedule, label_smoothing_factor=cell, num_epochs=cell,
        columns=("Validation Loss", "Step", "Epoch"), rows=rows, results={"Bleu": cell, cell: "1.5"}, seed=cell,
        train_batch_size=cell, learning_rate=cell, eval_batch_size=cell, lr_scheduler_warmup_ratio=cell,
    )  # fmt: skip
    assert load(draft).model.name == "google/mt5-small"


def test_rows_are_the_only_lines_without_a_comment_of_their_own() -> None:
    lines = dict(all_lines(draft_from_card(read_card(KO_EN)).lines))
    assert isinstance(lines["card.published.steps"].value, Rows)
    assert [key for key, line in lines.items() if not line.why] == []


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("bert-base-uncased", "`bert-base-uncased`, a name of BERT, and only encoder-decoders"),
        ("openai/whisper-small", "a name of Whisper"),
        ("meta-llama/Llama-3.2-1B", "a name of Llama"),
    ],
)
def test_a_model_that_is_no_encoder_decoder_is_asked_about(base: str, said: str) -> None:
    lines = dict(all_lines(draft_of(base=base).lines))
    assert (lines["model.name"].value, lines["model.name"].origin) == (None, "question")
    assert said in lines["model.name"].why


@pytest.mark.parametrize(
    ("base", "limit"),
    [
        ("Helsinki-NLP/opus-mt-en-ko", 512),
        ("google/pegasus-xsum", 512),
        ("facebook/bart-base", 1024),
        ("t5-small", 1024),
    ],
)
def test_sources_are_no_longer_than_the_positions_of_the_family(base: str, limit: int) -> None:
    assert dict(all_lines(draft_of(base=base).lines))["task.max_source_tokens"].value == limit
