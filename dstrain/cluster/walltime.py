"""When an allocation ends, and what still fits into it by what its parts have taken so far. Knows no scheduler's commands.

A warning signal is one way to hear of the end. Where none comes, or too late, the run must know by itself.
"""

from collections.abc import Callable, Mapping

from dstrain.errors import UserError

END_VARIABLES = ("DSTRAIN_ALLOCATION_END", "SLURM_JOB_END_TIME")
"""Seconds since 1970; the first is for schedulers that are not Slurm."""

ALLOCATION_ENDS = "its allocation ends"
"""Why a run stops that saw the end coming; told to whoever decides on a requeue."""

FORGETTING = 0.1
"""Share of the newest duration where it is shorter than what was expected. A longer one is believed at once."""
MAX_RESERVED = 0.1
"""Share of an allocation that is kept free at most: a short one is there to train, too."""


def read_allocation_end(environment: Mapping[str, str]) -> float | None:
    """When this allocation ends, in seconds since 1970; None where nobody says.

    Raises:
        UserError: a variable holds something else.
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
    """The time left, and how long a step, an evaluation and a save take."""

    def __init__(self, end: float | None, *, reserve_seconds: float, now: Callable[[], float]) -> None:
        """`reserve_seconds` are kept for what comes after the last save; `now` gives seconds since 1970."""
        self._end = end
        self._reserve = reserve_seconds if end is None else min(reserve_seconds, MAX_RESERVED * max(0.0, end - now()))
        self._now = now
        self._expected: dict[str, float] = {}
        self._save_began: float | None = None

    @property
    def durations(self) -> dict[str, float]:
        """Seconds that a `step`, an `evaluation` and a `save` are expected to take; those that were seen."""
        return dict(self._expected)

    def load(self, durations: Mapping[str, float]) -> None:
        """Take up what an earlier process has learned."""
        self._expected = dict(durations)

    def learn(self, part: str, seconds: float) -> None:
        """Take up how long a part has taken."""
        before = self._expected.get(part, 0.0)
        self._expected[part] = max(seconds, before + FORGETTING * (seconds - before))

    def begin_save(self) -> None:
        """A save begins, and may go on in the background."""
        self._save_began = self._now()

    def end_save(self) -> None:
        """The save has ended."""
        if self._save_began is not None:
            self.learn("save", self._now() - self._save_began)
            self._save_began = None

    def is_over(self) -> bool:
        """Whether another step would leave too little time for a save after it."""
        return not self._fits("step")

    def fits_evaluation(self) -> bool:
        """Whether an evaluation can end in time; the first one is given a try."""
        return "evaluation" not in self._expected or self._fits("evaluation", "step")

    def must_save(self) -> bool:
        """Whether there is time for a save, and for nothing else."""
        return not self._fits()

    def _fits(self, *parts: str) -> bool:
        if self._end is None:
            return True
        # a save not seen yet takes no less than what comes after it; one in flight must end before the next begins
        save = self._expected.get("save", self._reserve) * (1 if self._save_began is None else 2)
        needed = sum(self._expected.get(part, 0.0) for part in parts) + save + self._reserve
        return self._end - self._now() >= needed
