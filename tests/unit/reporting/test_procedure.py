"""How the run was trained: batch sizes, optimizer, precision, skipped steps, attempts and versions."""

from dataclasses import replace
from typing import Any

import pytest

from dstrain.reporting.card import build_card
from dstrain.reporting.procedure import describe_attempts
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.record import build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.card_cases import listed
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_record,
    run_info,
    train_row,
    translation_config,
    translation_record,
)


@pytest.mark.parametrize("name", ["Transformers 5.23.0", "Pytorch 2.13.0", "Datasets 5.2.0", "Tokenizers 0.23.0"])
def test_framework_versions_are_written_as_in_the_published_cards(name: str) -> None:
    section = build_card(parsing_record()).split("### Framework versions\n")[1]
    assert f"\n- {name}\n" in section
    assert {"- DeepSpeed 0.19.8", "- dstrain 0.1.0", "- Python 3.11.2"} <= set(section.splitlines())


@pytest.mark.parametrize(
    ("machine", "world_size", "size", "accumulation"),
    [
        ({"micro_batch_size": 16}, 1, "16", "32"),
        ({"micro_batch_size": 16}, 4, "16", "8"),
        (
            {"micro_batch_size": 100},
            1,
            "at most 100 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {"micro_batch_size": 16},
            3,
            "at most 16 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {"micro_batch_size": 256, "min_micro_batches": 4},
            1,
            "at most 256 sequences per micro-batch (pinned; the step does not divide evenly)",
            None,
        ),
        (
            {},
            2,
            "at most 48 sequences per micro-batch (varies: steps are split under a budget of 8192 tokens, padding included)",
            None,
        ),
    ],
)
def test_batch_sizes_are_exact_only_where_every_micro_batch_is_equally_large(
    machine: dict[str, int], world_size: int, size: str, accumulation: str | None
) -> None:
    cut = {"min": 30, "max": 36, "mean": 32.5, "largest_rows": 48}
    info = run_info(world_size=world_size, micro_batches=cut)
    lines = listed(
        build_card(parsing_record(parsing_config(machine=machine), info=info)), under="Training hyperparameters"
    )
    ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
    varying = f"30 to 36 micro-batches per step over all ranks (mean 32.50), distributed to {ranks}"
    assert lines["train_batch_size"] == size
    assert lines["gradient_accumulation_steps"] == (accumulation or varying)
    assert lines["total_train_batch_size"] == "512"


def test_numbers_of_micro_batches_name_the_steps_they_were_counted_on() -> None:
    cut = {"min": 1, "max": 4, "mean": 2.1, "largest_rows": 16, "num_steps": 200}
    lines = listed(build_card(translation_record(info=run_info(micro_batches=cut))), under="Training hyperparameters")
    assert lines["train_batch_size"].startswith("at most 16 sequences per micro-batch in the first 200 steps (varies")
    assert "over all ranks in the first 200 steps (mean 2.10)" in lines["gradient_accumulation_steps"]


def test_steps_of_target_tokens_have_no_fixed_number_of_sequences() -> None:
    training = {"batch_size": 4096, "batch_unit": "target_tokens", "max_steps": 10, "learning_rate": 1e-3}
    lines = listed(build_card(parsing_record(parsing_config(training=training))), under="Training hyperparameters")
    assert lines["total_train_batch_size"] == "at most 4096 target tokens (the number of sequences varies)"
    assert lines["train_batch_size"].startswith("at most 16 sequences")


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (
            {"optimizer": "adamw", "weight_decay": 0.01},
            "AdamW with betas=(0.9,0.999) and epsilon=1e-08 and weight_decay=0.01",
        ),
        ({"optimizer": "sgd", "betas": (0.5, 0.9)}, "SGD with momentum=0.5"),
    ],
)
def test_optimizers_are_named_with_their_parameters(training: dict[str, Any], expected: str) -> None:
    given = {"batch_size": 8, "max_steps": 10, "learning_rate": 1e-3, "warmup_steps": 3} | training
    lines = listed(build_card(parsing_record(parsing_config(training=given))), under="Training hyperparameters")
    assert (lines["optimizer"], lines["lr_scheduler_warmup_steps"]) == (expected, "3")


def test_a_precision_overridden_on_the_command_line_is_shown_in_three_places() -> None:
    command = "HF_HUB_OFFLINE=1 python launch/train.py --config configs/ko_en_m2m.yaml precision=fp32 model.name=./tiny"
    card = build_card(translation_record(translation_config(precision="fp32"), info=run_info(command=command)))
    precision = listed(card, under="Training hyperparameters")["mixed_precision_training"]
    assert precision == "none (fp32); **set on the command line** (`precision=fp32`) instead of the recipe's value"
    assert "- the precision was overridden on the command line: fp32" in card
    assert "Overrides on the command line: `precision=fp32`, `model.name=./tiny`." in card


