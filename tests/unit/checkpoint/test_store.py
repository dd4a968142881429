"""Checkpoint directories: how saves begin and commit, which checkpoints are found, and which are removed."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from dstrain.checkpoint import store
from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, verify_checkpoint
from dstrain.checkpoint.store import (
    CheckpointName,
    Pruning,
    begin_save,
    carry_out,
    checkpoint_dirs,
    commit_save,
    current_dirs,
    leftover_dirs,
    newest_step,
    newest_valid,
    parse_checkpoint_name,
    plan_pruning,
    remove_checkpoint,
    remove_leftover,
    trim_checkpoint,
    verify_committed,
)
from dstrain.run_folder import atomic
from dstrain.run_folder.claims import Claim
from tests.unit.checkpoint.checkpoint_cases import (
    OPTIMIZER,
    STATE,
    WEIGHTS,
    break_file,
    build_manifest,
    claims,
    ignore,
    save,
)


def names(directories: Sequence[Path]) -> list[tuple[int, int]]:
    """Step and lease of each."""
    found = [parse_checkpoint_name(path) for path in directories]
    return [(name.step, name.lease) for name in found if name]


def steps(directories: Sequence[Path]) -> list[int]:
    return [step for step, _ in names(directories)]


def find(root: Path, *, by: Sequence[Claim] = ()) -> tuple[int | None, list[str]]:
    """The step of the newest valid checkpoint, and the problems of those that were skipped."""
    problems: list[str] = []
    found = newest_valid(root, claims=by, on_broken=problems.append)
    return (None if found is None else found[1].step), problems


def is_valid(directory: Path) -> bool:
    try:
        return verify_checkpoint(directory).content == "full"
    except CheckpointError:
        return False


def plan(
    root: Path,
    *,
    by: Sequence[Claim] = (),
    keep_last: int = 2,
    keep_steps: Sequence[int] = (),
    every: int | None = None,
) -> Pruning:
    return plan_pruning(
        root, claims=by, keep_last=keep_last, keep_steps=keep_steps, keep_weights_every=every, is_valid=is_valid
    )


def test_begin_returns_an_empty_directory_beside_the_final_one(tmp_path: Path) -> None:
    parts = begin_save(tmp_path / "new" / "checkpoints", name=CheckpointName(12, 3))
    assert parts.name == "step-00000012.lease-3.tmp"
    assert list(parts.iterdir()) == []


@pytest.mark.parametrize("ending", ["tmp", "old"])
def test_begin_removes_leftovers_of_this_and_earlier_leases(ending: str, tmp_path: Path) -> None:
    for lease in (1, 2, 3, 10):
        leftover = tmp_path / f"step-00000005.lease-{lease}.{ending}"
        leftover.mkdir()
        (leftover / WEIGHTS).write_text("half")
    parts = begin_save(tmp_path, name=CheckpointName(12, 2))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"step-00000005.lease-3.{ending}", f"step-00000005.lease-10.{ending}", parts.name}


@pytest.mark.parametrize("ending", ["tmp", "old"])
def test_a_file_or_a_link_in_the_place_of_a_leftover_does_not_stop_saves_and_is_not_followed(
    ending: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("kept")
    (tmp_path / f"step-00000007.lease-1.{ending}").symlink_to(outside)
    (tmp_path / f"step-00000008.lease-1.{ending}").write_text("a file")
    for step in (7, 8):
        assert verify_checkpoint(save(tmp_path, step=step)).step == step
    assert (outside / "mine").read_text() == "kept"
    assert leftover_dirs(tmp_path) == []


def test_begin_leaves_committed_checkpoints_alone(tmp_path: Path) -> None:
    directory = save(tmp_path, step=12)
    begin_save(tmp_path, name=CheckpointName(12, 1))
    assert verify_checkpoint(directory).step == 12


def test_two_saves_at_once_under_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_save(tmp_path, name=CheckpointName(12, 1))
    monkeypatch.setattr(store, "remove_leftover", lambda parts: None)
    with pytest.raises(FileExistsError):
        begin_save(tmp_path, name=CheckpointName(12, 1))


def test_commit_makes_a_checkpoint_that_verifies(tmp_path: Path) -> None:
    directory = save(tmp_path, step=12, lease=3)
    assert directory == tmp_path / "step-00000012.lease-3"
    assert verify_committed(directory).step == 12
    assert leftover_dirs(tmp_path) == []


def test_commit_reports_every_stage_in_order(tmp_path: Path) -> None:
    reached: list[str] = []
    parts = begin_save(tmp_path, name=CheckpointName(7, 1))

    def on_stage(stage: str) -> None:
        reached.append(f"{stage}: {'manifest' if (parts / MANIFEST).exists() else 'none'} {parts.exists()}")

    commit_save(parts, manifest=build_manifest(parts), on_stage=on_stage)
    assert reached == ["manifest: none True", "rename: manifest True", "renamed: none False"]


def test_commit_replaces_an_older_checkpoint_of_the_same_step_and_lease(tmp_path: Path) -> None:
    save(tmp_path, step=12, content="old and longer")
    directory = save(tmp_path, step=12, content="new")
    assert verify_checkpoint(directory).step == 12
    assert (directory / WEIGHTS).read_text() == "new of step 12"
    assert [path.name for path in tmp_path.iterdir()] == [directory.name]


def test_a_later_lease_keeps_the_checkpoint_of_an_earlier_lease_at_the_same_step(tmp_path: Path) -> None:
    save(tmp_path, step=12, lease=9)
    save(tmp_path, step=12, lease=10)
    save(tmp_path, step=5, lease=11)
    assert names(checkpoint_dirs(tmp_path)) == [(12, 10), (12, 9), (5, 11)]


def test_an_unfinished_directory_is_never_found_even_if_it_is_complete(tmp_path: Path) -> None:
    save(tmp_path, step=3)
    directory = save(tmp_path, step=9)
    directory.rename(directory.with_suffix(".lease-1.tmp"))
    assert steps(checkpoint_dirs(tmp_path)) == [3]
    assert find(tmp_path) == (3, [])
    assert [path.name for path in leftover_dirs(tmp_path)] == ["step-00000009.lease-1.tmp"]


@pytest.mark.parametrize(
    "name",
    [
        "latest",
        "step-00000007",
        "step-7.lease-1",
        "step-00000007.lease-1.tmp",
        "step-00000007.lease-1.old",
        "step-00000007.lease-1-old",
        "step-00000007.lease-",
        "step-00000007.lease-01",
        "step-000000007.lease-1",
        "step-٠٠٠٠٠٠٠٧.lease-1",
        "xstep-00000007.lease-1",
        "step-00000007.lease-1\n",
        f"step-{'9' * 19}.lease-1",
    ],
)
def test_directories_with_other_names_are_not_checkpoints(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert checkpoint_dirs(tmp_path) == []


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 2, 10):
        save(tmp_path, step=step)
    assert steps(checkpoint_dirs(tmp_path)) == [100_000_000, 99_999_999, 10, 2]


def test_a_root_that_does_not_exist_or_is_a_file_has_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        assert checkpoint_dirs(root) == []
        assert find(root) == (None, [])


def test_a_checkpoint_of_a_writer_that_no_longer_held_the_lease_is_not_current(tmp_path: Path) -> None:
    for step, lease in ((10, 1), (20, 1), (30, 1), (20, 2)):
        save(tmp_path, step=step, lease=lease)
    # lease 2 resumed from step 10, lease 3 from a checkpoint of lease 2, lease 4 has not chosen yet
    assert names(current_dirs(tmp_path, claims=claims(0, 10, 20, None))) == [(20, 2), (10, 1)]
    assert find(tmp_path, by=claims(0, 10)) == (20, [])
    assert find(tmp_path) == (30, [])
    assert names(current_dirs(tmp_path, claims=claims(0, None))) == [(30, 1), (20, 2), (20, 1), (10, 1)]


def test_the_newest_step_is_that_of_the_newest_committed_directory(tmp_path: Path) -> None:
    assert newest_step(tmp_path) == 0
    for name in ("step-00000004.lease-1", "step-00000010.lease-1", "step-00000099.lease-1.tmp", "step-12"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert newest_step(tmp_path) == 10


def test_the_newest_valid_checkpoint_is_found_without_reading_older_ones(tmp_path: Path) -> None:
    break_file(save(tmp_path, step=1))
    save(tmp_path, step=2)
    assert find(tmp_path) == (2, [])


def test_broken_checkpoints_are_skipped_and_named(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    flipped = break_file(save(tmp_path, step=2))
    (save(tmp_path, step=3) / MANIFEST).unlink()
    step, problems = find(tmp_path)
    assert step == 1
    assert "step-00000003.lease-1/manifest.json" in problems[0]
    assert str(flipped) in problems[1]


def test_checkpoints_of_weights_only_are_skipped_and_not_called_broken(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2, content="weights")
    trim_checkpoint(save(tmp_path, step=3))
    assert find(tmp_path) == (2, [])


def test_nothing_is_found_if_all_checkpoints_are_broken(tmp_path: Path) -> None:
    break_file(save(tmp_path, step=2))
    step, problems = find(tmp_path)
    assert step is None
    assert len(problems) == 1


def test_a_copy_under_another_name_is_not_taken_for_a_later_step(tmp_path: Path) -> None:
    directory = save(tmp_path, step=2)
    shutil.copytree(directory, tmp_path / "step-00000009.lease-1")
    shutil.copytree(directory, tmp_path / "step-00000002.lease-2")
    step, problems = find(tmp_path)
    assert step == 2
    assert [problem.rpartition(": ")[2][:45] for problem in problems] == [
        "it was saved as step-00000002.lease-1, so its"
    ] * 2


def test_anything_else_with_the_name_of_a_checkpoint_is_broken(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    (tmp_path / "step-00000002.lease-1").write_text("a file")
    (tmp_path / "step-00000003.lease-1").mkdir()
    (tmp_path / "step-00000004.lease-1").symlink_to("nowhere")
    step, problems = find(tmp_path)
    assert step == 1
    assert ["step-00000004" in problems[0], "step-00000003" in problems[1], "step-00000002" in problems[2]] == [
        True
    ] * 3


def test_pruning_keeps_the_last_checkpoints_and_the_weights_of_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step=step)
    planned = plan(tmp_path, keep_steps=[2])
    assert (steps(planned.remove), steps(planned.trim)) == ([3, 1], [2])
    carry_out(planned, on_stage=ignore)
    assert steps(checkpoint_dirs(tmp_path)) == [5, 4, 2]
    assert [verify_committed(path).content for path in checkpoint_dirs(tmp_path)] == ["full", "full", "weights"]
    assert leftover_dirs(tmp_path) == []


def test_pruning_keeps_weights_at_a_cadence(tmp_path: Path) -> None:
    for step in (10, 15, 20, 25, 30, 35):
        save(tmp_path, step=step)
    planned = plan(tmp_path, every=10)
    assert (steps(planned.remove), steps(planned.trim)) == ([25, 15], [20, 10])


def test_pruning_reports_its_stage_before_it_removes_anything(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step=step)
    seen: list[tuple[str, int]] = []
    carry_out(
        plan(tmp_path, keep_steps=[1]), on_stage=lambda stage: seen.append((stage, len(checkpoint_dirs(tmp_path))))
    )
    assert seen == [("prune", 4), ("prune", 3)]


def test_pruning_removes_nothing_while_there_are_at_most_keep_last_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2)
    assert plan(tmp_path) == Pruning()


@pytest.mark.parametrize("keep_last", [1, 0])
def test_pruning_never_keeps_fewer_than_two(keep_last: int, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    with pytest.raises(AssertionError):
        plan(tmp_path, keep_last=keep_last)


def test_pruning_removes_nothing_unless_the_newest_is_valid(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    break_file(tmp_path / "step-00000003.lease-1")
    assert plan(tmp_path) == Pruning()


def test_a_broken_checkpoint_does_not_count_as_kept_and_is_removed_once_enough_newer_ones_are_valid(
    tmp_path: Path,
) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step=step)
    break_file(tmp_path / "step-00000003.lease-1")
    assert steps(plan(tmp_path).remove) == [1]
    save(tmp_path, step=5)
    assert steps(plan(tmp_path).remove) == [3, 2, 1]


def test_checkpoints_of_weights_only_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step=step)
    trim_checkpoint(tmp_path / "step-00000003.lease-1")
    assert steps(plan(tmp_path).remove) == [1]


def test_checkpoints_of_a_writer_that_no_longer_held_the_lease_are_neither_counted_nor_kept(tmp_path: Path) -> None:
    for step, lease in ((10, 1), (20, 1), (30, 1)):
        save(tmp_path, step=step, lease=lease)
    save(tmp_path, step=15, lease=2)
    by = claims(0, 10)
    # valid and current: 15 and 10
    assert names(plan(tmp_path, by=by, keep_steps=[20]).remove) == [(30, 1), (20, 1)]
    assert names(plan(tmp_path, by=by, keep_last=3).remove) == []


def test_pruning_leaves_a_checkpoint_that_is_trimmed_already_unchanged(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    for _ in range(2):
        carry_out(plan(tmp_path, every=1), on_stage=ignore)
        assert verify_committed(tmp_path / "step-00000001.lease-1").content == "weights"


def test_a_link_to_a_checkpoint_that_was_moved_away_is_removed_and_not_followed(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    directory = save(root, step=1)
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)
    assert find(root) == (1, [])
    remove_checkpoint(directory)
    assert list(root.iterdir()) == []
    assert verify_checkpoint(elsewhere).step == 1


def test_a_file_with_the_name_of_a_checkpoint_is_removed_as_well(tmp_path: Path) -> None:
    (tmp_path / "step-00000001.lease-1").write_text("a file")
    remove_checkpoint(tmp_path / "step-00000001.lease-1")
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_a_failed_save_can_be_removed_twice(tmp_path: Path) -> None:
    parts = begin_save(tmp_path, name=CheckpointName(1, 1))
    (parts / WEIGHTS).write_text("half")
    for _ in range(2):
        remove_leftover(parts)
        assert list(tmp_path.iterdir()) == []


def test_trimming_removes_the_optimizer_state_and_nothing_else(tmp_path: Path) -> None:
    directory = save(tmp_path, step=1, scores={"bleu": 30.0})
    trim_checkpoint(directory)
    manifest = verify_committed(directory)
    assert (manifest.content, manifest.scores) == ("weights", {"bleu": 30.0})
    assert sorted(path.name for path in directory.iterdir()) == [MANIFEST, STATE, WEIGHTS]


def test_trimming_leaves_a_checkpoint_without_a_readable_manifest_unchanged(tmp_path: Path) -> None:
    directory = save(tmp_path, step=1)
    (directory / MANIFEST).write_text("{")
    trim_checkpoint(directory)
    assert (directory / OPTIMIZER).exists()


def interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_trim_leaves_a_valid_checkpoint_and_the_next_trim_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save(tmp_path, step=1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_delete", interrupt)
        with pytest.raises(KeyboardInterrupt):
            trim_checkpoint(directory)
    assert verify_committed(directory).content == "weights"
    assert (directory / OPTIMIZER).exists()
    trim_checkpoint(directory)
    assert not (directory / OPTIMIZER).exists()


def test_an_interrupted_removal_leaves_nothing_that_looks_like_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step=step)
    monkeypatch.setattr(shutil, "rmtree", interrupt)
    with pytest.raises(KeyboardInterrupt):
        carry_out(plan(tmp_path), on_stage=ignore)
    assert steps(checkpoint_dirs(tmp_path)) == [3, 2]
    assert [path.name for path in leftover_dirs(tmp_path)] == ["step-00000001.lease-1.old"]


@pytest.mark.parametrize(("module", "stage"), [(store, "save_manifest"), (atomic, "sync_path"), (store, "_set_aside")])
def test_after_an_interrupted_commit_the_older_checkpoint_is_found(
    module: ModuleType, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, step=1)
    save(tmp_path, step=2, content="first")
    parts = begin_save(tmp_path, name=CheckpointName(2, 1))
    (parts / WEIGHTS).write_text("second")
    monkeypatch.setattr(module, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        commit_save(parts, manifest=build_manifest(parts, step=2), on_stage=ignore)
    assert find(tmp_path) == (2, [])
    assert "first" in (tmp_path / "step-00000002.lease-1" / WEIGHTS).read_text()


def test_a_checkpoint_that_is_a_link_is_neither_trimmed_nor_removed_where_it_lies(tmp_path: Path) -> None:
    lies = save(tmp_path / "elsewhere", step=1)
    root = tmp_path / "checkpoints"
    root.mkdir()
    link = root / lies.name
    link.symlink_to(lies)
    trim_checkpoint(link)
    assert verify_committed(lies).content == "full"
    remove_checkpoint(link)
    assert list(root.iterdir()) == []
    assert verify_committed(lies).content == "full"
