"""When an allocation ends, and what still fits into it, judged by past durations. Knows no scheduler's commands.

A warning signal is one way to learn of the end. If none comes, or too late, the run must know by itself.
"""

from collections.abc import Callable, Mapping

from dstrain.errors import UserError

END_VARIABLES = ("DSTRAIN_ALLOCATION_END", "SLURM_JOB_END_TIME")
"""Seconds since 1970; the first is for schedulers that are not Slurm."""

ALLOCATION_ENDS = "its allocation ends"
"""The reason of a run that stops because its time is up; slurm/job.py reads it to decide on a requeue."""

FORGETTING = 0.1
"""Weight of a new duration that is shorter than expected. A longer one replaces the expectation at once."""
MAX_RESERVED = 0.1
"""Largest share of an allocation that is kept free, so that a short one still trains."""


def read_allocation_end(environment: Mapping[str, str]) -> float | None:
    """When this allocation ends, in seconds since 1970; None if no variable is set.

    Raises:
        UserError: a variable is not a number.
    """
    for name in END_VARIABLES:
        if text := environment.get(name, "").strip():
            try:
                return float(text)
            except ValueError:
                raise UserError(
                    f"environment: {name} must be a number of seconds since 1970, found {text!r}; unset it"
                ) from None
    return None


class WallTime:
    """The time left in an allocation, and how long a step, an evaluation and a save are expected to take."""

    def __init__(self, end: float | None, *, reserve_seconds: float, now: Callable[[], float]) -> None:
        """`reserve_seconds` are kept free for the time after the last save; `now` returns seconds since 1970."""
        self._end = end
        self._reserve = reserve_seconds if end is None else min(reserve_seconds, MAX_RESERVED * max(0.0, end - now()))
        self._now = now
        self._expected: dict[str, float] = {}
        self._save_began: float | None = None

    @property
    def durations(self) -> dict[str, float]:
        """Expected seconds by kind (`step`, `evaluation`, `save`); only kinds measured so far."""
        return dict(self._expected)

    def load(self, durations: Mapping[str, float]) -> None:
        """Restore the durations of an earlier attempt."""
        self._expected = dict(durations)

    def record_duration(self, kind: str, seconds: float) -> None:
        """Update the expectation with a measured duration."""
        before = self._expected.get(kind, 0.0)
        self._expected[kind] = max(seconds, before + FORGETTING * (seconds - before))

    def begin_save(self) -> None:
        """Note that a save begins, which may run in the background."""
        self._save_began = self._now()

    def end_save(self) -> None:
        """Note that the save has ended, and record its duration."""
        if self._save_began is not None:
            self.record_duration("save", self._now() - self._save_began)
            self._save_began = None

    def is_over(self) -> bool:
        """Whether another step would leave too little time for the save after it."""
        return not self._fits("step")

    def fits_evaluation(self) -> bool:
        """Whether an evaluation can end in time. The first one always starts, since its duration is unknown."""
        return "evaluation" not in self._expected or self._fits("evaluation", "step")

    def fits_save(self) -> bool:
        """Whether a save that begins now ends before the last one must begin."""
        return self._fits("step", "save")

    def must_save(self) -> bool:
        """Whether only a save still fits."""
        return not self._fits()

    def _fits(self, *kinds: str) -> bool:
        if self._end is None:
            return True
        # a save in flight must end before the next one begins
        save = self._expect("save") * (1 if self._save_began is None else 2)
        needed = sum(map(self._expect, kinds)) + save + self._reserve
        return self._end - self._now() >= needed

    def _expect(self, kind: str) -> float:
        # before the first save the reserve is the estimate
        return self._expected.get(kind, self._reserve if kind == "save" else 0.0)
