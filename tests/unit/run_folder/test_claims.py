"""Claims of a run folder: which checkpoints belong to the present run, even after late commits; and requests to stop."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrain.run_folder.claims import Claim, is_stop_requested, is_superseded, request_stop
from tests.unit.attempt.lease_cases import take


def claims_with_bases(*bases: int | None) -> list[Claim]:
    return [Claim(number=number, holder=None, base_step=base) for number, base in enumerate(bases, start=1)]


@pytest.mark.parametrize(
    ("bases", "lease", "step", "expected"),
    [
        ((0, 400, 450), 1, 400, False),
        ((0, 400, 450), 1, 500, True),  # committed late, after 2 resumed from 400
        ((0, 400, 450), 2, 450, False),
        ((0, 400, 450), 2, 500, True),
        ((0, 400, 450), 3, 500, False),
        ((0, 400, 300), 2, 400, True),  # 400 no longer verified, 3 resumed from 300
        ((0, 400, 300), 1, 400, True),
        ((0, 400, 300), 1, 300, False),
        ((0, 400, 0), 1, 1, True),  # started again from the beginning
        ((0, None), 1, 500, False),  # a successor that has not chosen yet
        ((0, None, 400), 1, 500, True),
        ((), 0, 100, False),
        ((100,), 0, 100, False),  # saved before there were leases
        ((100,), 0, 200, True),
    ],
)
def test_a_checkpoint_is_superseded_if_a_later_writer_resumed_from_before_it(
    bases: tuple[int | None, ...], lease: int, step: int, expected: bool
) -> None:
    assert is_superseded(claims_with_bases(*bases), lease=lease, step=step) is expected
    assert is_superseded(claims_with_bases(*bases)[::-1], lease=lease, step=step) is expected


Saved = tuple[int, int]
"""A checkpoint by its lease and step."""


@dataclass
class HonestWriter:
    """A writer that checks its lease before it acts, but may be delayed arbitrarily between the check and the act."""

    number: int
    base: tuple[Saved, ...] | None = None
    """The checkpoints that it resumes from, oldest first; None until it has chosen."""
    line: list[Saved] = field(default_factory=list)
    has_recorded: bool = False
    is_ended: bool = False

    def last_step(self) -> int:
        return self.line[-1][1] if self.line else 0


class History:
    """A run folder without a disk: checkpoints by step, each with the checkpoints before it."""

    def __init__(self) -> None:
        self.writers: list[HonestWriter] = []
        self.bases: dict[int, int] = {}
        self.saved: dict[int, tuple[Saved, ...]] = {}

    def candidates(self) -> list[tuple[Saved, ...]]:
        """The histories of the checkpoints that are not superseded, the newest first."""
        claims = [
            Claim(number=writer.number, holder=None, base_step=self.bases.get(writer.number)) for writer in self.writers
        ]
        steps = sorted(self.saved, reverse=True)
        return [
            self.saved[step] for step in steps if not is_superseded(claims, lease=self.saved[step][-1][0], step=step)
        ]

    def act(self, kind: str, *, which: int, size: int) -> None:
        if kind in ("start", "start slowly") or not self.writers:
            self.writers.append(HonestWriter(number=len(self.writers) + 1))
            which = 0
        writer = self.writers[-1 - which % len(self.writers)]
        if writer.is_ended:
            return
        if kind in ("start", "choose") and writer.base is None:
            usable = self.candidates()[size // 4 :]  # sometimes the newest is unreadable
            writer.base = usable[0] if usable else ()
            writer.line = list(writer.base)
        if kind in ("start", "record") and writer.base is not None and not writer.has_recorded:
            # late: it was delayed between its check and its write; it checks again after the write, and ends
            self.bases[writer.number] = writer.last_step()
            writer.has_recorded = True
            writer.is_ended = writer is not self.writers[-1]
        if kind == "commit" and writer.has_recorded:
            # late as well, while a newer writer runs; a checkpoint of the same step by another writer is replaced
            writer.line.append((writer.number, writer.last_step() + size))
            self.saved[writer.last_step()] = tuple(writer.line)

    def check(self) -> None:
        current = max((writer for writer in self.writers if writer.has_recorded), key=lambda writer: writer.number)
        candidates = self.candidates()
        for line in candidates:
            assert line[-1] in current.line, (line, current, self.bases)
        if not current.line or self.saved[current.line[-1][1]][-1] != current.line[-1]:
            return  # nothing saved, or replaced by that of a late writer
        # a base recorded late may hide the checkpoint that the successor resumed from, until the successor saves its own
        if current.line[-1][0] == current.number or not any(writer.is_ended for writer in self.writers):
            assert candidates[0][-1] == current.line[-1]


ACTIONS = st.tuples(
    st.sampled_from(["start", "start slowly", "choose", "record", "commit", "commit", "commit"]),
    st.sampled_from([0, 0, 1, 2]),
    st.integers(1, 4),
)


@settings(max_examples=1000)
@given(st.lists(ACTIONS, min_size=10, max_size=40))
def test_after_any_history_of_correct_writers_the_checkpoints_found_belong_to_the_continued_run(
    actions: list[tuple[str, int, int]],
) -> None:
    history = History()
    for kind, which, size in actions:
        history.act(kind, which=which, size=size)
        if history.bases:
            history.check()


def test_a_stop_is_requested_of_one_attempt_only(tmp_path: Path) -> None:
    first = take(tmp_path)
    assert not is_stop_requested(tmp_path, number=first.number)
    request_stop(tmp_path, number=first.number)
    request_stop(tmp_path, number=first.number)  # by two ranks
    assert is_stop_requested(tmp_path, number=first.number)
    first.check()
    first.release()
    second = take(tmp_path)
    assert not is_stop_requested(tmp_path, number=second.number)
