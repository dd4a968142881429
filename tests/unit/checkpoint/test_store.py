"""Checkpoint directories: what begins, what counts, what is found and what is removed."""

import logging
import shutil
from pathlib import Path

import pytest
from checkpoint_cases import break_file, build_manifest, save

from dstrain.checkpoint import store
from dstrain.checkpoint.manifest import MANIFEST, verify_checkpoint
from dstrain.checkpoint.store import begin_save, checkpoint_dirs, commit_save, newest_valid, prune, step_dir, step_of


def steps_in(root: Path) -> list[int]:
    return [step_of(path) for path in checkpoint_dirs(root)]


def find(root: Path) -> tuple[int | None, list[str]]:
    """The step of the newest valid checkpoint, and what was said of those passed over."""
    problems: list[str] = []
    found = newest_valid(root, on_broken=problems.append)
    return (None if found is None else found[1].step), problems


def test_begin_gives_an_empty_directory_beside_the_final_one(tmp_path: Path) -> None:
    parts = begin_save(tmp_path / "new" / "checkpoints", step=12)
    assert parts.name == "step-00000012.tmp"
    assert list(parts.iterdir()) == []


def test_begin_removes_what_interrupted_saves_left_at_any_step(tmp_path: Path) -> None:
    for step in (5, 12):
        (begin_save(tmp_path, step=step) / "rank-00000.safetensors").write_text("half")
    parts = begin_save(tmp_path, step=12)
    assert list(tmp_path.iterdir()) == [parts]
    assert list(parts.iterdir()) == []


def test_begin_leaves_committed_checkpoints_alone(tmp_path: Path) -> None:
    directory = save(tmp_path, step=12)
    begin_save(tmp_path, step=12)
    assert verify_checkpoint(directory).step == 12


def test_commit_makes_a_checkpoint_that_verifies(tmp_path: Path) -> None:
    directory = save(tmp_path, step=12)
    assert directory == step_dir(tmp_path, step=12)
    assert verify_checkpoint(directory).step == 12
    assert not directory.with_suffix(".tmp").exists()


def test_commit_replaces_an_older_checkpoint_of_the_same_step(tmp_path: Path) -> None:
    save(tmp_path, step=12, content="old and longer")
    directory = save(tmp_path, step=12, content="new")
    assert verify_checkpoint(directory).step == 12
    assert (directory / "rank-00000.safetensors").read_text() == "new of step 12"
    assert steps_in(tmp_path) == [12]


def test_an_unfinished_directory_is_never_seen_even_if_it_is_whole(tmp_path: Path) -> None:
    save(tmp_path, step=3)
    directory = save(tmp_path, step=9)
    directory.rename(directory.with_suffix(".tmp"))
    assert steps_in(tmp_path) == [3]
    assert find(tmp_path) == (3, [])


@pytest.mark.parametrize("name", ["latest", "step-7", "step-00000007.tmp", "step-00000007-old", "xstep-00000007"])
def test_other_names_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert checkpoint_dirs(tmp_path) == []


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 2, 10):
        save(tmp_path, step=step)
    assert steps_in(tmp_path) == [100_000_000, 99_999_999, 10, 2]


def test_a_root_that_does_not_exist_holds_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_dirs(tmp_path / "nowhere") == []
    assert find(tmp_path / "nowhere") == (None, [])


def test_the_newest_valid_checkpoint_is_found_without_looking_at_older_ones(tmp_path: Path) -> None:
    break_file(save(tmp_path, step=1))
    save(tmp_path, step=2)
    assert find(tmp_path) == (2, [])


def test_broken_ones_are_passed_over_and_named(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    flipped = break_file(save(tmp_path, step=2))
    (save(tmp_path, step=3) / MANIFEST).unlink()
    step, problems = find(tmp_path)
    assert step == 1
    assert "step-00000003/manifest.json" in problems[0]
    assert str(flipped) in problems[1]


def test_nothing_is_found_among_broken_ones_alone(tmp_path: Path) -> None:
    break_file(save(tmp_path, step=2))
    step, problems = find(tmp_path)
    assert step is None
    assert len(problems) == 1


def test_prune_keeps_the_last_ones_and_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step=step)
    removed = prune(tmp_path, keep_last=2, keep_steps=frozenset({2}))
    assert [step_of(path) for path in removed] == [3, 1]
    assert steps_in(tmp_path) == [5, 4, 2]


def test_prune_removes_nothing_while_there_are_few(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2)
    assert prune(tmp_path, keep_last=2, keep_steps=frozenset()) == []
    assert steps_in(tmp_path) == [2, 1]


@pytest.mark.parametrize("keep_last", [1, 0])
def test_prune_never_keeps_fewer_than_two(keep_last: int, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    with pytest.raises(AssertionError):
        prune(tmp_path, keep_last=keep_last, keep_steps=frozenset())
    assert steps_in(tmp_path) == [3, 2, 1]


def test_prune_removes_nothing_unless_the_newest_verifies_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    broken = break_file(tmp_path / "step-00000003")
    with caplog.at_level(logging.WARNING):
        assert prune(tmp_path, keep_last=2, keep_steps=frozenset()) == []
    assert steps_in(tmp_path) == [3, 2, 1]
    assert str(broken) in caplog.text


def test_a_run_that_goes_on_from_before_a_broken_checkpoint_prunes_again_once_it_has_replaced_it(
    tmp_path: Path,
) -> None:
    save(tmp_path, step=10)
    break_file(save(tmp_path, step=20))
    save(tmp_path, step=15)
    assert prune(tmp_path, keep_last=2, keep_steps=frozenset()) == []
    save(tmp_path, step=20)
    assert [step_of(path) for path in prune(tmp_path, keep_last=2, keep_steps=frozenset())] == [10]


def interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_a_removal_cut_short_leaves_nothing_that_looks_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    monkeypatch.setattr(shutil, "rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path, keep_last=2, keep_steps=frozenset())
    left = tmp_path / "step-00000001"
    assert (left / "rank-00000.safetensors").exists()
    assert not (left / MANIFEST).exists()


@pytest.mark.parametrize("stage", ["save_manifest", "sync_path", "_remove"])
def test_a_commit_cut_short_leaves_the_older_checkpoint_to_be_found(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2, content="first")
    parts = begin_save(tmp_path, step=2)
    (parts / "rank-00000.safetensors").write_text("second")
    monkeypatch.setattr(store, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        commit_save(parts, manifest=build_manifest(parts, step=2))
    assert find(tmp_path) == (2, [])
    assert "first" in (tmp_path / "step-00000002" / "rank-00000.safetensors").read_text()
