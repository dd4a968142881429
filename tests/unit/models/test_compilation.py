"""Compiled layers compute what eager ones do, including dropout, with the same number of graphs for all shapes."""

import logging
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import M2M100Config, M2M100ForConditionalGeneration, PreTrainedModel

from dstrain.models.compilation import compile_layers, explained_compilation, layers_of
from dstrain.models.load import enable_activation_checkpointing
from dstrain.models.loss import Seq2SeqLoss
from tests.distributed.steps import EOS, PAD, VOCABULARY, build_batch, build_model, build_rows
from tests.unit.models.tiny_models import Tiny

SHAPES = ([3, 5, 8], [2, 14])
"""Rows of micro-batches; their lengths differ as well."""
GRAPHS = {"m2m100": 2, "mt5": 4}
"""One for the layers of each side; T5's first layer has the position biases besides."""


def num_graphs() -> int:
    """The number of graphs compiled so far."""
    return int(counters["stats"]["unique_graphs"])


@pytest.fixture(autouse=True)
def _forget_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # pytest keeps everything that is logged, and the compiler logs a lot
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick() -> Iterator[None]:
    """A backend that runs graphs as they are; inductor takes a quarter of a minute for each."""
    with torch.compiler.set_stance(force_backend="eager"):
        yield


def small_model(*, dropout: float = 0.1, layerdrop: float = 0.0, num_layers: int = 1) -> PreTrainedModel:
    """M2M100 with every use of random numbers that it has."""
    torch.manual_seed(0)
    return M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=VOCABULARY, d_model=16, encoder_layers=num_layers, decoder_layers=num_layers,
            encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
            dropout=dropout, attention_dropout=dropout, activation_dropout=dropout, encoder_layerdrop=layerdrop,
            decoder_layerdrop=layerdrop, pad_token_id=PAD, eos_token_id=EOS, bos_token_id=0, decoder_start_token_id=EOS,
        )
    )  # fmt: skip


def train(model: PreTrainedModel, *, start: int = EOS) -> list[tuple[Tensor, dict[str, Tensor], Tensor]]:
    """For every micro-batch: the loss, the gradients, and the next random number."""
    loss = Seq2SeqLoss(model).train()
    results = []
    for seed, sizes in enumerate(SHAPES):
        rows = build_rows(seed=seed)
        for part in build_batch(rows, sizes=sizes, rank=0, world_size=1, start=start).micro_batches:
            torch.manual_seed(seed)
            loss.zero_grad()
            loss_sum = loss(part.source_ids, part.source_mask, part.decoder_ids, part.labels)
            loss_sum.backward()
            gradients = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
            results.append((loss_sum.detach(), gradients, torch.rand(())))
    return results


def assert_alike(found: list[Any], expected: list[Any], *, rtol: float = 1e-4) -> None:
    """Compares gradients relative to their norms, since one that is zero except for rounding has no digits to compare."""
    for (loss, gradients, number), (eager_loss, eager_gradients, eager_number) in zip(found, expected, strict=True):
        torch.testing.assert_close(loss, eager_loss, rtol=rtol, atol=0.0)
        assert gradients.keys() == eager_gradients.keys()
        largest = max(float(gradient.norm()) for gradient in eager_gradients.values())
        for name, gradient in gradients.items():
            expected_norm = float(eager_gradients[name].norm())
            assert float((gradient - eager_gradients[name]).norm()) <= rtol * max(expected_norm, 1e-3 * largest), name
        assert number == eager_number, "as many random numbers were drawn"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
def test_inductor_code_has_the_same_dropout_loss_and_gradients() -> None:
    expected = train(small_model())
    model = small_model()
    compile_layers(model)
    assert_alike(train(model), expected)
    assert num_graphs() == GRAPHS["m2m100"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_all_shapes_and_layers_share_their_graphs_and_nothing_else_changes() -> None:
    expected = train(build_model("mt5", dropout=0.1), start=PAD)
    model = build_model("mt5", dropout=0.1)
    compile_layers(model)
    square = torch.full((4, 4), 7)  # equal sizes, also equal to the number of heads, by coincidence
    Seq2SeqLoss(model).train()(square, torch.ones_like(square), square, square)
    assert num_graphs() == GRAPHS["mt5"]
    assert_alike(train(model, start=PAD), expected)
    assert num_graphs() == GRAPHS["mt5"]
    assert not counters["graph_break"]


@pytest.mark.slow
def test_activation_checkpointing_works_with_compiled_layers() -> None:
    models = [small_model() for _ in range(2)]
    for model in models:
        enable_activation_checkpointing(model)
    expected = train(models[0])
    compile_layers(models[1])
    with torch.compiler.set_stance(force_backend="aot_eager"):  # recomputes as inductor's code does
        assert_alike(train(models[1]), expected)
    assert num_graphs() == GRAPHS["m2m100"]
    assert not counters["graph_break"]


@pytest.mark.usefixtures("quick")
def test_a_layer_may_be_left_out() -> None:
    expected = train(small_model(layerdrop=0.5, num_layers=3))
    assert {len(gradients) for _, gradients, _ in expected} != {len(dict(small_model(num_layers=3).named_parameters()))}
    model = small_model(layerdrop=0.5, num_layers=3)
    compile_layers(model)
    assert_alike(train(model), expected)
    assert num_graphs() == GRAPHS["m2m100"]


def test_every_layer_of_every_family_is_compiled_and_keeps_its_names(tiny: Tiny) -> None:
    names, keys = [name for name, _ in tiny.model.named_parameters()], list(tiny.model.state_dict())
    compile_layers(tiny.model)
    assert [name for name, _ in tiny.model.named_parameters()] == names
    assert list(tiny.model.state_dict()) == keys
    layers = layers_of(tiny.model)
    assert [type(layer).__name__.removeprefix("M").endswith(("Layer", "T5Block")) for layer in layers] == [True] * 4
    rest = nn.ModuleList(tiny.model.children())
    num_inside = sum(parameter.numel() for layer in layers for parameter in layer.parameters())
    num_matrices = sum(p.numel() for name, p in rest.named_parameters() if ".layers." in name or ".block." in name)
    assert num_inside == num_matrices


def _fail(graph: Any, inputs: Any) -> Any:
    raise FileNotFoundError("no C++ compiler\nand much more")


def test_if_nothing_can_be_compiled_the_error_names_the_way_out() -> None:
    model = small_model()
    compile_layers(model)
    message = r"machine.compile: layers cannot be compiled here \(.*no C\+\+ compiler.*\); set it to false$"
    with (
        torch.compiler.set_stance(force_backend=_fail),
        pytest.raises(ValueError, match=message),
        explained_compilation(),
    ):
        train(model)


def test_other_errors_are_passed_on_unchanged() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="full"), explained_compilation():
        raise torch.OutOfMemoryError("full")
