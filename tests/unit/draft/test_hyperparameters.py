"""Hyperparameters of cards as lines of a recipe: stated values, defaults, and what has no equal here."""

from typing import Any

import pytest

from dstrain.draft.card import ModelCard, parse_card
from dstrain.draft.families import named_family
from dstrain.draft.hyperparameters import (
    batch_size,
    evaluation_batch_size,
    framework,
    precision,
    seed,
    steps,
    training_lines,
)
from dstrain.draft.published import read_results
from dstrain.draft.recipe_text import Line
from tests.unit.draft.card_texts import card_text

KERAS = "{'name': 'AdamWeightDecay', 'beta_1': 0.9, 'beta_2': 0.98, 'epsilon': 1e-06, 'weight_decay_rate': 0.01}"


def card_of(**changes: Any) -> ModelCard:
    return parse_card(card_text(**changes), file="x")


def training_of(**changes: Any) -> dict[str, Line]:
    card = card_of(**changes)
    return {line.key: line for line in training_lines(card, read_results(card))}


@pytest.mark.parametrize(
    ("stated", "size", "origin"),
    [
        ({"train_batch_size": "16"}, 16, "stated"),
        (
            {"train_batch_size": "16", "gradient_accumulation_steps": "32", "total_train_batch_size": "512"},
            512,
            "stated",
        ),
        ({"train_batch_size": "4", "num_devices": "2", "gradient_accumulation_steps": "8"}, 64, "stated"),
        ({"train_batch_size": "4", "num_devices": "2", "total_train_batch_size": "8"}, 8, "stated"),
        ({"train_batch_size": "16", "total_train_batch_size": "100"}, 100, "stated"),
        ({"train_batch_size": "sixteen"}, 8, "question"),
        ({"train_batch_size": "0"}, 8, "question"),
        ({"train_batch_size": "99999999999"}, 8, "question"),
        ({"train_batch_size": None}, 8, "default"),
    ],
)
def test_the_step_is_that_of_all_devices_and_accumulations(stated: dict[str, str], size: int, origin: str) -> None:
    line = batch_size(card_of(**stated))
    assert (line.value, line.origin) == (size, origin)


def test_parts_that_do_not_make_the_stated_total_are_named() -> None:
    line = batch_size(card_of(train_batch_size="16", gradient_accumulation_steps="2", total_train_batch_size="100"))
    assert line.why == "the card's total_train_batch_size; its parts, 16 × 2, make 32"


@pytest.mark.parametrize(
    ("text", "optimizer", "origin"),
    [
        ("Adam with betas=(0.9,0.98) and epsilon=1e-06", "adam", "stated"),
        ("Use adamw_torch with betas=(0.9,0.98) and epsilon=1e-06 and optimizer_args=No additional", "adamw", "stated"),
        ("Use OptimizerNames.ADAMW_TORCH with betas=(0.9,0.98) and epsilon=1e-06 and x", "adamw", "stated"),
        ("AdamW with betas=(0.9,0.98) and epsilon=1e-06 and weight_decay=0.01", "adamw", "stated"),
        (KERAS, "adamw", "stated"),
    ],
)  # fmt: skip
def test_every_spelling_of_adam_is_read(text: str, optimizer: str, origin: str) -> None:
    lines = training_of(optimizer=text)
    assert (lines["optimizer"].value, lines["optimizer"].origin) == (optimizer, origin)
    assert (lines["betas"].value, lines["epsilon"].value) == ([0.9, 0.98], 1e-6)
    decay = ("0.01" in text) * 0.01
    assert (lines["weight_decay"].value, lines["weight_decay"].origin) == (decay, "stated" if decay else "default")


@pytest.mark.parametrize("text", ["Use adafactor and the args are:", "Use lion_8bit with x"])
def test_an_optimizer_that_does_not_exist_here_is_a_question(text: str) -> None:
    line = training_of(optimizer=text)["optimizer"]
    assert (line.value, line.origin) == ("adamw", "question")
    assert "does not exist here" in line.why


