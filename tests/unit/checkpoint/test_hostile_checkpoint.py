"""Files of an attacker who can compute every hash: each is read or refused with a CheckpointError, and memory stays in proportion
to the size of the file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn, zeros

from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, save_manifest, verify_checkpoint
from dstrain.checkpoint.parts import write_tensors
from dstrain.checkpoint.resume import TrainingInputs, find_changes
from dstrain.checkpoint.state import RunState, load_state, load_weights
from tests.unit.checkpoint.checkpoint_cases import (
    STATE,
    WEIGHTS,
    build_manifest,
    ignore,
    read_values,
    save,
    write_values,
)

SHARED_FOLDER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
MAX_MESSAGE = 700
"""Characters of a message besides the path of the file."""

numbers = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.just(10**400))
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["..", "../..", "/", "/etc/passwd", "a/../b", "\0", "nul\0", "\x1b[2J", "é", "\ud800", "x" * 2000]),
    st.sampled_from([STATE, WEIGHTS, MANIFEST, "link", "pipe", "folder", "folder/inside", "/dev/zero", "full"]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
keys = st.sampled_from(list(Manifest.__dataclass_fields__) + ["sha256", "invention"])
entries = st.fixed_dictionaries(
    {},
    optional={
        "path": st.one_of(texts, values),
        "size": st.one_of(st.integers(-2, 40), numbers, values),
        "sha256": st.one_of(st.text("0123456789abcdef", min_size=64, max_size=64), values),
        "mode": values,
    },
)


def read(action: Callable[[], Any], *, path: Path) -> Any:
    """What `action` returns, or None if it raises a CheckpointError that can be printed; any other exception fails the test."""
    try:
        return action()
    except CheckpointError as error:
        named, message = str(error), str(error).replace(str(path.parent), "")
        assert path.name in named or path.parent.name in named
        assert len(message) < MAX_MESSAGE, message
        assert message.isprintable(), repr(message)
        return None


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A valid checkpoint with a link, a pipe and a folder beside its files."""
    directory = save(tmp_path, step=7)
    (directory / "link").symlink_to("/dev/zero")
    os.mkfifo(directory / "pipe")
    (directory / "folder").mkdir()
    (directory / "folder" / "inside").write_text("x")
    return directory


def read_manifest(directory: Path) -> Manifest | None:
    manifest: Manifest | None = read(lambda: verify_checkpoint(directory), path=directory / MANIFEST)
    if manifest is not None:
        # a manifest that verifies can be compared with an attempt, printed and written again
        start = TrainingInputs(recipe={"seed": 1}, data={}, source_names={}, cut={})
        state = RunState(step=0, epoch=0, step_in_epoch=0, cut={}, data={})
        assert all(str(change) for change in find_changes(manifest, state=state, inputs=start))
        save_manifest(manifest, directory=directory)
        assert verify_checkpoint(directory) is not None
    return manifest


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=values)
def test_arbitrary_json_with_the_right_hash_is_not_a_manifest(content: Any, directory: Path) -> None:
    write_values(directory, content)
    assert read_manifest(directory) is None


@settings(suppress_health_check=SHARED_FOLDER, max_examples=400)
@given(changes=st.dictionaries(keys, values, min_size=1, max_size=3), removed=st.sets(keys, max_size=1))
def test_a_manifest_with_changed_values_is_read_or_refused(
    changes: dict[str, Any], removed: set[str], tmp_path: Path
) -> None:
    directory = save(tmp_path, step=7)
    kept = {key: value for key, value in read_values(directory).items() if key not in removed}
    write_values(directory, kept | changes)
    manifest = read_manifest(directory)
    if manifest is not None:
        assert 0 <= manifest.step < 2**63
        assert manifest.content in ("full", "weights")


