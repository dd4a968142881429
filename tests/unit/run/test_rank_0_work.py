"""Work of rank 0: the others progress while it does, hang when it hangs, and miss it when it is dead."""

from pathlib import Path

import pytest
import torch

from dstrain.attempt.rank_records import Phases, ranks_dir
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.errors import PeerLost
from dstrain.run.rank_0_work import SILENT_SECONDS, Follower, made_by_rank_0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """The records of rank 0 and of rank 1, which follows it."""

    def __init__(self, run_dir: Path, *, attempt: int = 3) -> None:
        self.clock = Clock()
        clocks = {"now": self.clock, "monotonic": self.clock}
        self.first = Phases(ranks_dir(run_dir), rank=0, attempt=attempt, **clocks)
        self.second = Phases(ranks_dir(run_dir), rank=1, attempt=3, **clocks)
        self.follower = Follower(self.second, run_dir=run_dir, now=self.clock)

    def quiet_seconds(self) -> float:
        """How long rank 1 has made no progress."""
        return self.second.quiet_seconds()["main"][1]


def test_a_rank_that_waits_makes_progress_whenever_rank_0_does(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    for _ in range(4):
        pair.clock.now += 3600.0
        pair.first.mark_progress()
        pair.follower.look()
        assert pair.quiet_seconds() == 0.0


def test_a_rank_that_waits_hangs_if_rank_0_lives_but_makes_no_progress(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.follower.look()
    for _ in range(100):
        pair.clock.now += 60.0
        pair.first.flush()
        pair.follower.look()
    assert pair.quiet_seconds() == 6000.0


def test_a_dead_rank_0_is_missed(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.first.mark_progress()
    pair.follower.look()
    pair.clock.now += SILENT_SECONDS
    pair.follower.look()
    pair.clock.now += 1.0
    with pytest.raises(PeerLost, match="rank 0, which this rank waits for, has given no sign of life for 601 s"):
        pair.follower.look()


@pytest.mark.parametrize("attempt", [2, 4])
def test_the_record_of_another_attempt_is_no_sign_of_life(tmp_path: Path, attempt: int) -> None:
    pair = Pair(tmp_path, attempt=attempt)
    pair.clock.now += SILENT_SECONDS + 1.0
    pair.first.mark_progress()
    with pytest.raises(PeerLost):
        pair.follower.look()
    assert pair.quiet_seconds() > SILENT_SECONDS


def test_what_rank_0_has_made_is_handed_over_and_leaves_no_file(tmp_path: Path) -> None:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    assert made_by_rank_0(lambda: ["a", "b"], run_dir=tmp_path / "run", ranks=ranks) == ["a", "b"]
    assert list((tmp_path / "run").iterdir()) == []
