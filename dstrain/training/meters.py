"""Sums over steps and ranks that survive a restart."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dstrain.cluster.process_group import Ranks


class LossMeter:
    """Token-weighted mean of the training loss. The sum stays on the device until `mean` or `state` is called."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._local: Tensor | float = 0.0
        self.num_tokens = 0

    def add(self, loss_sum: Tensor, *, num_tokens: int) -> None:
        """Add one step: this rank's loss sum, and the step's target tokens over all ranks."""
        self._local = self._local + loss_sum.double()
        self.num_tokens += num_tokens

    def mean(self) -> float:
        """Mean loss per target token over all ranks; a collective call, and the only host-device sync of an interval."""
        return self._total() / max(1, self.num_tokens)

    def reset(self) -> None:
        self._local, self.num_tokens = 0.0, 0

    def state(self) -> dict[str, Any]:
        """The sums over all ranks; a collective call."""
        return {"loss_sum": self._total(), "num_tokens": self.num_tokens}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.num_tokens = state["num_tokens"]
        self._local = state["loss_sum"] if self._ranks.rank == 0 else 0.0

    def _total(self) -> float:
        return self._ranks.sum([float(self._local)])[0]