@settings(suppress_health_check=SHARED_FOLDER, max_examples=400)
@given(files=st.lists(entries, min_size=1, max_size=3))
def test_arbitrary_file_entries_are_refused_without_leaving_the_directory(
    files: list[dict[str, Any]], directory: Path
) -> None:
    write_values(directory, read_values(save(directory.parent, step=7)) | {"files": files})
    assert read_manifest(directory) is None, "a hash was guessed"


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_not_a_manifest(content: bytes, directory: Path) -> None:
    (directory / MANIFEST).write_bytes(content)
    assert read_manifest(directory) is None


@settings(suppress_health_check=SHARED_FOLDER, max_examples=500)
@given(data=st.data())
def test_a_manifest_with_changed_bytes_is_refused(data: st.DataObject, tmp_path: Path) -> None:
    directory = save(tmp_path, step=7)
    whole = (directory / MANIFEST).read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 20)))
    changed = whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:]
    (directory / MANIFEST).write_bytes(changed)
    assert (read_manifest(directory) is not None) == (changed == whole)


STATE_VALUES = {"step": 7, "epoch": 1, "step_in_epoch": 2, "cut": {}, "data": {"train": "f00"}, "hooks": {}}
state_keys = st.sampled_from([*RunState.__dataclass_fields__, "invention"])


def read_state(directory: Path) -> RunState | None:
    state: RunState | None = read(lambda: load_state(directory), path=directory / STATE)
    if state is not None:
        assert min(state.step, state.epoch, state.step_in_epoch, state.applied_steps, state.skipped_steps) >= 0
        assert all(isinstance(value, str) for value in state.data.values())
    return state


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=values)
def test_arbitrary_json_is_not_a_state(content: Any, tmp_path: Path) -> None:
    (tmp_path / STATE).write_text(json.dumps(content))
    assert read_state(tmp_path) is None


@settings(suppress_health_check=SHARED_FOLDER, max_examples=400)
@given(changes=st.dictionaries(state_keys, values, min_size=1, max_size=3), removed=st.sets(state_keys, max_size=1))
def test_a_state_with_changed_values_is_read_or_refused(
    changes: dict[str, Any], removed: set[str], tmp_path: Path
) -> None:
    kept = {key: value for key, value in STATE_VALUES.items() if key not in removed}
    (tmp_path / STATE).write_text(json.dumps(kept | changes))
    read_state(tmp_path)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=st.binary(max_size=300))
def test_arbitrary_bytes_are_not_a_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(content)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"hooks":' * 100_000,
        json.dumps(STATE_VALUES | {"step": -1}),
        json.dumps(STATE_VALUES | {"step": "7"}),
        json.dumps(STATE_VALUES | {"step": 7.0}),
        json.dumps(STATE_VALUES | {"step": float("nan")}),
        json.dumps(STATE_VALUES | {"epoch": 2**63}),
        json.dumps(STATE_VALUES | {"data": {"train": 1}}),
        json.dumps(STATE_VALUES | {"rows": {"shared.weight": [-1]}}),
        json.dumps(STATE_VALUES | {"rows": {"shared.weight": 7}}),
        json.dumps(STATE_VALUES | {"data": {str(number): number for number in range(1000)}}),
        json.dumps(STATE_VALUES | {"x" * 10_000: 1}),
        json.dumps(STATE_VALUES | {"\x1b[31m": 1}),
        json.dumps(STATE_VALUES)[:-1],
        json.dumps(STATE_VALUES) + "}",
        json.dumps(STATE_VALUES)[:-1] + ', "hooks": ' + "9" * 5000 + "}",
        json.dumps(STATE_VALUES)[:-1] + r', "hooks": {"a": "\ud800"}}',
    ],
    ids=lambda text: text[-24:],
)
def test_a_malformed_state_is_refused_with_its_file(text: str, tmp_path: Path) -> None:
    (tmp_path / STATE).write_text(text)
    assert read_state(tmp_path) is None


