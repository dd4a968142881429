"""Complete runs, from a recipe to a card: the same on any number of ranks, interrupted or not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner

from dstrain.checkpoint.manifest import verify_checkpoint
from dstrain.cli.app import app
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.walltime import ALLOCATION_ENDS
from dstrain.run_folder.outcome import read_outcome
from dstrain.run_folder.record import load_record
from tests.system.runs import NUM_EVAL, build_run, read_rows, train


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on two ranks with ZeRO-2."""
    folder = tmp_path_factory.mktemp("straight")
    assert train(build_run(folder, machine__zero_stage=2), world_size=2) == [0, 0]
    return folder


def losses(folder: Path) -> list[float]:
    rows = read_rows(build_run(folder), kind="train")
    assert [row["step"] for row in rows] == list(range(1, 13))
    return [row["loss"] for row in rows]


def scores(folder: Path) -> dict[int, dict[str, float]]:
    return {row["step"]: row["scores"] for row in read_rows(build_run(folder), kind="eval")}


def test_a_run_leaves_checkpoints_models_and_a_card_that_loads(straight: Path) -> None:
    run = straight / "run"
    best = load_record(run).best
    assert best is not None
    kept = {path.name: verify_checkpoint(path) for path in (run / "checkpoints").iterdir()}
    assert {name for name, manifest in kept.items() if manifest.content == "full"} >= {"step-00000012.lease-1"}
    (of_best,) = (manifest for manifest in kept.values() if manifest.step == best.step)
    assert of_best.scores == best.scores
    outcome = read_outcome(run)
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code, outcome.step) == ("finished", 0, 12)
    for folder in (run / "best", run / "final"):
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.generation_config.forced_bos_token_id == tokenizer.get_lang_id("en")
    card = ModelCard.load(run / "README.md")
    assert card.data.eval_results is not None
    record = load_record(run)
    assert record.status == "finished"
    assert record.final is not None
    assert record.final.num_rows == NUM_EVAL


def test_the_sacrebleu_command_prints_the_score_on_the_card(straight: Path) -> None:
    record = load_record(straight / "run")
    assert record.final is not None
    assert record.final.hypotheses is not None
    folder = straight / "run" / record.final.hypotheses
    command = [sys.executable, "-m", "sacrebleu", "references.txt", "-i", "hypotheses.txt", "-w", "4", "-b"]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert float(printed) == pytest.approx(record.final.scores["bleu"], abs=5e-5)


def test_the_exported_best_model_has_the_scores_on_its_card(straight: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(straight / "run")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    best = load_record(straight / "run").best
    assert best is not None
    path = straight / "run" / "evaluate" / "scores" / f"step-{best.step:08d}.json"
    scores = json.loads(path.read_text())["scores"]
    assert scores == pytest.approx(best.scores, rel=1e-6)
    assert f"bleu{'':<22} {best.scores['bleu']:.4f}" in result.output


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (3, 1), (2, 3)])
def test_losses_and_scores_are_the_same_on_any_number_of_ranks(
    straight: Path, tmp_path: Path, world_size: int, stage: int
) -> None:
    assert train(build_run(tmp_path, machine__zero_stage=stage), world_size=world_size) == [0] * world_size
    assert losses(tmp_path) == pytest.approx(losses(straight), rel=1e-5)
    for step, given in scores(tmp_path).items():
        assert given == pytest.approx(scores(straight)[step], rel=1e-5)


@pytest.mark.parametrize("stop_after", [3, 6])
def test_a_run_that_is_signalled_to_stop_saves_and_resumes_as_if_nothing_had_happened(
    straight: Path, tmp_path: Path, stop_after: int
) -> None:
    config = build_run(tmp_path, machine__zero_stage=2)
    assert train(config, world_size=2, stop_after=stop_after) == [EXIT_PREEMPTED] * 2
    assert read_rows(config, kind="event")[-1]["event"] == "stop"
    assert train(config, world_size=2) == [0, 0]
    assert losses(tmp_path) == losses(straight)
    assert scores(tmp_path) == scores(straight)
    evaluations = read_rows(config, kind="eval")
    assert [row["train_loss"] for row in evaluations] == [
        row["train_loss"] for row in read_rows(build_run(straight), kind="eval")
    ]


