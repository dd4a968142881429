"""Runs that train only the input embeddings that training reads learn what runs that train all of them learn, bit for bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.schema import RunConfig
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import read_run_info
from tests.system.bases import write_base
from tests.system.runs import build_run, read_rows, train

PLACES = [(1, 0), (1, 1), (2, 2), (2, 3)]
"""Ranks and ZeRO stages."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mT5 whose head is its own."""
    folder = tmp_path_factory.mktemp("base") / "mt5"
    write_base(folder, architecture="mt5")
    return folder


def build(folder: Path, *, base: Path, is_compact: bool | None, stage: int = 1, **changes: object) -> RunConfig:
    """A run without clipping: the norm of a gradient adds its zeros in another order."""
    fixed = {"model": {"name": str(base), "dropout": 0.1}, "task__source_language": None, "task__target_language": None}
    machine = {"machine__zero_stage": stage, "machine__compact_embedding": is_compact}
    return build_run(folder, **{**fixed, **machine, "training__max_grad_norm": 0.0, **changes})


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(RunFolder(Path(config.run_dir)).model("final") / "model.safetensors")


def assert_same(config: RunConfig, other: RunConfig) -> None:
    for kind, keys in (("train", ("loss", "grad_norm")), ("eval", ("scores",))):
        for key in keys if kind == "eval" else keys[:1]:
            assert [row[key] for row in read_rows(config, kind=kind)] == [
                row[key] for row in read_rows(other, kind=kind)
            ]
    mine, theirs = weights(config), weights(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def trained_rows(config: RunConfig) -> int | None:
    return read_run_info(Path(config.run_dir)).model.trained_embedding_rows


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: f"{place[0]} ranks, ZeRO {place[1]}")
def whole(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run that trains the whole embedding."""
    world_size, stage = request.param
    folder = tmp_path_factory.mktemp(f"whole-{world_size}-{stage}")
    config = build(folder, base=base, is_compact=False, stage=stage)
    assert train(config, world_size=world_size) == [0] * world_size
    assert trained_rows(config) is None
    return config


def test_what_is_learned_is_the_same_to_the_bit(
    whole: RunConfig, base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    world_size, stage = request.node.callspec.params["whole"]
    config = build(tmp_path, base=base, is_compact=None, stage=stage)
    assert train(config, world_size=world_size) == [0] * world_size
    rows, all_rows = trained_rows(config), load_tokenizer(str(base)).vocabulary_size
    assert rows is not None
    assert rows < all_rows / 2
    assert_same(config, whole)
    info, of_whole = read_run_info(Path(config.run_dir)).model, read_run_info(Path(whole.run_dir)).model
    assert info.num_parameters == of_whole.num_parameters
    assert size(config) < size(whole)


def size(config: RunConfig) -> int:
    """Bytes of the tensors in the newest checkpoint."""
    newest = max(RunFolder(Path(config.run_dir)).checkpoints.iterdir())
    return sum(path.stat().st_size for path in newest.glob("*.safetensors"))


@pytest.mark.parametrize("first", [True, False], ids=["compact first", "whole first"])
def test_a_run_resumes_either_way(whole: RunConfig, base: Path, tmp_path: Path, first: bool) -> None:
    world_size = 1 if whole.machine.zero_stage < 2 else 2
    stage = whole.machine.zero_stage
    config = build(tmp_path, base=base, is_compact=first, stage=stage)
    assert train(config, world_size=world_size, stop_after=5) == [EXIT_PREEMPTED] * world_size
    config = build(tmp_path, base=base, is_compact=not first, stage=stage)
    assert train(config, world_size=world_size) == [0] * world_size
    assert (trained_rows(config) is None) == first
    assert_same(config, whole)


def test_null_goes_on_as_the_run_began(base: Path, tmp_path: Path) -> None:
    config = build(tmp_path, base=base, is_compact=False)
    assert train(config, stop_after=5) == [EXIT_PREEMPTED]
    config = build(tmp_path, base=base, is_compact=None)
    assert train(config) == [0]
    assert trained_rows(config) is None


def test_rows_of_earlier_data_stay_trained(base: Path, tmp_path: Path) -> None:
    """With other rows, more tokens are read; those of the old rows still move, by their momentum."""
    runs = []
    for is_compact in (False, True):
        config = build(tmp_path / str(is_compact), base=base, is_compact=is_compact)
        path = Path(config.data.train[0].path or "")
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[:40]))
        assert train(config, stop_after=5) == [EXIT_PREEMPTED]
        first = trained_rows(config)
        path.write_text("".join(lines[40:]))
        assert train(config, allowed=["data.train"]) == [0]
        runs.append((config, first, trained_rows(config)))
    (whole, *_), (compact, before, after) = runs
    assert before is not None
    assert after is not None
    assert after > before
    assert_same(compact, whole)


def test_clipping_differs_by_the_rounding_of_the_norm_alone(base: Path, tmp_path: Path) -> None:
    runs = [
        build(tmp_path / str(is_compact), base=base, is_compact=is_compact, training__max_grad_norm=0.5)
        for is_compact in (False, True)
    ]
    for config in runs:
        assert train(config) == [0]
    found, expected = ([row["loss"] for row in read_rows(config, kind="train")] for config in runs)
    assert found == pytest.approx(expected, rel=1e-6)