def write_header(path: Path, *, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    directory = path.parent
    (directory / STATE).write_text(json.dumps(STATE_VALUES))
    write_values(directory, asdict(build_manifest(directory, step=7)))


def read_weights(directory: Path) -> bool:
    """Whether a model of 6 weights and 2 biases could be loaded."""
    verify_checkpoint(directory)
    module = nn.Linear(3, 2)
    # if a parameter is missing from all files, the message cannot name one
    try:
        load_weights(directory, module=module)
    except CheckpointError as error:
        message = str(error).replace(str(directory), "")
        assert len(message) < MAX_MESSAGE, message
        assert message.isprintable(), repr(message)
        return False
    return True


def entry_of(start: Any, stop: Any, *, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    numel = (stop - start) // 4 if shape is None else None
    return {"dtype": dtype, "shape": [numel] if shape is None else shape, "data_offsets": [start, stop]}


WHOLE = {"master/weight@0": entry_of(0, 24), "master/bias@0": entry_of(24, 32)}


def test_the_unchanged_file_is_read(tmp_path: Path) -> None:
    write_header(tmp_path / WEIGHTS, header=json.dumps(WHOLE).encode(), data=bytes(32))
    assert read_weights(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        WHOLE | {"master/bias@0": entry_of(16, 24)},
        WHOLE | {"master/bias@0": entry_of(28, 36)},
        WHOLE | {"master/bias@0": entry_of(24, 2**62)},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[2**62, 4])},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[2**40])},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[1, 2])},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[-2])},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[2.0])},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[1], dtype="F64")},
        WHOLE | {"master/bias@0": entry_of(24, 32, shape=[4], dtype="BF16")},
        WHOLE | {"master/bias@0": entry_of(24, 32, dtype="I32")},
        WHOLE | {"master/bias@0": entry_of(24, 32, dtype="PICKLE")},
        WHOLE | {"master/bias@0": entry_of(32, 24, shape=[2])},
        WHOLE | {"master/bias@0": entry_of(-8, 0, shape=[2])},
        {"master/weight@0": entry_of(0, 24), "bias@0": entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 24), "master/bias@x": entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 24), "master/bias@1": entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 24), "master/bias@" + "9" * 30: entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 16), "master/weight@5": entry_of(16, 24), "master/bias@0": entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 32)},
        {"master/weight@1": entry_of(0, 24), "master/bias@0": entry_of(24, 32)},
        {"master/weight@0": entry_of(0, 24), "exp_avg/bias@0": entry_of(24, 32)},
        WHOLE | {"__metadata__": {"a": 1}},
        {},
        [],
        None,
    ],
    ids=lambda header: json.dumps(header)[-60:],
)
def test_a_malformed_header_is_refused_with_a_printable_message(header: Any, tmp_path: Path) -> None:
    write_header(tmp_path / WEIGHTS, header=json.dumps(header).encode(), data=bytes(32))
    assert not read_weights(tmp_path)


def test_a_shard_named_twice_in_one_header_is_refused_or_read_once(tmp_path: Path) -> None:
    once = json.dumps(WHOLE)
    twice = once[:-1] + ', "master/bias@0": ' + json.dumps(entry_of(32, 40)) + "}"
    write_header(tmp_path / WEIGHTS, header=twice.encode(), data=bytes(40))
    read_weights(tmp_path)


def test_a_shard_in_two_files_is_read_once(tmp_path: Path) -> None:
    write_tensors({"master/weight@0": zeros(6), "master/bias@0": zeros(2)}, path=tmp_path / WEIGHTS, on_stage=ignore)
    write_header(tmp_path / "weights-00001.safetensors", header=json.dumps(WHOLE).encode(), data=bytes(32))
    assert read_weights(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 1 << 10, 99_999_999, 100_000_001, 2**40, 2**63, 2**64 - 1])