def test_defaults_that_are_written_out_when_a_run_resumes_change_nothing(straight: Path, tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__zero_stage=2)
    assert train(config, world_size=2, stop_after=6) == [EXIT_PREEMPTED] * 2
    sources = config.model_dump(mode="json")["data"]
    written = {
        "data__train": [source | {"format": "tsv", "source_language": "ko"} for source in sources["train"]],
        "data__rules": {"unknown_token": "keep"},
        "evaluation__best_metric": "bleu",
    }
    assert train(build_run(tmp_path, machine__zero_stage=2, **written), world_size=2) == [0, 0]
    assert losses(tmp_path) == losses(straight)
    resume = read_rows(config, kind="event")[-2]
    assert (resume["event"], resume["changes"], resume["scores_since"]) == ("resume", [], 0)


def test_an_allocation_that_ends_stops_all_ranks_and_loses_nothing(straight: Path, tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__zero_stage=2)
    for _ in range(2):  # the allocation ends before the first step, so each attempt takes one step
        assert train(config, world_size=2, allocation_end=1.0) == [EXIT_PREEMPTED] * 2
    stops = [row for row in read_rows(config, kind="event") if row["event"] == "stop"]
    assert [(row["step"], row["message"]) for row in stops] == [(1, ALLOCATION_ENDS), (2, ALLOCATION_ENDS)]
    assert train(config, world_size=2) == [0, 0]
    assert losses(tmp_path) == losses(straight)


def test_a_stopped_run_resumes_with_fewer_ranks_and_is_the_same_within_rounding(straight: Path, tmp_path: Path) -> None:
    assert train(build_run(tmp_path, machine__zero_stage=2), world_size=2, stop_after=5) == [EXIT_PREEMPTED] * 2
    config = build_run(tmp_path, machine__zero_stage=1)
    assert train(config, world_size=1) == [0]
    assert losses(tmp_path) == pytest.approx(losses(straight), rel=1e-5)


def test_another_cut_is_refused_by_name_and_used_if_it_was_allowed(tmp_path: Path) -> None:
    assert train(build_run(tmp_path), stop_after=5) == [EXIT_PREEMPTED]
    config = build_run(tmp_path, machine__min_micro_batches=1)
    with pytest.raises(AssertionError, match=r"machine\.min_micro_batches.* 3 in the checkpoint, 1 now"):
        train(config)
    assert train(config, allowed=["machine.min_micro_batches"]) == [0]
    assert any("machine.min_micro_batches" in warning for warning in load_record(tmp_path / "run").info.warnings)


def test_a_changed_recipe_is_refused_by_name(straight: Path) -> None:
    config = build_run(straight, training__learning_rate=5e-4)
    with pytest.raises(AssertionError, match=r"training\.learning_rate: 0\.001 in the checkpoint, 0\.0005 now"):
        train(config)


def test_a_finished_run_is_not_trained_again(straight: Path) -> None:
    before = losses(straight)
    assert train(build_run(straight, machine__zero_stage=2), world_size=2) == [0, 0]
    assert losses(straight) == before


def test_a_pinned_micro_batch_learns_what_an_unpinned_one_learns(tmp_path: Path) -> None:
    unpinned = build_run(tmp_path / "a", model__dropout=0.0, machine__min_micro_batches=1)
    pinned = build_run(tmp_path / "b", model__dropout=0.0, machine__min_micro_batches=1, machine__micro_batch_size=2)
    assert train(unpinned) == train(pinned) == [0]
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-5)
    card = (tmp_path / "b" / "run" / "README.md").read_text()
    for line in ("- train_batch_size: 2\n", "- gradient_accumulation_steps: 8\n", "- total_train_batch_size: 16\n"):
        assert line in card


def test_early_stopping_ends_a_run_and_the_card_says_why(tmp_path: Path) -> None:
    config = build_run(
        tmp_path,
        training__early_stopping={"patience": 1, "min_delta": 100.0},
        evaluation__every_steps=3,
        evaluation__best_metric="bleu",
    )
    assert train(config) == [0]
    record = load_record(tmp_path / "run")
    assert record.last_step == 6
    assert "early stopping" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("unit", ["sequences", "target_tokens"])
@pytest.mark.parametrize("epochs", [1.5])
def test_the_number_of_steps_is_known_before_training(tmp_path: Path, unit: str, epochs: float) -> None:
    size = 16 if unit == "sequences" else 150
    config = build_run(
        tmp_path,
        training__max_steps=None,
        training__epochs=epochs,
        training__batch_unit=unit,
        training__batch_size=size,
        evaluation__every_steps=None,
        evaluation__every_epochs=0.5,
    )
    assert train(config) == [0]
    record = load_record(tmp_path / "run")
    assert record.last_step == record.info.total_steps
    assert [round(row.epoch, 1) for row in record.eval_rows] == pytest.approx([0.5, 1.0, 1.5], abs=0.11)