def test_skipped_steps_loss_scale_and_attempts_are_shown() -> None:
    rows: list[Row] = [
        EventRow("start", 0, "2026-11-23T10:00:00Z"),
        train_row(50, loss_scale=65536.0, skipped_steps=2),
        train_row(100, loss_scale=1024.0, skipped_steps=5, halvings_in_a_row=3),
        train_row(150, loss_scale=4096.0, skipped_steps=5, halvings_in_a_row=3),
        EventRow("stop", 150, "2026-11-23T11:00:00Z", "SIGTERM"),
        EventRow("resume", 150, "2026-11-23T12:00:00Z", changes=("seed: 1 in the checkpoint, 2 now", "it is reset")),
        EventRow("finish", 150, "2026-11-23T13:00:00Z"),
    ]
    card = build_card(build_record(translation_config(), info=run_info(), rows=rows))
    assert (
        "5 of 150 steps skipped (3.3 %, at most 3 in a row); loss scale 65,536 at the first logged step, 4,096 at the last, "
        "never below 1,024" in card
    )
    assert "- Resumed: once\n" in card
    assert "- stop at step 150 (2026-11-23T11:00:00Z: SIGTERM)" in card
    assert "- resume at step 150 (2026-11-23T12:00:00Z): seed: 1 in the checkpoint, 2 now; it is reset\n" in card
    assert (
        "so that no one command repeats this run.** At step 150: seed: 1 in the checkpoint, 2 now; it is reset." in card
    )
    assert "no one command" not in build_card(translation_record())
    assert "It has not been evaluated yet." in card


def test_zero_stage_0_with_16_bit_precision_is_shown_as_the_stage_that_runs() -> None:
    card = build_card(translation_record(translation_config(machine={"zero_stage": 0})))
    assert listed(card, under="Machine")["ZeRO stage"].startswith("1 (0 in the recipe")


@pytest.mark.parametrize(
    ("output_dir", "how"), [(None, "add `output_dir=…`"), ("runs/one", "give `output_dir` another value")]
)
def test_the_card_of_a_run_says_that_another_folder_is_needed_and_that_of_a_model_does_not(
    output_dir: str | None, how: str
) -> None:
    info = run_info(command=("python", "launch/train.py", "--config", "x.yaml"))
    record = translation_record(translation_config(output_dir=output_dir), info=info)
    assert f"To repeat the run, {how}: in its own folder a run is resumed, and nothing happens" in build_card(record)
    of_model = build_card(replace(record, subject="best"))
    assert "The command above is that of the last attempt. Paths are relative to where it was typed" in of_model
    assert "output_dir" not in of_model


def test_a_compact_embedding_has_a_line_with_its_rows() -> None:
    assert "Compact embedding" not in build_card(translation_record(translation_config()))
    model = {"base": "google/mt5-small", "num_parameters": 300_176_768, "trained_embedding_rows": 4321}
    card = build_card(translation_record(translation_config(), info=run_info(model=model)))
    assert listed(card, under="Machine")["Compact embedding"].startswith("4,321 rows, those that training reads")


def test_skipped_steps_of_a_row_at_step_0_are_no_division_by_zero() -> None:
    rows: list[Row] = [EventRow("start", 0), train_row(0, loss_scale=1.0, skipped_steps=2)]
    assert "2 of 0 steps skipped" in build_card(build_record(translation_config(), info=run_info(), rows=rows))


def test_attempts_that_did_not_end_in_order_have_a_line_that_says_why() -> None:
    rows: list[Row] = [
        EventRow("start", 0, "10:00", lease=1),
        EventRow("resume", 50, "11:00", lease=2),
        EventRow("stop", 60, "12:00", "received SIGTERM", lease=2),
        EventRow("resume", 60, "14:00", lease=4),
    ]
    ends = {
        1: RunOutcome("killed", None, "no rank recorded a reason", step=58, attempt=1, time="10:30"),
        2: RunOutcome("preempted", 85, "received SIGTERM", step=60, attempt=2, time="12:00"),
        3: RunOutcome("failed", 1, "rank 1: no such column\nfound `x`", attempt=3, time="13:00"),
    }
    ends[5] = RunOutcome("refused", 1, "has changed:\n  seed: 1 now. If allowed: x\nUndo it", attempt=5, time="15:00")
    record = build_record(translation_config(), info=run_info(), rows=rows, ends=ends)
    assert str(describe_attempts(record)[-1]) == "refused (15:00: has changed: seed: 1 now)"
    assert [str(line) for line in describe_attempts(record)[:-1]] == [
        "Resumed: 2 times",
        "start at step 0 (10:00)",
        "killed at step 58 (10:30: no rank recorded a reason)",
        "resume at step 50 (11:00)",
        "stop at step 60 (12:00: received SIGTERM)",
        "failed (13:00: rank 1: no such column)",
        "resume at step 60 (14:00)",
    ]
