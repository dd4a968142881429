"""Shards of parameters in files that any number of ranks wrote, read by name and offset."""

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from dstrain.checkpoint.manifest import MANIFEST, CheckpointError
from dstrain.checkpoint.rows import RowsOf
from dstrain.checkpoint.saved_shards import MASTER, SavedShards, open_shards
from tests.unit.checkpoint.checkpoint_cases import WHOLE, part, seal, write_shards


def read(folder: Path, *, start: int, numel: int, kind: str = MASTER, name: str = "w") -> list[float]:
    flat = torch.full((numel,), -1.0)
    with open_shards(folder) as saved:
        saved.fill(flat, kind=kind, name=name, start=start)
    return flat.tolist()


@pytest.mark.parametrize(("start", "numel"), [(0, 10), (0, 3), (2, 5), (9, 1), (3, 0), (4, 4)])
def test_any_part_of_a_parameter_is_read_from_shards_with_other_bounds(start: int, numel: int, tmp_path: Path) -> None:
    write_shards(
        tmp_path,
        {"master/w@0": part(0, 4), "master/w@7": part(7, 10)},
        {"master/w@4": part(4, 5), "master/w@5": part(5, 7)},
    )
    assert read(tmp_path, start=start, numel=numel) == WHOLE[start : start + numel].tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    bounds=st.lists(st.integers(0, 10), max_size=6),
    window=st.tuples(st.integers(0, 10), st.integers(0, 10)).map(sorted),
)
def test_every_split_into_shards_restores_the_parameter(bounds: list[int], window: list[int], tmp_path: Path) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    edges = sorted({0, 10, *bounds})
    write_shards(tmp_path, *({f"master/w@{low}": part(low, high)} for low, high in pairwise(edges)))
    low, high = window
    assert read(tmp_path, start=low, numel=high - low) == WHOLE[low:high].tolist()


def test_overlapping_shards_are_read_once(tmp_path: Path) -> None:
    write_shards(tmp_path, {"master/w@0": part(0, 6)}, {"master/w@2": part(2, 4)}, {"master/w@3": part(3, 10)})
    assert read(tmp_path, start=0, numel=10) == WHOLE.tolist()
    assert read(tmp_path, start=3, numel=6) == WHOLE[3:9].tolist()


@pytest.mark.parametrize(
    ("shards", "start", "missing"),
    [
        ([(0, 4), (5, 10)], 0, "4 to 10"),
        ([(1, 10)], 0, "0 to 10"),
        ([(0, 9)], 0, "9 to 10"),
        ([(0, 3)], 4, "4 to 10"),
        ([], 0, "0 to 10"),
    ],
)
def test_a_gap_is_refused_with_the_missing_elements(
    shards: list[tuple[int, int]], start: int, missing: str, tmp_path: Path
) -> None:
    write_shards(
        tmp_path, {"master/other@0": part(0, 10)}, {f"master/w@{low}": part(low, high) for low, high in shards}
    )
    with pytest.raises(CheckpointError, match=f"no master for elements {missing} of parameter w"):
        read(tmp_path, start=start, numel=10 - start)


def test_kinds_and_parameter_names_are_not_confused(tmp_path: Path) -> None:
    names = ("w", "w.w", "encoder/w@x")
    tensors = {
        f"{kind}/{name}@0": torch.tensor([float(len(kind + name))]) for kind in ("master", "exp_avg") for name in names
    }
    write_shards(tmp_path, tensors)
    for kind in ("master", "exp_avg"):
        for name in names:
            assert read(tmp_path, start=0, numel=1, kind=kind, name=name) == [len(kind + name)]


def test_a_missing_moment_is_refused_and_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"master/w@0": part(0, 10)})
    with pytest.raises(CheckpointError, match="no exp_avg for elements 0 to 10 of parameter w"):
        read(tmp_path, start=0, numel=10, kind="exp_avg")


def test_files_that_the_manifest_does_not_name_are_not_opened(tmp_path: Path) -> None:
    write_shards(tmp_path, {"master/w@0": part(0, 4)})
    save_file({"master/w@4": part(4, 10)}, tmp_path / "weights-00001.safetensors")
    (tmp_path / "rubbish.safetensors").write_text("{}")
    with pytest.raises(CheckpointError, match="elements 4 to 10"):
        read(tmp_path, start=0, numel=10)
    assert read(tmp_path, start=0, numel=4) == [0.0, 1.0, 2.0, 3.0]


def test_files_of_other_kinds_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    write_shards(tmp_path, {"master/w@0": part(0, 10)})
    assert read(tmp_path, start=0, numel=10) == WHOLE.tolist()


def test_a_directory_without_a_manifest_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, {"master/w@0": part(0, 10)})
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=MANIFEST):
        read(tmp_path, start=0, numel=10)


@pytest.mark.parametrize(
    "key",
    ["w@0", "master/w", "master/@0", "master/w@", "master/w@-1", "master/w@1.0", "master/w@²", f"master/w@{'0' * 20}7"],
)
def test_a_tensor_name_that_is_not_of_a_shard_is_refused(key: str, tmp_path: Path) -> None:
    write_shards(tmp_path, {key: part(0, 10)})
    with pytest.raises(CheckpointError, match=r"weights-00000\.safetensors: .* is not the name of a shard"):
        read(tmp_path, start=0, numel=10)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 2), torch.zeros(()), torch.zeros(4, dtype=torch.float64), torch.zeros(4).half()]
)
def test_a_shard_of_another_shape_or_type_is_refused(tensor: Tensor, tmp_path: Path) -> None:
    save_file({"master/w@0": tensor}, tmp_path / "weights-00000.safetensors")
    seal(tmp_path)
    with pytest.raises(CheckpointError, match=r"'master/w@0' has shape .* shards are flat and F32"):
        read(tmp_path, start=0, numel=4)


def test_a_checkpoint_without_files_has_no_parameters() -> None:
    with ExitStack() as stack, pytest.raises(CheckpointError, match="parameter w"):
        SavedShards([], stack=stack).fill(torch.empty(1), kind=MASTER, name="w", start=0)


def test_rows_that_were_not_saved_stay_as_they_are(tmp_path: Path) -> None:
    write_shards(tmp_path, {"master/w@0": part(0, 3)}, {"master/w@3": part(3, 4)})
    flat = torch.full((6,), -1.0)
    with open_shards(tmp_path) as saved:
        saved.fill(flat, kind=MASTER, name="w", start=2, rows=RowsOf(None, (1, 3), num_all=5, width=2))
    assert flat.tolist() == [0.0, 1.0, -1.0, -1.0, 2.0, 3.0]
