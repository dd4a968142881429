"""What is foretold of activations, logits and searches is what real models keep."""

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from dstrain.evaluation import decode
from dstrain.evaluation.beam import beam_search
from dstrain.forecast import activations
from dstrain.forecast.activations import Kernels, input_bytes, logits_bytes, saved_bytes, search_bytes
from dstrain.forecast.workload import Batch, Searches
from dstrain.models import projection
from dstrain.models.loss import Seq2SeqLoss, decoder_states
from tests.distributed.memory import PAD, VOCABULARY, architecture_of, build_config, build_model

FAMILIES = ("m2m100", "mbart", "marian", "t5", "mt5")
TOLERANCE = 0.1
SHAPES = [(6, 17, 13), (3, 40, 9), (12, 5, 30)]


def saved_in_fact(config: Any, *, shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """Bytes of all tensors that autograd saves in a forward pass, without parameters and buffers."""
    from dstrain.models.load import enable_activation_checkpointing

    torch.manual_seed(0)
    model = build_model(config).to(dtype).train()
    if config.machine.activation_checkpointing:
        enable_activation_checkpointing(model)
    rows, source, target = shape
    own = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its address is not used again
        return tensor

    mask = torch.ones(rows, source, dtype=torch.long)
    mask[0, -2:] = 0
    ids = torch.randint(3, VOCABULARY, (rows, source)).masked_fill(mask == 0, PAD)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder_states(
            model, source_ids=ids, source_mask=mask, decoder_ids=torch.randint(3, VOCABULARY, (rows, target))
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_autograd_saves(
    family: str, dropout: float, precision: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    config = build_config(family, model__dropout=dropout, precision=precision)
    seen = saved_in_fact(config, shape=shape, dtype=dtype)
    rows, source, target = shape
    batch = Batch(rows, source, target, rows * target)
    told = saved_bytes(architecture_of(config), batch, kernels=Kernels("cpu", dtype.itemsize))
    assert told == pytest.approx(seen, rel=TOLERANCE)


@pytest.mark.parametrize("family", ["m2m100", "mt5"])
def test_recomputing_keeps_the_input_of_each_layer(family: str) -> None:
    config = build_config(
        family, model__scratch__num_layers=6, model__dropout=0.1, machine__activation_checkpointing=True
    )
    rows, source, target = shape = (6, 24, 20)
    seen = saved_in_fact(config, shape=shape, dtype=torch.float32)
    architecture, batch, kernels = (
        architecture_of(config),
        Batch(rows, source, target, rows * target),
        Kernels("cpu", 4),
    )
    assert input_bytes(architecture, batch, kernels=kernels) == pytest.approx(seen, rel=TOLERANCE)
    told = saved_bytes(architecture, batch, kernels=kernels, recomputes=True)
    assert seen < told < 0.6 * saved_bytes(architecture, batch, kernels=kernels)


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside, and the most of them that lived at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = set[int]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        given = {each._cdata for each in _storages((arguments, options))}
        for storage in _storages(result):
            if storage._cdata not in given:  # else a view, or written in place
                self._watch(storage)
        return result

    def _watch(self, storage: torch.UntypedStorage) -> None:
        number = storage._cdata
        if number in self._known:
            return
        self._known.add(number)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, number, size)

    def _forget(self, number: int, size: int) -> None:
        self._known.discard(number)
        self.now -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [each.untyped_storage() for each in leaves if isinstance(each, torch.Tensor)]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("max_logits", [2**25, 2**16])
def test_logits_are_what_the_loss_needs(
    precision: str, dtype: torch.dtype, max_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(activations.MAX_LOGITS, "cpu", max_logits)
    config, labels = build_config("m2m100", precision=precision), 120
    loss = Seq2SeqLoss(build_model(config).to(dtype), max_logits=max_logits).train()
    states = torch.randn(labels, config.model.scratch.hidden_size, dtype=dtype, requires_grad=True)  # type: ignore[union-attr]
    targets = torch.randint(3, VOCABULARY, (labels,))
    with Live() as live:
        loss.projection(states, targets)
    told = logits_bytes(architecture_of(config), labels=labels, kernels=Kernels("cpu", dtype.itemsize))
    assert told == pytest.approx(live.most, rel=TOLERANCE)


def test_the_largest_logits_are_those_of_the_loss() -> None:
    assert activations.MAX_LOGITS == projection.MAX_LOGITS


def test_the_first_room_is_that_of_the_search() -> None:
    assert activations.FIRST_ROOM == decode.FIRST_ROOM


@pytest.mark.parametrize("family", ["m2m100", "mt5"])
@pytest.mark.parametrize(("num_beams", "cap"), [(1, 30), (4, 30), (1, 60)])
def test_a_search_needs_its_caches_and_logits(family: str, num_beams: int, cap: int) -> None:
    config, rows, source = build_config(family, model__scratch__num_layers=4), 16, 40
    model = build_model(config).eval()
    mask, end = torch.ones(rows, source, dtype=torch.long), VOCABULARY - 1
    with torch.no_grad():
        model.get_output_embeddings().weight[end] = -100.0  # no hypothesis ends before the longest length
    encoded = torch.randn(rows, source, config.model.scratch.hidden_size).abs()  # type: ignore[union-attr]
    generation = GenerationConfig(
        decoder_start_token_id=2, eos_token_id=end, pad_token_id=PAD, max_new_tokens=cap, num_beams=num_beams
    )
    with torch.no_grad(), decode.shared_attention(model), Live() as live:
        decoder = decode.Decoder(model, encoded=encoded, source_mask=mask)
        rules = decode.read_rules(generation)
        search = decode.greedy_search if num_beams == 1 else beam_search
        search(decoder, rules=rules, num_rows=rows, device=torch.device("cpu"))
    searches = Searches(rows, (Batch(rows, source, 20, rows * 20),), cap)
    told = search_bytes(architecture_of(config), searches, num_beams=num_beams, width=4)
    assert told == pytest.approx(live.most, rel=0.25)
