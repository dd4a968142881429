"""The file that says how a run ended: which outcome may replace which."""

import errno
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from dstrain.run_folder.claims import Claim, create_claim
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import (
    MAX_DETAILS,
    RESERVED_BYTES,
    RunOutcome,
    main,
    mark_unwritten,
    read_ends,
    read_outcome,
    read_unwritten,
    reserve_end,
    summarize,
    write_bad_end,
    write_end,
    write_outcome,
)


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


def test_every_attempt_keeps_its_own_end_whatever_the_next_one_writes(tmp_path: Path) -> None:
    for attempt, outcome in enumerate(("lost", "failed", "preempted"), start=1):
        write_outcome(tmp_path, RunOutcome("running", None, attempt=attempt))
        write_outcome(tmp_path, RunOutcome(outcome, 1, f"why {attempt}", attempt=attempt))  # type: ignore[arg-type]
    write_outcome(tmp_path, RunOutcome("running", None, attempt=4))
    ends = read_ends(tmp_path)
    assert {number: (end.outcome, end.message) for number, end in ends.items()} == {
        1: ("lost", "why 1"),
        2: ("failed", "why 2"),
        3: ("preempted", "why 3"),
    }


def test_a_start_that_failed_before_it_became_an_attempt_does_not_change_the_end_of_the_one_before(
    tmp_path: Path,
) -> None:
    write_outcome(tmp_path, RunOutcome("preempted", 85, "received SIGTERM", attempt=3))
    assert end_badly(tmp_path, attempt=0) == ("failed", 3)
    assert read_ends(tmp_path)[3].message == "received SIGTERM"


@pytest.mark.parametrize("first", ["lost", "failed"])
def test_of_several_ranks_that_report_a_loss_the_first_and_a_failure_are_kept(
    first: Literal["lost", "failed"], tmp_path: Path
) -> None:
    write_outcome(tmp_path, RunOutcome("running", None, attempt=3))
    for outcome in (RunOutcome(first, 1, "rank 1: by signal 9", attempt=3), RunOutcome("lost", 85, "peer", attempt=3)):
        write_bad_end(tmp_path, outcome)
    assert read_outcome(tmp_path).message == "rank 1: by signal 9"  # type: ignore[union-attr]
    assert read_ends(tmp_path)[3].message == "rank 1: by signal 9"
    write_bad_end(tmp_path, RunOutcome("failed", 1, "no rows", attempt=3))
    assert read_ends(tmp_path)[3].message == ("no rows" if first == "lost" else "rank 1: by signal 9")


@pytest.mark.parametrize("content", ["", "{", '{"outcome": "running", "exit_code": null, "attempt": 3}', "[]"])
def test_an_end_that_cannot_be_read_is_left_out_and_written_again(content: str, tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "00000003.end").write_text(content)
    assert read_ends(tmp_path) == {}
    write_outcome(tmp_path, RunOutcome("lost", 85, "why", attempt=3))
    assert read_ends(tmp_path)[3].message == "why"


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


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, content: bytes, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dstrain.run_folder.outcome.write_file", write)


def test_the_last_word_has_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve_end(tmp_path, attempt=3)
    write_outcome(tmp_path, RunOutcome("running", None, attempt=3))
    fill_disk(monkeypatch)
    write_bad_end(tmp_path, RunOutcome("failed", 1, "é" * 9000, attempt=3))
    end = read_ends(tmp_path)[3]
    assert (end.outcome, end.exit_code, set(end.message)) == ("failed", 1, {"é"})
    assert RunFolder(tmp_path).end(3).stat().st_size == RESERVED_BYTES
    assert read_outcome(tmp_path).outcome == "failed"  # type: ignore[union-attr]


def test_rows_that_could_not_be_written_are_remembered_until_they_are(tmp_path: Path) -> None:
    reserve_end(tmp_path, attempt=3)
    assert read_unwritten(tmp_path) == {}
    mark_unwritten(tmp_path, attempt=3, step=41)
    assert (read_unwritten(tmp_path), read_ends(tmp_path)) == ({3: 41}, {})
    write_end(tmp_path, RunOutcome("killed", None, attempt=3))
    assert (read_unwritten(tmp_path), read_ends(tmp_path)[3].outcome) == ({3: 41}, "killed")
    mark_unwritten(tmp_path, attempt=3, step=None)
    assert (read_unwritten(tmp_path), read_ends(tmp_path)[3].outcome) == ({}, "killed")
    assert "unwritten_from" not in RunFolder(tmp_path).end(3).read_text()


@pytest.mark.parametrize("attempt", [0, 4])
@pytest.mark.parametrize("before", ["finished", "preempted", "failed", "lost"])
def test_a_refusal_leaves_the_outcome_of_a_run_that_has_begun(before: Any, attempt: int, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    write_outcome(tmp_path, RunOutcome(before, 85, "why", step=12, attempt=3))
    content = (tmp_path / "outcome.json").read_bytes()
    write_bad_end(tmp_path, RunOutcome("failed", 1, "changed", attempt=attempt), is_refusal=True)
    assert (tmp_path / "outcome.json").read_bytes() == content
    ends = {number: (end.outcome, end.message) for number, end in read_ends(tmp_path).items()}
    assert ends == {3: (before, "why")} | ({4: ("refused", "changed")} if attempt else {})


def test_before_a_run_has_begun_the_newest_failure_is_its_outcome(tmp_path: Path) -> None:
    for attempt in (1, 2):
        write_bad_end(tmp_path, RunOutcome("failed", 1, f"{attempt}", attempt=attempt), is_refusal=True)
    assert (read_outcome(tmp_path).message, read_ends(tmp_path)[2].outcome) == ("2", "failed")  # type: ignore[union-attr]


def test_the_code_of_a_refused_start_is_its_own_even_if_the_run_ended_in_the_same_second(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    arguments = ["--code", "9", "--since", str(time.time() - 5), "--", "--config", "debug", f"output_dir={tmp_path}"]
    (tmp_path / "lease").mkdir()
    create_claim(tmp_path, claim=Claim(1, None))
    write_outcome(tmp_path, RunOutcome("preempted", 85, attempt=1))
    assert main(arguments) == 85
    create_claim(tmp_path, claim=Claim(2, None))
    assert main(arguments) == 9  # it has not said how it ended
    write_bad_end(tmp_path, RunOutcome("failed", 1, "changed", attempt=2), is_refusal=True)
    assert main(arguments) == 1


CHANGED = (
    "cannot be continued, because what is learned has changed:\n"
    "  seed: 1 in the checkpoint, 2 now. If allowed: dropout draws with it\n"
    "  task.source_prefix: '' in the checkpoint, 'x ' now. If allowed: the epoch begins again\n"
    "Undo the change; or start afresh"
)


def test_one_line_says_what_has_changed() -> None:
    assert summarize("no rows") == "no rows"
    assert summarize("rank 1: no such column\nfound `x`") == "rank 1: no such column"
    assert summarize(CHANGED) == (
        "cannot be continued, because what is learned has changed: seed: 1 in the checkpoint, 2 now; "
        "task.source_prefix: '' in the checkpoint, 'x ' now"
    )
    long = summarize("has changed:" + "\n  key: a in the checkpoint, b now" * 40)
    assert len(long) <= len("has changed: ") + MAX_DETAILS
    assert long.endswith("…")
