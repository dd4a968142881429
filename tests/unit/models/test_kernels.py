"""Faster kernels give what the ordinary ones give."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.activations import NewGELUActivation

from dstrain.models.kernels import _bernoulli, fuse_gelu

PROGRAM = """
import torch
from torch.nn import functional
from dstrain.models.kernels import draw_masks_by_bits

draw_masks_by_bits()
draw_masks_by_bits()  # once is enough

def draw(seed, shape=(1000, 333)):
    torch.manual_seed(seed)
    inputs = torch.ones(shape, requires_grad=True)
    found = functional.dropout(inputs, p=0.1, training=True)
    found.sum().backward()
    return found.detach(), inputs.grad

found, gradient = draw(0)
assert torch.equal(found, gradient)
assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}, found.unique()
share = (found != 0).float().mean().item()
assert abs(share - 0.9) < 4 * (0.1 * 0.9 / found.numel()) ** 0.5, share
assert torch.equal(draw(0)[0], found) and not torch.equal(draw(1)[0], found)
state = torch.get_rng_state()
first = torch.empty(5).bernoulli_(0.5)
torch.set_rng_state(state)
assert torch.equal(torch.empty(5).bernoulli_(0.5), first)
attention = functional.scaled_dot_product_attention(*[torch.randn(2, 2, 8, 4) for _ in range(3)], dropout_p=0.5)
print("ok", attention.shape)
"""


def test_dropout_keeps_its_share_and_follows_the_seed() -> None:
    # in a process of its own, since the kernel holds until the process ends
    done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ok"), done.stderr


@pytest.mark.parametrize("p", [0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (7, 10_000)])
def test_every_probability_and_shape_is_drawn(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    found = _bernoulli(torch.empty(shape), p)
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    deviation = (p * (1 - p) * found.numel()) ** 0.5
    assert abs(found.sum().item() - p * found.numel()) <= 4 * deviation + 1


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    found = _bernoulli(torch.empty(400_000), 0.5) - 0.5
    for distance in (1, 2, 3, 4, 5, 8):
        correlation = (found[distance:] * found[:-distance]).mean().item() * 4
        assert abs(correlation) < 4 / len(found) ** 0.5


class Layer(nn.Module):
    """With activations in two places, one of them another function."""

    def __init__(self) -> None:
        super().__init__()
        self.act: Any = NewGELUActivation()
        self.inner = nn.Sequential(nn.Linear(4, 4), NewGELUActivation(), nn.ReLU())


def test_gelu_is_the_same_up_to_rounding_with_its_gradient() -> None:
    layer = Layer()
    stock = layer.act
    fuse_gelu(layer)
    assert not any(isinstance(module, NewGELUActivation) for module in layer.modules())
    assert isinstance(layer.inner[2], nn.ReLU)
    inputs = torch.linspace(-8, 8, 1001, dtype=torch.float32)
    found, expected = (inputs.clone().requires_grad_() for _ in range(2))
    for activation, given in ((layer.act, found), (stock, expected)):
        activation(given).sum().backward()
    torch.testing.assert_close(layer.act(inputs), stock(inputs), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=5e-6)
    assert torch.equal(layer.act(inputs), functional.gelu(inputs, approximate="tanh"))
