"""Runs that train part of a model: what is frozen stays, on any ranks and stages; resumes, exports, and other bases refused."""

import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.schema import RunConfig
from tests.distributed.ranks import RankFailed
from tests.system import torture
from tests.system.bases import write_base
from tests.system.runs import build_run, read_rows, train

CASES: dict[str, dict[str, Any]] = {
    "embeddings": {"model__freeze": ["embeddings"]},
    "encoder": {"model__freeze": ["encoder"], "precision": "bf16"},
    "seen": {"model__freeze": ["decoder", "embeddings"], "model__vocabulary": "seen"},
    "lora": {"model__adapter": {"rank": 4, "dropout": 0.1}, "training__weight_decay": 0.01},
    "lora-all": {
        "model__adapter": {"rank": 4, "targets": "all"},
        "model__vocabulary": "seen",
        "precision": "bf16",
        "machine__activation_checkpointing": True,
    },
}
"""What is trained of a model with tied embeddings and a new language."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base") / "m2m100"
    write_base(folder, architecture="m2m100")
    return folder


def build_part(folder: Path, *, base: Path, case: str, **changes: Any) -> RunConfig:
    """A run whose sources are in a language that the model lacks."""
    model = {"name": str(base), "dropout": 0.1, "add_languages": {"tlh": "ko"}}
    language = {"task__source_language": "tlh", "machine__zero_stage": 2}
    return build_run(folder, **{"model": model, **language, **CASES[case], **changes})


@pytest.fixture(scope="module", params=CASES)
def straight(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run on two ranks, in a folder named as its case."""
    config = build_part(tmp_path_factory.mktemp("straight") / request.param, base=base, case=request.param)
    assert train(config, world_size=2) == [0, 0]
    return config


def case_of(config: RunConfig) -> str:
    return Path(config.run_dir).parent.name


def losses(config: RunConfig) -> list[float]:
    return [row["loss"] for row in read_rows(config, kind="train")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForSeq2SeqLM.from_pretrained(folder).state_dict()
    return state


def is_frozen(name: str, config: RunConfig) -> bool:
    """Whether a weight of the exported model is one that the run did not train, but for the rows of new tokens."""
    is_token = name in ("lm_head.weight", "model.shared.weight") or name.endswith("embed_tokens.weight")
    adapter, part = config.model.adapter, "embeddings" if is_token else name.split(".")[1]
    if adapter is None:
        return part in (config.model.freeze or ())
    targets = r"(q_proj|k_proj|v_proj|out_proj)" if adapter.targets == "attention" else r"(\w_proj|out_proj|fc\d)"
    return re.search(rf"\.{targets}\.weight$", name) is None


def saved_names(config: RunConfig) -> set[str]:
    """The parameters in the newest checkpoint."""
    directory = max((Path(config.run_dir) / "checkpoints").glob("step-*"))
    keys = [key for path in directory.glob("weights-*") for key in load_file(path)]
    return {key.removeprefix("master/").rpartition("@")[0] for key in keys}


def test_what_is_frozen_is_as_it_was_and_in_no_checkpoint(straight: RunConfig, base: Path) -> None:
    before, after = weights(base), weights(Path(straight.run_dir) / "final")
    saved = saved_names(straight)
    num_old = len(before["model.shared.weight"])
    for name, tensor in after.items():
        old = before[name].to(tensor.dtype)
        if not is_frozen(name, straight):
            assert not torch.equal(tensor[: len(old)], old), name
            continue
        assert torch.equal(tensor[:num_old], old), name
        assert name not in saved
    if straight.model.adapter is not None:
        assert all(".lora_" in name for name in saved - {"model.shared.rows"})
    if is_frozen("model.shared.weight", straight):
        assert after["model.shared.weight"].shape[0] == num_old + 1
        ko = before["model.shared.weight"][_id_of(base, "ko")]
        assert not torch.equal(after["model.shared.weight"][num_old], ko)  # it began as that one, and was trained
        assert "model.shared.rows" in saved


def _id_of(base: Path, code: str) -> int:
    from dstrain.models.tokenizer import load_tokenizer

    found = load_tokenizer(str(base)).language_id(code)
    assert found is not None
    return found


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 3)])
def test_losses_and_scores_are_the_same_on_any_ranks_and_stages(
    straight: RunConfig, base: Path, tmp_path: Path, world_size: int, stage: int
) -> None:
    config = build_part(tmp_path, base=base, case=case_of(straight), machine__zero_stage=stage)
    assert train(config, world_size=world_size) == [0] * world_size
    exactness = 1e-5 if straight.precision == "fp32" else 1e-3
    assert losses(config) == pytest.approx(losses(straight), rel=exactness)
    for found, expected in zip(read_rows(config, kind="eval"), read_rows(straight, kind="eval"), strict=True):
        assert found["scores"]["loss"] == pytest.approx(expected["scores"]["loss"], rel=exactness)


