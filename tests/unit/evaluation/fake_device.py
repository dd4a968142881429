"""Loss, search and transfers on a pretended accelerator: reports every host tensor, copy and read, without any GPU.

`python -m tests.unit.evaluation.fake_device` prints a line of JSON per family and precision; with the name of a fault, which is
then planted, the line of one family. It is a process of its own, because the pretended device cannot be taken back. Tensors
have shapes and devices, but no content.
"""

import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import PreTrainedModel

from dstrain.checkpoint.state import HostBuffers
from dstrain.data.collate import MicroBatch
from dstrain.evaluation.beam import beam_search
from dstrain.evaluation.decode import Decoder, Rules, greedy_search, shared_attention
from dstrain.models.loss import Seq2SeqLoss
from tests.unit.evaluation.decoding_cases import FAMILIES, build_model

_setup_privateuseone_for_python_backend("fakegpu")
DEVICE = torch.device("fakegpu:0")
PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
PROJECT = str(Path(__file__).resolve().parents[3] / "dstrain")
ROWS, SOURCE, TARGET = 4, 7, 5


class Watch(TorchDispatchMode):
    """Counts reads of the device, copies to and from it, and copies that the host waits for; refuses host tensors elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.counts["reads"] += args[0].device.type == DEVICE.type
            return args[0].dtype != torch.bool and 2
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        kinds = {each.device.type for each in given if each.dim() > 0}
        made = func(*args, **(kwargs or {}))
        kinds_made = {each.device.type for each in tree_leaves(made) if isinstance(each, Tensor)}
        if "cpu" in kinds | kinds_made and DEVICE.type in kinds | kinds_made:
            self.counts["copies"] += 1
            self.counts["waits"] += not any(each is True for each in (*args, (kwargs or {}).get("non_blocking")))
            if func.overloadpacket not in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
                raise RuntimeError(f"{func} takes a tensor of the host")
        return made


def move(module: nn.Module, dtype: torch.dtype) -> None:
    """Put parameters and buffers on the pretended device; tied ones stay tied."""
    moved: dict[int, Any] = {}

    def to_device(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device=DEVICE)

    for part in module.modules():
        for held, wrap in ((part._parameters, nn.Parameter), (part._buffers, lambda tensor: tensor)):
            for name, tensor in list(held.items()):
                if tensor is not None:
                    made = moved.setdefault(id(tensor), (tensor, wrap(to_device(tensor))))
                    held[name] = made[1]


def batch(*, device: torch.device | str = DEVICE) -> MicroBatch:
    """A micro-batch on the pretended device, or on the host."""

    def ids(width: int) -> Tensor:
        return torch.empty((ROWS, width), dtype=torch.int64, device=device)

    return MicroBatch(
        source_ids=ids(SOURCE), source_mask=ids(SOURCE), decoder_ids=ids(TARGET), labels=ids(TARGET), weight=1.0, index=0,
        rows=None,  # type: ignore[arg-type]
    )  # fmt: skip


def count_loss(model: PreTrainedModel, *, planted: str) -> Counter[str]:
    """What the loss and its gradient do."""
    loss, given = Seq2SeqLoss(model, label_smoothing=0.1).train(), batch()
    mask = torch.ones((ROWS, SOURCE), dtype=torch.int64) if planted == "a mask of the host" else given.source_mask
    with Watch() as watch:
        found = loss(given.source_ids, mask, given.decoder_ids, given.labels, ROWS * TARGET)
        found.backward()
        if planted == "a read":
            found.item()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert {found.device, *(gradient.device for gradient in gradients)} == {DEVICE}
    return watch.counts


def count_search(model: PreTrainedModel, *, num_beams: int, num_tokens: int, planted: str) -> Counter[str]:
    """What a search for as many tokens does, the set-up included."""
    search = greedy_search if num_beams == 1 else beam_search
    rules = Rules(
        start_id=2, forced_first_id=5, end_ids=(2,), forbidden_ids=(1,), pad_id=1, max_new_tokens=num_tokens, num_beams=num_beams,
        length_penalty=1.0, renormalizes=False,
    )  # fmt: skip
    encoded = torch.empty((ROWS, SOURCE, model.config.hidden_size), dtype=model.dtype, device=DEVICE)
    with torch.no_grad(), shared_attention(model), kept_rows(), patch("torch.tensor", tensor), Watch() as watch:
        decoder: Any = Decoder(model, encoded=encoded, source_mask=batch().source_mask)
        if planted == "an index of Python":
            logits = decoder.logits
            decoder.logits = lambda states: forbid(logits(states))
        search(decoder, rules=rules, num_rows=ROWS, device=DEVICE)
    return watch.counts


def count_transfers() -> Counter[str]:
    """What the loader's copy of a micro-batch to the device does, and a snapshot's copy of a shard to the host."""
    given, weight = batch(device="cpu"), torch.empty((8,), device=DEVICE)
    buffers = HostBuffers(torch.device("cuda"))
    empty = torch.empty

    def unpinned(*shape: Any, pin_memory: bool = False, **named: Any) -> Tensor:
        return empty(*shape, **named)

    with patch("torch.empty", unpinned), Watch() as watch:
        given.to(DEVICE)
        buffers.copy("master/weight@0", weight)
    return watch.counts


def tensor(values: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Stands in for `torch.tensor`, which cannot fill the memory of a pretended device."""
    return torch.full((len(values),), values[0] if values else 0, dtype=dtype, device=device)


def forbid(logits: Tensor) -> Tensor:
    logits[:, [1, 2]] = -torch.inf
    return logits


@contextmanager
def kept_rows() -> Iterator[None]:
    """No row leaves the batch: which ones do would depend on their content."""
    with (
        patch("dstrain.evaluation.decode.should_compact", lambda *given, **named: False),
        patch("dstrain.evaluation.beam.should_compact", lambda *given, **named: False),
    ):
        yield


def look(family: str, dtype: torch.dtype, *, planted: str) -> dict[str, Any]:
    """Reads and copies of a loss, and per generated token."""
    real = build_model(family)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(real, dtype)
        counts = count_loss(real, planted=planted)
        found: dict[str, Any] = {"loss": {kind: counts[kind] for kind in ("reads", "copies")}}
        transfers = count_transfers()
        found["transfers"] = {kind: transfers[kind] for kind in ("reads", "copies", "waits")}
        model = real.eval()
        for name, num_beams in (("greedy", 1), ("beam", 3)):
            few, more = (count_search(model, num_beams=num_beams, num_tokens=n, planted=planted) for n in (4, 8))
            found[name] = {kind: (more[kind] - few[kind]) / 4 for kind in ("reads", "copies")}
    return found


def main() -> None:
    """Print what every family does in every precision, or where it fails."""
    fake_tensor.CONSTANT_NUMEL_LIMIT = 0
    planted = sys.argv[1] if len(sys.argv) > 1 else ""
    for family in FAMILIES[:1] if planted else FAMILIES:
        for dtype in PRECISIONS[:1] if planted else PRECISIONS:
            line: dict[str, Any] = {"family": family, "dtype": str(dtype).removeprefix("torch.")}
            try:
                line |= look(family, dtype, planted=planted)
            except Exception as error:
                frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PROJECT)]
                line["failed"] = f"{error}; at " + " ".join(f"{f.filename}:{f.lineno}" for f in frames[-1:])
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
