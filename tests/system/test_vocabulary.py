"""Runs that train the token ids that occur alone: exports with all rows, resumes, other test sets, refusals."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.schema import RunConfig
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run_folder.record import load_record
from tests.distributed.ranks import RankFailed
from tests.system import torture
from tests.system.bases import write_base
from tests.system.runs import build_run, read_rows, train


@pytest.fixture(scope="module", params=("m2m100", "mt5"))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with many more tokens than the runs' rows have."""
    folder: Path = tmp_path_factory.mktemp("base") / str(request.param)
    write_base(folder, architecture=request.param)
    return folder


def build_seen(folder: Path, *, base: Path, **changes: Any) -> RunConfig:
    """A run that trains what it has seen."""
    languages = {} if base.name == "m2m100" else {"task__source_language": None, "task__target_language": None}
    seen = {"model": {"name": str(base), "vocabulary": "seen", "dropout": 0.1}}
    return build_run(folder, **{**seen, **languages, "machine__zero_stage": 2, **changes})


@pytest.fixture(scope="module")
def straight(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run on two ranks."""
    config = build_seen(tmp_path_factory.mktemp("straight"), base=base)
    assert train(config, world_size=2) == [0, 0]
    return config


def kept_ids(config: RunConfig) -> list[int]:
    found: list[int] = json.loads((Path(config.run_dir) / "vocabulary.json").read_text())
    return found


def losses(config: RunConfig) -> list[float]:
    return [row["loss"] for row in read_rows(config, kind="train")]


def generate(folder: Path, sources: list[str]) -> torch.Tensor:
    """Token ids of the hypotheses of an exported model, by transformers alone."""
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found: torch.Tensor = model.generate(**tokenizer(sources, return_tensors="pt", padding=True))
    return found


def decode(folder: Path, ids: torch.Tensor) -> list[str]:
    """The texts of ids, with `<unk>`, which `skip_special_tokens` would drop."""
    tokenizer = load_tokenizer(folder)
    return [tokenizer.decode(row) for row in ids.tolist()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
    return state


def test_an_export_has_all_rows_and_those_that_never_occur_are_as_they_were(straight: RunConfig, base: Path) -> None:
    before, after = weights(base), weights(Path(straight.run_dir) / "final")
    kept = kept_ids(straight)
    num_rows = len(next(iter(before[name] for name in before if name.endswith("shared.weight"))))
    absent = [row for row in range(num_rows) if row not in kept]
    assert len(absent) > 200
    assert before.keys() == after.keys()
    changed = 0
    for name, tensor in after.items():
        assert tensor.shape == before[name].shape
        if tensor.ndim == 2 and len(tensor) == num_rows:
            assert torch.equal(tensor[absent], before[name][absent]), name
            changed += int((tensor[kept] != before[name][kept]).any())
    assert changed >= 1


def test_the_export_generates_what_was_scored(straight: RunConfig) -> None:
    run = Path(straight.run_dir)
    record = load_record(run)
    assert record.final is not None
    assert record.final.hypotheses is not None
    sources = (run / record.final.hypotheses / "sources.txt").read_text().splitlines()
    scored = (run / record.final.hypotheses / "hypotheses.txt").read_text().splitlines()
    found = generate(run / "final", sources)
    assert decode(run / "final", found) == scored
    assert set(found.flatten().tolist()) <= set(kept_ids(straight))


def test_a_trimmed_export_is_small_and_generates_what_was_scored(
    straight: RunConfig, base: Path, tmp_path: Path
) -> None:
    run, folder = Path(straight.run_dir), tmp_path / "small"
    result = CliRunner().invoke(app, ["export", str(run), str(folder), "--trim"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "the small tokenizer segments" in result.output
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert model.get_input_embeddings().weight.shape[0] == len(kept_ids(straight))
    assert model.get_output_embeddings().weight.shape[0] == len(kept_ids(straight))
    record = load_record(run)
    assert record.final is not None
    assert record.final.hypotheses is not None
    sources = (run / record.final.hypotheses / "sources.txt").read_text().splitlines()
    scored = (run / record.final.hypotheses / "hypotheses.txt").read_text().splitlines()
    assert decode(folder, generate(folder, sources)) == scored
    config = build_run(tmp_path / "on", model__name=str(folder), model__scratch=None, training__max_steps=1)
    languages = {} if base.name == "m2m100" else {"source_language": None, "target_language": None}
    config = config.model_copy(update={"task": config.task.model_copy(update=languages)})
    assert train(config) == [0]


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 3), (3, 1)])
def test_losses_and_scores_are_the_same_on_any_number_of_ranks(
    straight: RunConfig, base: Path, tmp_path: Path, world_size: int, stage: int
) -> None:
    config = build_seen(tmp_path, base=base, machine__zero_stage=stage)
    assert train(config, world_size=world_size) == [0] * world_size
    assert kept_ids(config) == kept_ids(straight)
    assert losses(config) == pytest.approx(losses(straight), rel=1e-5)
    for found, expected in zip(read_rows(config, kind="eval"), read_rows(straight, kind="eval"), strict=True):
        assert found["scores"] == pytest.approx(expected["scores"], rel=1e-4)
        assert found["signatures"] == expected["signatures"]


def test_a_resumed_run_ends_with_the_same_weights(straight: RunConfig, base: Path, tmp_path: Path) -> None:
    config = build_seen(tmp_path, base=base)
    assert train(config, world_size=2, stop_after=5) == [EXIT_PREEMPTED] * 2
    (Path(config.run_dir) / "vocabulary.json").unlink()  # it follows from the rows
    assert train(config, world_size=2) == [0, 0]
    for name, tensor in weights(Path(config.run_dir) / "final").items():
        assert torch.equal(tensor, weights(Path(straight.run_dir) / "final")[name]), name


def test_a_killed_run_ends_with_the_same_weights(straight: RunConfig, base: Path, tmp_path: Path) -> None:
    config = build_seen(tmp_path, base=base)
    assert torture.launch(config, kill=torture.Kill(drill="step:7", rank=1))[1] == -signal.SIGKILL
    assert torture.launch(config) == [0, 0], torture.printed(config)
    assert torture.fingerprint(config) == torture.fingerprint(straight)


def test_rows_with_other_tokens_are_refused_on_resume(base: Path, tmp_path: Path) -> None:
    config = build_seen(tmp_path, base=base)
    assert train(config, stop_after=5) == [EXIT_PREEMPTED]
    before = kept_ids(config)
    with Path(config.data.train[0].path or "").open("a") as file:
        file.write("please remind me\tabout the calendar meeting tomorrow\n")
    with pytest.raises(RankFailed, match="its embeddings have no rows for them"):
        train(config, allowed=["data.train"])
    assert kept_ids(config) == before


def test_another_test_set_may_hold_tokens_that_were_not_trained(straight: RunConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight.run_dir, run)
    rows = tmp_path / "other.tsv"
    rows.write_text("remind me to call Ann tomorrow\tmeeting tomorrow\n셋\tthree\n")
    overrides = [f"data.eval=[{{path: {rows}}}]", f"output_dir={run}"]
    command = ["evaluate", str(run), "--step", "12", "--as", "other", *overrides]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "loss signature: over " in result.output
    scores = json.loads((run / "test_sets" / "other" / "scores" / "step-00000012.json").read_text())
    assert any("no hypothesis holds them" in warning for warning in scores["warnings"])


def test_the_best_model_is_scored_as_its_checkpoint_was(straight: RunConfig, tmp_path: Path) -> None:
    """Its folder has all rows; the scores are of the rows that the run trained."""
    run = tmp_path / "run"
    shutil.copytree(straight.run_dir, run)
    result = CliRunner().invoke(app, ["evaluate", str(run), f"output_dir={run}"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    best = load_record(run).best
    assert best is not None
    (file,) = (run / "evaluate").glob("**/step-*.json")
    found = json.loads(file.read_text())
    assert found["scores"] == pytest.approx(dict(best.scores), rel=1e-5)
    assert found["signatures"] == dict(best.signatures)


@pytest.mark.parametrize("trim", [[], ["--trim"]])
def test_a_vocabulary_of_another_run_is_refused(straight: RunConfig, tmp_path: Path, trim: list[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight.run_dir, run)
    ids = kept_ids(straight)
    absent = next(token_id for token_id in range(ids[-1]) if token_id not in ids)
    ids[ids.index(next(token_id for token_id in ids if token_id > absent))] = absent
    (run / "vocabulary.json").write_text(json.dumps(sorted(ids)))
    config = (run / "config.yaml").read_text().replace(straight.run_dir, str(run))
    (run / "config.yaml").write_text(config)
    result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "model"), *trim])
    assert result.exit_code == 1
    assert "vocabulary.json: not the token ids that" in result.output
    assert not (tmp_path / "model").exists()


def test_the_loss_says_over_how_many_ids_it_is(straight: RunConfig, base: Path) -> None:
    num_ids = load_tokenizer(str(base)).vocabulary_size
    for row in read_rows(straight, kind="eval"):
        assert row["signatures"]["loss"] == f"over {len(kept_ids(straight)):,} of {num_ids:,} token ids"
