"""The file that says how a run ended: which outcome may replace which."""

import time
from pathlib import Path

import pytest

from dstrain.run_folder.outcome import RunOutcome, main, read_outcome, write_bad_end, write_outcome


def end_badly(run_dir: Path, *, attempt: int) -> tuple[str, int]:
    write_bad_end(run_dir, RunOutcome("failed", 1, "no rows", attempt=attempt))
    found = read_outcome(run_dir)
    assert found is not None
    return found.outcome, found.attempt


@pytest.mark.parametrize("attempt", [0, 3])
def test_a_failure_is_written_if_there_is_no_outcome(attempt: int, tmp_path: Path) -> None:
    assert end_badly(tmp_path, attempt=attempt) == ("failed", attempt)


@pytest.mark.parametrize(
    ("before", "attempt", "after"),
    [
        (RunOutcome("running", None, attempt=3), 3, ("failed", 3)),
        (RunOutcome("lost", 85, attempt=3), 3, ("failed", 3)),
        (RunOutcome("lost", 85, attempt=3), 4, ("failed", 4)),
        (
            RunOutcome("preempted", 85, attempt=3),
            0,
            ("failed", 3),
        ),  # failed before it had the folder, which no attempt holds
        (RunOutcome("failed", 1, attempt=0), 0, ("failed", 0)),
        (RunOutcome("running", None, attempt=3), 0, ("running", 3)),
        (RunOutcome("running", None, attempt=3), 2, ("running", 3)),
        (RunOutcome("running", None, attempt=0), 0, ("running", 0)),
        (RunOutcome("preempted", 85, attempt=3), 2, ("preempted", 3)),
        (RunOutcome("finished", 0, attempt=3), 0, ("finished", 3)),
        (RunOutcome("finished", 0, attempt=3), 3, ("finished", 3)),
        (RunOutcome("finished", 0, attempt=3), 4, ("finished", 3)),
    ],
)
def test_a_failure_does_not_replace_an_outcome_of_another_attempt_or_of_a_finished_run(
    before: RunOutcome, attempt: int, after: tuple[str, int], tmp_path: Path
) -> None:
    write_outcome(tmp_path, before)
    assert end_badly(tmp_path, attempt=attempt) == after


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    write_outcome(tmp_path / "moved", RunOutcome("failed", 1))
    assert not (tmp_path / "moved").exists()


def test_the_code_of_a_run_is_that_of_its_outcome_if_it_was_written_since(tmp_path: Path) -> None:
    arguments = ["--code", "1", "--since", str(time.time() - 5), "--", "--config", "debug", f"output_dir={tmp_path}"]
    assert main(arguments) == 1
    write_outcome(tmp_path, RunOutcome("running", None, attempt=1))
    assert main(arguments) == 1
    write_outcome(tmp_path, RunOutcome("preempted", 85, attempt=1))
    assert main(arguments) == 85
    later = [*arguments[:3], str(time.time() + 60), *arguments[4:]]
    assert main(later) == 1
    assert main([*arguments[:-1], "no=key"]) == 1
