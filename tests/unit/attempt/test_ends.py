"""What is kept of an attempt that was killed before it could say why it ended."""

import math
from pathlib import Path
from typing import Any

import pytest

from dstrain.attempt.ends import describe_kill, keep_last_end
from dstrain.attempt.rank_records import RankRecord
from dstrain.cluster.processes import this_process
from dstrain.run_folder.claims import Claim, save_claim
from dstrain.run_folder.outcome import RunOutcome, read_ends, write_bad_end, write_outcome


def record(rank: int = 0, **changes: Any) -> RankRecord:
    values: dict[str, Any] = {
        "rank": rank,
        "host": "node1",
        "pid_namespace": "",
        "pid": 500 + rank,
        "process_start": 1,
        "attempt": 2,
        "tracks": {"main": "step", "save": "idle"},
        "step": 118,
        "beats": 9,
        "changed": 1_800_000_000.0,
        "heartbeat": 1_800_000_003.0,
        "ended": None,
    }
    return RankRecord(**values | changes)


def claim(run_dir: Path, number: int, **changes: Any) -> None:
    save_claim(run_dir, claim=Claim(number, this_process(), **changes))


def test_an_attempt_that_was_killed_is_described_by_what_its_ranks_did_last(tmp_path: Path) -> None:
    for number in (1, 2):
        claim(tmp_path, number)
    records = [
        record(0),
        record(1, tracks={"main": "evaluation"}, step=117, heartbeat=1_800_000_004.0),
        record(2, attempt=1),
    ]
    keep_last_end(tmp_path, before=3, records=records)
    message = "no rank recorded a reason; last seen after step 118: 1 in 'step', 1 in 'evaluation'"
    end = RunOutcome("killed", None, message, step=118, attempt=2, time="2027-01-15T08:00:04+00:00")
    assert read_ends(tmp_path) == {2: end}


def test_the_word_of_a_rank_that_survived_is_kept() -> None:
    assert describe_kill([record(0, ended="lost rank 1: by signal 9"), record(1)]) == "rank 0: lost rank 1: by signal 9"
    ended = [record(rank, ended="hang") for rank in (0, 1, 2)]
    assert describe_kill(ended) == "rank 0: hang (and 2 more)"


def test_an_attempt_without_records_was_killed_before_its_ranks_connected(tmp_path: Path) -> None:
    claim(tmp_path, 2)
    keep_last_end(tmp_path, before=3, records=[record(attempt=1)])
    (end,) = read_ends(tmp_path).values()
    assert (end.outcome, end.attempt, end.message) == ("killed", 2, "it left no record: its ranks had not connected")


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e300])
def test_the_times_of_a_damaged_record_are_not_believed(seconds: float, tmp_path: Path) -> None:
    claim(tmp_path, 2)
    keep_last_end(tmp_path, before=3, records=[record(heartbeat=seconds, changed=seconds)])
    assert read_ends(tmp_path)[2].outcome == "killed"


def test_an_end_that_is_known_already_stays(tmp_path: Path) -> None:
    for number in (1, 2):
        claim(tmp_path, number)
    write_outcome(tmp_path, RunOutcome("failed", 1, "rank 1: no rows", attempt=2))
    keep_last_end(tmp_path, before=3, records=[record()])
    assert [end.message for end in read_ends(tmp_path).values()] == ["rank 1: no rows"]


def test_an_outcome_of_an_earlier_version_becomes_the_end_of_its_attempt(tmp_path: Path) -> None:
    claim(tmp_path, 2)
    write_outcome(tmp_path, RunOutcome("lost", 85, "lost rank 3", attempt=2))
    (tmp_path / "lease" / "00000002.end").unlink()
    keep_last_end(tmp_path, before=3, records=[record()])
    assert read_ends(tmp_path)[2].message == "lost rank 3"


def test_a_later_word_of_the_attempt_replaces_the_guess_of_its_successor(tmp_path: Path) -> None:
    claim(tmp_path, 2)
    keep_last_end(tmp_path, before=3, records=[record()])
    write_outcome(tmp_path, RunOutcome("running", None, attempt=3))
    write_bad_end(tmp_path, RunOutcome("lost", 85, "its node was cut off", attempt=2))
    assert read_ends(tmp_path)[2].message == "its node was cut off"


@pytest.mark.parametrize("changes", [{"released": True}, {"is_start": False}])
def test_what_ended_in_order_or_did_not_train_was_not_killed(changes: dict[str, Any], tmp_path: Path) -> None:
    claim(tmp_path, 2, **changes)
    keep_last_end(tmp_path, before=3, records=[])
    assert read_ends(tmp_path) == {}
