"""The chunked projection compared with plain cross-entropy in fp64, and the memory that it needs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dstrain.models.projection import projected_cross_entropy

MT5_VOCABULARY = 250_112

every_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)


class Case(NamedTuple):
    states: Tensor
    weight: Tensor
    labels: Tensor
    bias: Tensor


def build_case(
    *,
    positions: int = 11,
    vocabulary: int = 37,
    hidden: int = 8,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Case:
    random = torch.Generator().manual_seed(0)
    tensors = (
        torch.randn(size, generator=random) for size in ((positions, hidden), (vocabulary, hidden), (vocabulary,))
    )
    states, weight, bias = (tensor.to(device, dtype) for tensor in tensors)
    labels = torch.randint(vocabulary, (positions,), generator=random).to(device)
    return Case(states.requires_grad_(), weight.requires_grad_(), labels, bias[None])


def plain(
    case: Case, *, label_smoothing: float = 0.0, scale: float = 1.0, cap: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and scaled gradients in fp64, all logits at once."""
    states, weight = (tensor.detach().double().requires_grad_() for tensor in (case.states, case.weight))
    logits = states @ weight.t() + case.bias.double()
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    loss = functional.cross_entropy(logits, case.labels, reduction="sum", label_smoothing=label_smoothing)
    return loss.detach(), *torch.autograd.grad(loss * scale, (states, weight))


def chunked(case: Case, *, scale: float = 1.0, rows: int = 3, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    loss = projected_cross_entropy(
        case.states, case.weight, case.labels, bias=case.bias, max_logits=rows * len(case.weight), **options
    )
    return loss.detach(), *torch.autograd.grad(loss * scale, (case.states, case.weight))


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], *, loss: float, gradient: float) -> None:
    """Relative to the value, and for gradients also to the largest of the tensor, since small ones are differences."""
    torch.testing.assert_close(found[0].double(), expected[0], rtol=loss, atol=0.0)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=gradient, atol=gradient * float(other.abs().max()))


@every_device
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("dtype", "gradient"),
    [
        # a gradient of the states adds 250,112 terms up, some libraries one after the other: sqrt(250,112) * 2 ** -23
        (torch.float32, 2e-4),
        # rounding a gradient costs 2 ** -9 and 2 ** -12; a GPU rounds that of the logits too
        (torch.bfloat16, 2**-8),
        (torch.float16, 2**-10),
    ],
)
def test_mt5s_vocabulary_in_every_precision_equals_fp64(
    device: str, label_smoothing: float, dtype: torch.dtype, gradient: float
) -> None:
    case = build_case(positions=24, vocabulary=MT5_VOCABULARY, hidden=32, dtype=dtype, device=device)
    expected = plain(case, label_smoothing=label_smoothing)
    found = chunked(case, label_smoothing=label_smoothing, rows=7)
    assert [tensor.dtype for tensor in found] == [torch.float32, dtype, dtype]
    assert_near(found, expected, loss=1e-6, gradient=gradient)


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 6, 7])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_no_position_is_lost_or_counted_twice_at_the_edges_of_chunks(positions: int, label_smoothing: float) -> None:
    case = build_case(positions=positions, dtype=torch.float64)
    found = chunked(case, rows=3, label_smoothing=label_smoothing)
    assert_near(found, plain(case, label_smoothing=label_smoothing), loss=1e-12, gradient=1e-12)


def test_without_positions_the_loss_is_zero_and_the_gradient_is_zeros() -> None:
    loss, of_states, of_weight = chunked(build_case(positions=0))
    assert loss == 0.0
    assert of_states.shape == (0, 8)
    assert torch.equal(of_weight, torch.zeros(37, 8))


def test_with_less_memory_than_one_position_needs_a_chunk_has_one_position() -> None:
    case = build_case(dtype=torch.float64)
    loss = projected_cross_entropy(case.states, case.weight, case.labels, bias=case.bias, max_logits=1)
    torch.testing.assert_close(loss.detach(), plain(case)[0], rtol=1e-12, atol=0.0)


@every_device
@pytest.mark.parametrize("scale", [2.0**16 / 24, 2.0**-6, 0.0])
def test_fp16_gradients_are_scaled_before_they_are_rounded(device: str, scale: float) -> None:
    case = build_case(positions=24, vocabulary=50_000, hidden=32, dtype=torch.float16, device=device)
    expected = plain(case, scale=scale)
    found = chunked(case, rows=7, scale=scale)
    assert_near(found, expected, loss=1e-6, gradient=2**-10)
    tiny = (expected[2].abs() < 1e-4 * expected[2].abs().max()) & (expected[2].abs() > 2**-14)
    if scale > 1.0:  # what fp16 could not hold unscaled, element by element; a GPU's rounding shows in sums that cancel
        assert tiny.sum() > 1000
        near = torch.isclose(found[2].double()[tiny], expected[2][tiny], rtol=2**-8, atol=0.0)
        assert near.double().mean() >= (1.0 if device == "cpu" else 0.99)


def test_a_loss_scale_too_large_for_fp16_overflows_so_that_the_scaler_notices() -> None:
    _, of_states, of_weight = chunked(build_case(dtype=torch.float16), scale=2.0**20)
    assert of_states.isinf().any()
    assert of_weight.isinf().any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["states", "weight", "bias"])
