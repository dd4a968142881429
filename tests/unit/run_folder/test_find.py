"""A run folder that a user named is found, and one whose run has never begun to train says what became of its last start."""

from pathlib import Path

import pytest

from dstrain.cluster.processes import this_process
from dstrain.run_folder.claims import Claim, create_claim
from dstrain.run_folder.find import check_begun, find_run, find_starts, has_only_starts, holds_starts
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.start_mark import mark_start


def start(path: Path, number: int = 1) -> RunFolder:
    """A folder with a start that has said nothing about its end."""
    folder = RunFolder(path)
    folder.claims.mkdir(parents=True, exist_ok=True)
    create_claim(path, claim=Claim(number=number, holder=this_process()))
    return folder


def test_a_folder_with_a_recipe_is_that_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert find_run(tmp_path) == find_starts(tmp_path) == RunFolder(tmp_path)
    assert holds_starts(RunFolder(tmp_path))
    assert not has_only_starts(RunFolder(tmp_path))


@pytest.mark.parametrize("find", [find_run, find_starts])
def test_a_folder_of_other_things_is_not_that_of_a_run(find: object, tmp_path: Path) -> None:
    assert callable(find)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunFolderError, match=r"is not a run folder: it holds no config\.yaml"):
        find(tmp_path)
    with pytest.raises(RunFolderError, match="no such folder"):
        find(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            "failed",
            "Its last start failed (rank 0: no usable row): mend that, then give the command that started it again",
        ),
        ("refused", "Its last start was refused (rank 0: no usable row): mend that, then give"),
        ("preempted", "Its last start was stopped (rank 0: no usable row): give the command that started it again"),
        ("lost", "Its last start was lost (rank 0: no usable row): give the command that started it again"),
    ],
)
def test_a_run_that_has_never_begun_to_train_says_how_its_last_start_ended(
    outcome: str, said: str, tmp_path: Path
) -> None:
    folder = start(tmp_path)
    write_outcome(tmp_path, RunOutcome(outcome, 1, "rank 0: no usable row", attempt=1))  # type: ignore[arg-type]
    assert find_starts(tmp_path) == folder
    assert has_only_starts(folder)
    assert holds_starts(folder)
    with pytest.raises(RunFolderError) as caught:
        find_run(tmp_path)
    message = str(caught.value)
    held = "it holds lease, outcome.json, and no config.yaml. "
    assert message.startswith(f"{tmp_path}: the run has never begun to train: {held}{said}")


def test_a_start_that_was_killed_before_it_acquired_the_folder_is_a_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claims.mkdir()
    mark_start(folder)
    assert find_starts(tmp_path) == folder
    assert has_only_starts(folder)
    with pytest.raises(RunFolderError, match=rf"has not said how it ended: see dstrain status {tmp_path}$"):
        find_run(tmp_path)


def test_the_newest_start_counts_and_one_without_a_word_leads_to_the_status(tmp_path: Path) -> None:
    start(tmp_path)
    write_outcome(tmp_path, RunOutcome("failed", 1, "the first", attempt=1))
    start(tmp_path, number=2)
    with pytest.raises(RunFolderError, match=rf"has not said how it ended: see dstrain status {tmp_path}$"):
        find_run(tmp_path)


def test_only_a_run_that_has_never_begun_is_refused_where_a_model_may_be_named_too(tmp_path: Path) -> None:
    check_begun(RunFolder(tmp_path))
    check_begun(RunFolder(Path("google/mt5-small")))
    with pytest.raises(RunFolderError, match="has never begun to train"):
        check_begun(start(tmp_path / "failed"))


def test_a_run_that_has_trained_and_lost_its_recipe_is_not_one_that_never_began(tmp_path: Path) -> None:
    folder = start(tmp_path)
    folder.metrics.touch()
    assert not has_only_starts(folder)
    with pytest.raises(RunFolderError, match=r"is not a run folder: it holds no config\.yaml"):
        find_run(tmp_path)