def test_a_resumed_run_ends_with_the_same_weights(straight: RunConfig, base: Path, tmp_path: Path) -> None:
    config = build_part(tmp_path, base=base, case=case_of(straight))
    assert train(config, world_size=2, stop_after=5) == [EXIT_PREEMPTED] * 2
    assert train(config, world_size=2) == [0, 0]
    expected = weights(Path(straight.run_dir) / "final")
    for name, tensor in weights(Path(config.run_dir) / "final").items():
        assert torch.equal(tensor, expected[name]), name


def test_an_exported_checkpoint_is_the_live_export_and_the_card_says_what_was_trained(
    straight: RunConfig, tmp_path: Path
) -> None:
    run = Path(straight.run_dir)
    result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "model")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found, expected = weights(tmp_path / "model"), weights(run / "final")
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    card = (run / "README.md").read_text()
    assert "Trained part" in card
    assert ("new tokens" in card) == is_frozen("model.shared.weight", straight)


def test_peft_loads_the_adapter_onto_the_base_and_it_is_the_merged_model(straight: RunConfig, base: Path) -> None:
    folder = Path(straight.run_dir) / "final"
    assert (folder / "adapter").is_dir() == (straight.model.adapter is not None)
    if straight.model.adapter is None:
        return
    expected, dtype = weights(folder), torch.float32 if straight.precision == "fp32" else torch.bfloat16
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=dtype)
    model.resize_token_embeddings(len(expected["model.shared.weight"]))
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor.to(dtype), expected[name], msg=name)


def test_another_base_is_refused_by_resume_export_and_evaluate(base: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(base, copied)
    config = build_part(tmp_path, base=copied, case="encoder")
    assert train(config, stop_after=5) == [EXIT_PREEMPTED]
    file = copied / "model.safetensors"
    tensors = load_file(file)
    tensors["model.encoder.layers.0.fc1.weight"][0, 0] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    message = "the files of model.name .* have changed since"
    with pytest.raises(RankFailed, match=message):
        train(config)
    run = Path(config.run_dir)
    for command in (["export", str(run)], ["evaluate", str(run), "--step", "5", "--output"]):
        result = CliRunner().invoke(app, [*command, str(tmp_path / command[0])])
        assert result.exit_code == 1
        assert "holds only the weights that were trained" in " ".join(result.output.split())


def test_a_head_of_its_own_and_a_compact_embedding_train_beside_a_frozen_encoder(tmp_path: Path) -> None:
    base = tmp_path / "mt5"
    write_base(base, architecture="mt5")
    languages = {"task__source_language": None, "task__target_language": None}
    changes = {"model": {"name": str(base), "freeze": ["encoder"]}, "machine__compact_embedding": True, **languages}
    runs = [build_run(tmp_path / name, **changes, machine__zero_stage=stage) for name, stage in (("a", 1), ("b", 3))]
    assert [train(config) for config in runs] == [[0], [0]]
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-5)
    before, after = weights(base), weights(Path(runs[0].run_dir) / "final")
    for name, tensor in after.items():
        is_frozen = name.startswith("encoder.") and "embed_tokens" not in name
        assert torch.equal(tensor, before[name]) == is_frozen, name


def test_a_killed_run_with_an_adapter_ends_with_the_same_weights(base: Path, tmp_path: Path) -> None:
    runs = [build_part(tmp_path / name, base=base, case="lora", machine__zero_stage=3) for name in ("a", "b")]
    assert torture.launch(runs[0], kill=torture.Kill(drill="step:7", rank=1))[1] == -signal.SIGKILL
    assert [torture.launch(config) for config in runs] == [[0, 0], [0, 0]], torture.printed(runs[0])
    assert torture.fingerprint(runs[0]) == torture.fingerprint(runs[1])
