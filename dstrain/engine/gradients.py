"""Which trained parameters get a gradient in a backward pass, on every ZeRO stage. Knows no steps."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from dstrain.cluster.process_group import Ranks
from dstrain.engine.shards import trained_parameters


class GradientWatch:
    """Notes, from its making to `end`, to which trained parameters gradients flow; a gradient of zeros counts.

    DeepSpeed takes gradients away as they come, so that they cannot be looked at afterwards.
    """

    def __init__(self, module: nn.Module) -> None:
        trained = list(trained_parameters(module))
        self._names = [name for name, _ in trained]
        self._seen: set[str] = set()
        self._handles: list[Any] = [
            parameter.register_hook(partial(self._note, name))  # type: ignore[no-untyped-call]
            for name, parameter in trained
        ]

    def end(self, ranks: Ranks) -> list[str]:
        """The parameters without a gradient on any rank, in order; a collective call."""
        for handle in self._handles:
            handle.remove()
        seen = ranks.max([int(name in self._seen) for name in self._names])
        return [name for name, is_seen in zip(self._names, seen, strict=True) if not is_seen]

    def _note(self, name: str, gradient: Tensor) -> None:
        self._seen.add(name)
