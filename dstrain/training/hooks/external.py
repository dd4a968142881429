"""Has evaluations scored by other programs while training continues."""

from collections.abc import Callable, Iterable

from dstrain.evaluation.external import ExternalScores
from dstrain.training.state import Control, Hook, Progress, StepInfo


class ExternalHook(Hook):
    """Looks after the programs at every step, on rank 0; it never waits for one."""

    name = "external"

    def __init__(
        self,
        scores: ExternalScores | None,
        *,
        find_evaluated: Callable[[], Iterable[int]],
        was_evaluated: Callable[[int], bool],
    ) -> None:
        """`scores` is None where nothing is to be done: on the other ranks, or if the recipe names no program.

        `find_evaluated` reads the steps of earlier evaluations; `was_evaluated` is asked after every step.
        """
        self.scores = scores
        self._find_evaluated, self._was_evaluated = find_evaluated, was_evaluated

    def on_start(self, progress: Progress, control: Control) -> None:
        if self.scores is not None:
            for step in self._find_evaluated():
                self.scores.add(step)

    def on_step(self, info: StepInfo, control: Control) -> None:
        if self.scores is not None:
            if self._was_evaluated(info.step):
                self.scores.add(info.step)
            self.scores.poll()

    def on_error(self, error: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """End what is running."""
        if self.scores is not None:
            self.scores.close()