@pytest.mark.parametrize("text", ["Adam with betas=(2,0.9) and epsilon=5", "Adam with betas=(x,y)", "Adam"])
def test_values_that_no_recipe_may_have_are_not_taken(text: str) -> None:
    lines = training_of(optimizer=text)
    assert (lines["betas"].value, lines["epsilon"].value) == ([0.9, 0.999], 1e-8)
    assert (lines["betas"].origin, lines["epsilon"].origin) == ("default", "default")


@pytest.mark.parametrize(
    ("text", "schedule", "origin"),
    [("linear", "linear", "stated"), ("SchedulerType.COSINE", "cosine", "stated"), ("constant_with_warmup", "constant", "guess"),
     ("polynomial", "linear", "guess"), ("cosine_with_restarts", "linear", "question"), (None, "linear", "default")],
)  # fmt: skip
def test_schedules_are_those_of_here_or_a_question(text: str | None, schedule: str, origin: str) -> None:
    line = training_of(lr_scheduler_type=text)["schedule"]
    assert (line.value, line.origin) == (schedule, origin)


@pytest.mark.parametrize(
    ("stated", "steps_", "origin"),
    [
        ({}, 0, "default"),
        ({"lr_scheduler_warmup_steps": "500"}, 500, "stated"),
        ({"lr_scheduler_warmup_ratio": "0.1", "training_steps": "3001"}, 301, "guess"),
        ({"lr_scheduler_warmup_steps": "0.1", "training_steps": "3000"}, 300, "guess"),
        ({"lr_scheduler_warmup_ratio": "0.1"}, 0, "question"),
    ],
)
def test_a_share_of_the_steps_becomes_steps_where_these_are_known(
    stated: dict[str, str], steps_: int, origin: str
) -> None:
    line = training_of(**stated)["warmup_steps"]
    assert (line.value, line.origin) == (steps_, origin)


def test_steps_of_epochs_follow_from_the_table() -> None:
    card = card_of(num_epochs="4", columns=("Epoch", "Step", "Loss"), rows=[("1.0", "250", "1"), ("2.0", "500", "1")])
    length = steps(card, read_results(card))
    assert (length.num_rows, length.total) == (2000, 1000)
    assert (
        training_of(lr_scheduler_warmup_ratio="0.05", columns=("Epoch", "Step", "Loss"), rows=[("1.0", "250", "1")])[
            "warmup_steps"
        ].value
        == 38
    )


def test_a_length_is_in_steps_or_epochs() -> None:
    assert training_of(training_steps="3000")["max_steps"].value == 3000
    assert training_of(num_epochs="2.5")["epochs"].value == 2.5
    assert training_of(num_epochs=None)["epochs"].origin == "default"
    assert "max_steps" not in training_of(training_steps="-1")


@pytest.mark.parametrize(
    ("stated", "base", "value", "origin"),
    [
        ({"mixed_precision_training": "Native AMP"}, "facebook/m2m100_418M", "fp16", "stated"),
        ({"mixed_precision_training": "Apex, opt level O1"}, "facebook/m2m100_418M", "fp16", "stated"),
        ({"mixed_precision_training": "bf16 (DeepSpeed)"}, "google/mt5-small", "bf16", "stated"),
        ({"mixed_precision_training": "none (fp32)"}, "google/mt5-small", "fp32", "stated"),
        ({"training_precision": "mixed_float16"}, "facebook/bart-base", "fp16", "stated"),
        ({"mixed_precision_training": "int3"}, "google/mt5-small", "fp32", "question"),
        ({}, "google/mt5-small", "fp32", "default"),
    ],
)
def test_precision_is_as_stated(stated: dict[str, str], base: str, value: str, origin: str) -> None:
    line, harm = precision(card_of(base=base, **stated), named_family(base))
    assert (line.value, line.origin, harm) == (value, origin, None)