def test_a_wrong_header_length_is_refused(length: int, tmp_path: Path) -> None:
    write_header(tmp_path / WEIGHTS, header=json.dumps(WHOLE).encode(), data=bytes(32), length=length)
    assert not read_weights(tmp_path)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=300)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_as_weights(content: bytes, tmp_path: Path) -> None:
    write_header(tmp_path / WEIGHTS, header=content)
    assert not read_weights(tmp_path)


offsets = st.one_of(st.integers(-8, 48), st.sampled_from([0, 16, 24, 32, 2**31, 2**63, 2**64]))
shards = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "F32", "F64", "F16", "I32", "BOOL", "F8_E4M3"]), texts),
        "shape": st.lists(st.one_of(st.integers(0, 8), offsets), max_size=3),
        "data_offsets": st.lists(offsets, min_size=2, max_size=2),
    }
)
shard_names = st.one_of(
    st.sampled_from(["master/weight@0", "master/weight@4", "master/bias@0", "master/bias@1", "__metadata__"]), texts
)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=500)
@given(header=st.dictionaries(shard_names, st.one_of(shards, values), max_size=4), num_bytes=st.integers(0, 48))
def test_an_arbitrary_header_is_read_or_refused(header: dict[str, Any], num_bytes: int, tmp_path: Path) -> None:
    write_header(tmp_path / WEIGHTS, header=json.dumps(header).encode(), data=bytes(num_bytes))
    read_weights(tmp_path)


@settings(suppress_health_check=SHARED_FOLDER, max_examples=500)
@given(data=st.data())
def test_weights_with_changed_bytes_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    header = json.dumps(WHOLE).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(32)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 8)))
    changed = whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:]
    write_header(tmp_path / WEIGHTS, header=changed[8:], length=int.from_bytes(changed[:8].ljust(8, b"\0"), "little"))
    read_weights(tmp_path)


NUM = 20_000
BOMBS: dict[str, dict[str, Any]] = {
    "lists in the recipe": {"recipe": {"a": [[]] * NUM * 4}},
    "numbers for files": {"files": [0] * NUM * 4},
    "objects for files": {"files": [{}] * NUM * 4},
    "unknown keys": {f"k{number}": 0 for number in range(NUM)},
    "versions": {"versions": {f"k{number}": 0 for number in range(NUM)}},
    "scores": {"scores": {f"k{number}": "0" for number in range(NUM)}},
    "data of a state": {"data": {f"k{number}": 0 for number in range(NUM)}},
    "hooks of a state": {"hooks": {"a": [[]] * NUM * 4}},
}
MAX_FACTOR = 128
"""Bytes of memory per byte of a file: a Python object written in two or three characters takes this much (pydantic 2.11: 114)."""

READ_EACH = """
import os, resource, sys
from pathlib import Path
from dstrain.checkpoint.manifest import CheckpointError, load_manifest
from dstrain.checkpoint.state import load_state
for path in map(Path, sys.argv[1:]):
    if os.fork() == 0:  # each file is read in its own process, so that its memory can be measured
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            (load_manifest if path.name == "manifest.json" else load_state)(path.parent)
        except CheckpointError:
            pass
        print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_memory_follows_the_size_of_a_file(tmp_path: Path) -> None:
    paths = []
    for number, bomb in enumerate(BOMBS.values()):
        directory = save(tmp_path / str(number), step=7)
        write_values(directory, read_values(directory) | bomb)
        (directory / STATE).write_text(json.dumps(STATE_VALUES | bomb, separators=(",", ":")))
        paths += [directory / MANIFEST, directory / STATE]
    done = subprocess.run([sys.executable, "-c", READ_EACH, *paths], capture_output=True, text=True, check=True)
    grown = [int(line.split()[1]) << 10 for line in done.stdout.splitlines() if line.startswith("grown")]
    factors = [size / path.stat().st_size for size, path in zip(grown, paths, strict=True)]
    assert max(grown) > 4 << 20, "nothing was measured"
    assert {str(path): factor for path, factor in zip(paths, factors, strict=True) if factor > MAX_FACTOR} == {}
