"""Parameters that no gradient reaches are named, whatever the gradient is worth."""

import torch
from torch import nn

from dstrain.engine.gradients import GradientWatch
from tests.unit.run.run_cases import CPU


class Half(nn.Module):
    """A module of which one parameter has no part in the result."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(2, 2)
        self.unused = nn.Linear(2, 2, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.frozen(self.used(x))
        return result


def test_a_parameter_without_a_gradient_is_named() -> None:
    module = Half()
    watch = GradientWatch(module)
    module(torch.ones(1, 2)).sum().backward()
    assert watch.end(CPU) == ["unused.weight"]
    assert not module.used.weight._backward_hooks


def test_a_gradient_of_zeros_counts() -> None:
    module = Half()
    watch = GradientWatch(module)
    (0.0 * (module(torch.ones(1, 2)).sum() + module.unused(torch.ones(1, 2)).sum())).backward()
    assert watch.end(CPU) == []