def test_inputs_that_are_not_finite_have_results_that_are_not_finite(value: float, place: str) -> None:
    case = build_case()
    with torch.no_grad():
        case.labels[4] = 5
        {"states": case.states[4], "weight": case.weight[5], "bias": case.bias[0, 5:6]}[place][0] = value
    loss, *gradients = chunked(case)
    expected = plain(case)
    assert not loss.isfinite()
    assert not expected[0].isfinite()
    for found, other in zip(gradients, expected[1:], strict=True):
        assert torch.equal(found.isfinite(), other.isfinite())


def test_a_scale_of_nan_leaves_no_finite_gradient() -> None:
    _, of_states, of_weight = chunked(build_case(), scale=float("nan"))
    assert of_states.isnan().all()
    assert of_weight.isnan().all()


def test_a_head_tied_to_the_embedding_gets_both_gradients() -> None:
    case = build_case(dtype=torch.float64)

    def gradient_of(loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        embedded = functional.embedding(case.labels.flip(0), case.weight)
        (gradient,) = torch.autograd.grad(loss_of(case.states * embedded), case.weight)
        return gradient

    found = gradient_of(
        lambda states: projected_cross_entropy(states, case.weight, case.labels, max_logits=3 * len(case.weight))
    )
    expected = gradient_of(
        lambda states: functional.cross_entropy(states @ case.weight.t(), case.labels, reduction="sum")
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


class Ledger(TorchDispatchMode):
    """Records the operations and every memory block they allocate: its number of elements, and whether it is still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[Any] = set()
        self.blocks: dict[int, tuple[int, StorageWeakRef]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.add(func)
        given = func(*args, **(kwargs or {}))
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(given):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in known:
                block = leaf.untyped_storage()
                self.blocks[len(self.blocks)] = block.nbytes() // leaf.element_size(), StorageWeakRef(block)
        return given

    def sizes(self, *, alive: bool = False) -> list[int]:
        """Largest first."""
        found = (size for size, block in self.blocks.values() if not (alive and block.expired()))
        return sorted(found, reverse=True)


WIDE = {"positions": 100, "vocabulary": 1000, "hidden": 8}
"""100,000 logits; a weight of 8,000."""


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_no_more_than_one_chunk_of_logits_is_allocated(label_smoothing: float) -> None:
    case = build_case(**WIDE)
    with Ledger() as ledger:
        chunked(case, rows=10, label_smoothing=label_smoothing)
    chunk, weight_gradient, *rest = ledger.sizes()
    assert chunk == 10 * 1000
    assert weight_gradient == 1000 * 8
    assert max(rest) <= 1000


def test_no_logits_outlive_the_forward_pass() -> None:
    case = build_case(**WIDE)
    with Ledger() as ledger:
        loss = projected_cross_entropy(case.states, case.weight, case.labels, max_logits=10 * 1000)
    assert ledger.sizes()[0] == 10 * 1000
    assert ledger.sizes(alive=True)[:2] == [1000 * 8, 100 * 8]  # the gradients
    loss.backward()
    del loss
    assert case.weight.grad is not None
    assert ledger.sizes(alive=True)[0] == 1000 * 8  # now held by the parameter
    case.weight.grad = case.states.grad = None
    assert ledger.sizes(alive=True) == []


def test_evaluation_computes_no_gradient() -> None:
    case = build_case(**WIDE)
    with torch.no_grad(), Ledger() as ledger:
        loss = projected_cross_entropy(case.states, case.weight, case.labels, max_logits=10 * 1000)
    assert not loss.requires_grad
    chunk, *rest = ledger.sizes()
    assert chunk == 10 * 1000
    assert max(rest) <= 100
    with Ledger() as training:
        chunked(case)
    subtract_right_answers = torch.ops.aten.scatter_add_.default
    assert subtract_right_answers in training.operations - ledger.operations


def test_no_weight_gradient_is_computed_for_a_frozen_head() -> None:
    case = build_case(**WIDE)
    expected = chunked(case, rows=10)[1]
    case.weight.requires_grad_(False)
    with Ledger() as ledger:
        projected_cross_entropy(case.states, case.weight, case.labels, bias=case.bias, max_logits=10_000).backward()
    assert case.states.grad is not None
    assert torch.equal(case.states.grad, expected)
    assert 1000 * 8 not in ledger.sizes()


def test_a_second_backward_pass_is_refused() -> None:
    case = build_case()
    loss = projected_cross_entropy(case.states, case.weight, case.labels)
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="once"):
        loss.backward()


def test_a_trained_bias_is_refused_rather_than_left_without_gradient() -> None:
    case = build_case()
    with pytest.raises(AssertionError):
        projected_cross_entropy(case.states, case.weight, case.labels, bias=case.bias.requires_grad_())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("cap", [0.5, 3.0, 30.0])
def test_capped_logits_have_the_loss_and_gradient_of_the_formula(cap: float, label_smoothing: float) -> None:
    case = build_case()
    expected = plain(case, cap=cap, label_smoothing=label_smoothing)
    assert_near(chunked(case, cap=cap, label_smoothing=label_smoothing), expected, loss=1e-6, gradient=1e-5)
    with torch.no_grad():
        alone = projected_cross_entropy(
            case.states, case.weight, case.labels, bias=case.bias, cap=cap, label_smoothing=label_smoothing
        )
    torch.testing.assert_close(alone.double(), expected[0], rtol=1e-6, atol=0.0)