@pytest.mark.parametrize("base", ["t5-small", "google/mt5-base", "google/flan-t5-large", "google/umt5-small"])
def test_fp16_of_the_t5_family_is_named_and_avoided(base: str) -> None:
    line, harm = precision(card_of(mixed_precision_training="Native AMP"), named_family(base))
    assert (line.value, line.origin) == ("bf16", "ours")
    assert harm is not None
    assert "overflows" in harm


def test_other_values_are_stated_or_defaults_of_the_version() -> None:
    lines = training_of(label_smoothing_factor="0.1", max_grad_norm="0.5", learning_rate="7e-4")
    assert [lines[key].value for key in ("label_smoothing", "max_grad_norm", "learning_rate")] == [0.1, 0.5, 7e-4]
    silent = training_of(learning_rate=None)
    assert (silent["learning_rate"].value, silent["learning_rate"].why) == (5e-5, "default of transformers 4.44.2")
    assert silent["max_grad_norm"].why == "what transformers 4.44.2 clips to by default"
    assert (seed(card_of(seed="7")).value, seed(card_of(seed="99999999999")).origin) == (7, "question")
    assert evaluation_batch_size(card_of(eval_batch_size="4", total_eval_batch_size="8")).value == 8
    assert evaluation_batch_size(card_of(eval_batch_size=None)).value is None


def test_a_card_of_keras_has_its_own_rate_and_no_clipping() -> None:
    optimizer = (
        "{'name': 'AdamWeightDecay', 'learning_rate': {'config': {'initial_learning_rate': 0.00056, 'decay_steps': 9}}}"
    )
    text = card_text(learning_rate=None, optimizer=optimizer) + "- TensorFlow 2.10.0\n"
    card = parse_card(text, file="x")
    lines = {line.key: line for line in training_lines(card, read_results(card))}
    assert (lines["learning_rate"].value, lines["max_grad_norm"].value) == (0.00056, 0.0)
    assert framework(card) == "Keras (transformers 4.44.2)"
    silent = parse_card(text.replace("- train_batch_size: 8\n", ""), file="x")
    assert batch_size(silent).origin == "question"


@pytest.mark.parametrize(
    ("stated_as", "text", "key"),
    [
        ("learning_rate", "nan", "learning_rate"),
        ("learning_rate", "-1", "learning_rate"),
        ("learning_rate", "1" * 5000, "learning_rate"),
        ("train_batch_size", "-4", "batch_size"),
        ("num_epochs", "1e400", "epochs"),
        ("lr_scheduler_warmup_steps", "-5", "warmup_steps"),
        ("label_smoothing_factor", "7", "label_smoothing"),
    ],
)
def test_a_value_that_cannot_be_is_asked_about_and_not_called_silence(stated_as: str, text: str, key: str) -> None:
    line = training_of(**{stated_as: text})[key]
    assert line.origin == "question"
    assert line.why.startswith(f"the card has `{stated_as}: {text[:40]}")
    assert "which cannot be" in line.why
    assert len(line.why) < 200


def test_a_schedule_and_epochs_of_keras_are_read() -> None:
    optimizer = (
        "{'name': 'AdamWeightDecay', 'learning_rate': {'class_name': 'PolynomialDecay', 'config': {'initial_learning_rate': "
        "5e-05, 'decay_steps': 17733, 'end_learning_rate': 0.0, 'power': 1.0, 'cycle': False}}}"
    )
    stated = {"learning_rate": None, "optimizer": optimizer, "lr_scheduler_type": None, "num_epochs": None}
    text = (
        card_text(columns=("Train Loss", "Epoch"), rows=[("2.1", "0"), ("1.6", "1")], **stated)
        + "- TensorFlow 2.12.0\n"
    )
    card = parse_card(text, file="x")
    lines = {line.key: line for line in training_lines(card, read_results(card))}
    assert (lines["schedule"].value, lines["schedule"].origin) == ("linear", "stated")
    assert "17,733 steps" in lines["schedule"].why
    assert (lines["epochs"].value, lines["epochs"].origin) == (2, "guess")
