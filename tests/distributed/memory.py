"""Real models under a real engine, and the bytes of their live tensors by part, beside what is foretold."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dstrain.cluster.process_group import Ranks
from dstrain.config.recipe import Scratch
from dstrain.config.schema import RunConfig
from dstrain.data.collate import collate
from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position, StepPlan
from dstrain.forecast.architecture import Architecture, scratch_architecture
from dstrain.forecast.memory import ModelMemory, find_model_memory
from dstrain.forecast.plan import find_layout
from dstrain.forecast.trained import Rows, Trained, find_trained
from dstrain.forecast.weights import count_buffers, list_weights
from tests.distributed.steps import change

FAMILIES = ("m2m100", "mbart", "t5", "mt5")
VOCABULARY = 3000
PAD, EOS = 1, 2
SCRATCH = {
    "hidden_size": 96, "feed_forward_size": 256, "num_layers": 2, "num_heads": 4, "max_positions": 64,
    "vocabulary_size": VOCABULARY,
}  # fmt: skip


def build_config(family: str, **changes: Any) -> RunConfig:
    """A recipe of a small model whose embedding is larger than what ZeRO-3 keeps whole."""
    values: dict[str, Any] = {
        "name": "test",
        "model": {"scratch": {"architecture": family, **SCRATCH}, "dropout": 0.0},
        "task": {"kind": "text", "max_source_tokens": 64, "max_target_tokens": 64},
        "data": {"train": [{"path": "rows.tsv"}], "eval": [{"path": "rows.tsv"}]},
        "training": {"batch_size": 16, "max_steps": 8, "learning_rate": 1e-3},
    }
    return change(values, changes)


class Ids:
    """In place of a tokenizer that has been trained: the ids that a model's config names."""

    pad_token_id = PAD
    vocabulary_size = VOCABULARY

    class tokenizer:  # noqa: N801
        bos_token_id, eos_token_id = 0, EOS


def build_model(config: RunConfig) -> Any:
    """The scratch model of a recipe, with VOCABULARY token ids."""
    from dstrain.models.scratch import build_scratch_model

    assert config.model.scratch is not None
    ids: Any = Ids()
    return build_scratch_model(config.model.scratch, tokenizer=ids, seed=0, dropout=config.model.dropout)


def architecture_of(config: RunConfig) -> Architecture:
    scratch = config.model.scratch
    assert isinstance(scratch, Scratch)
    return scratch_architecture(scratch, vocabulary=VOCABULARY, dropout=config.model.dropout)


def trained_of(config: RunConfig) -> Trained:
    architecture = architecture_of(config)
    return find_trained(
        list_weights(architecture),
        model=config.model,
        kind=architecture.kind,
        rows=Rows(),
        num_buffers=count_buffers(architecture),
        compacts=False,
    )


def foretell(config: RunConfig, *, world_size: int) -> ModelMemory:
    """What the forecast says of this recipe's model."""
    trained, stage = trained_of(config), config.machine.zero_stage
    assert stage is not None
    return find_model_memory(
        trained, layout=find_layout(config, stage=stage, world_size=world_size, num_trained=trained.num_trained)
    )


def measure(ranks: Ranks, config: RunConfig) -> dict[str, int]:
    """Bytes of the live tensors of each part, the most of each over two steps of two micro-batches."""
    from dstrain.engine.build import build_engine
    from dstrain.models.loss import Seq2SeqLoss

    engine = build_engine(config, module=Seq2SeqLoss(build_model(config)), ranks=ranks, total_steps=8)
    meter = Meter(engine.wrapped)
    batch = _batch(start=None if config.model.scratch.architecture == "mbart" else EOS)  # type: ignore[union-attr]
    for step in (1, 2):
        engine.step(batch, step=step)
    meter.close()
    before = {each.untyped_storage().data_ptr() for each in find_parts(engine.wrapped)["weights"]}
    with engine.gathered():
        gathered = _bytes(_without([each.data for each in engine.module.parameters()], before))
    return meter.most | {"evaluation_gather": gathered}


def _batch(*, start: int | None) -> StepBatch:
    random = np.random.default_rng(0)
    rows = [np.append(random.integers(3, VOCABULARY, 7), EOS).astype(np.int32) for _ in range(4)]
    pieces = tuple(collate(rows, rows, pad_id=PAD, decoder_start_id=start, weight=1.0, index=index) for index in (0, 1))
    plan = StepPlan(Position(0, 0), Position(0, 1), np.arange(8), (np.arange(4), np.arange(4, 8)), 64)
    return StepBatch(plan, pieces, 64, 0, 0, 0)


class Meter:
    """Counts what lives when a gradient has just been made, after each backward pass and before each update."""

    def __init__(self, wrapped: Any) -> None:
        self.most: dict[str, int] = dict.fromkeys(("weights", "optimizer", "gradients", "buckets", "gather"), 0)
        self._wrapped = wrapped
        self._inside = set[int]()
        self._handles = [
            each.register_hook(self._look_with) for each in wrapped.module.parameters() if each.requires_grad
        ]
        self._handles += [module.register_forward_hook(lambda *_: self.look()) for module in wrapped.module.modules()]
        self._backward, self._step = wrapped.backward, wrapped.step
        wrapped.backward = self._after(self._backward)
        wrapped.step = self._before(self._step)
        self._flatten = wrapped.flatten
        wrapped.flatten = self._counted(self._flatten)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._wrapped.backward, self._wrapped.step, self._wrapped.flatten = self._backward, self._step, self._flatten

    def look(self, incoming: Tensor | None = None) -> None:
        """Count now, `incoming` as a gradient that has just been made."""
        parts = find_parts(self._wrapped)
        buckets = {each.untyped_storage().data_ptr() for each in parts["buckets"]}
        # what was a bucket lives on as the gradients that lie in it, and is no more memory for that
        self._inside = buckets or self._inside
        parts["gradients"] += [] if incoming is None else [incoming]
        parts["gradients"] = _without(parts["gradients"], self._inside)
        parts["gather"] = _without(parts["gather"], {each.untyped_storage().data_ptr() for each in parts["weights"]})
        for part, tensors in parts.items():
            self.most[part] = max(self.most[part], _bytes(tensors))

    def _look_with(self, gradient: Tensor) -> None:
        self.look(gradient)

    def _counted(self, flatten: Any) -> Any:
        def run(tensors: Any) -> Tensor:
            flat: Tensor = flatten(tensors)
            self.most["buckets"] = max(self.most["buckets"], _bytes([flat]))
            return flat

        return run

    def _after(self, call: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            self.look()
            return result

        return run

    def _before(self, call: Any) -> Any:
        def run(*arguments: Any, **options: Any) -> Any:
            self.look()
            return call(*arguments, **options)

        return run


def find_parts(wrapped: Any) -> dict[str, list[Tensor]]:
    """The live tensors of each part. Knows the private layout of DeepSpeed 0.19."""
    stage, optimizer = wrapped.zero_optimization_stage(), wrapped.optimizer
    parameters, buffers = list(wrapped.module.parameters()), list(wrapped.module.buffers())
    torch_optimizer = optimizer if stage == 0 else optimizer.optimizer
    state = [
        value
        for values in torch_optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor) and value.numel() > 1
    ]
    if stage == 3:
        shards = [parameter.ds_tensor for parameter in parameters]
        small = [parameter.data for parameter in parameters if parameter.ds_persist]
        weights = [*shards, *small, *buffers]
        masters = [] if shards[0].dtype == torch.float32 else list(optimizer.fp32_partitioned_groups_flat)
        gather = [parameter.data for parameter in parameters if not parameter.ds_persist and parameter.data.numel() > 1]
        buckets = [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
        gradients = [*_tensors(optimizer.grad_partitions_flat_buffer), *_gradients(parameters)]
        gradients += list(_tensors(optimizer.averaged_gradients))
    elif stage > 0:
        weights = [*(parameter.data for parameter in parameters), *optimizer.bit16_groups_flat, *buffers]
        masters, gather = list(optimizer.single_partition_of_fp32_groups), []
        buckets = [buffer for bucket in optimizer.ipg_buckets.values() for buffer in bucket.buffer]
        gradients = _gradients(parameters)
        gradients += _tensors([optimizer.averaged_gradients, optimizer.all_grad_tensors, optimizer.grads_in_partition])
    else:
        weights, masters, gather, buckets = [*(each.data for each in parameters), *buffers], [], [], []
        gradients = _gradients(parameters)
    return {
        "weights": weights,
        "optimizer": [*masters, *state],
        "gradients": gradients,
        "buckets": buckets,
        "gather": gather,
    }


def _without(tensors: Iterable[Tensor], storages: set[int]) -> list[Tensor]:
    return [each for each in tensors if each.untyped_storage().data_ptr() not in storages]


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    found = [each.grad for each in parameters] + [getattr(each, "grad_accum", None) for each in parameters]
    return [each for each in found if each is not None]


def _tensors(value: Any) -> list[Tensor]:
    return list(_walk(value))


def _walk(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _walk(each)
    elif isinstance(value, list | tuple):
        flat = getattr(value, "flat_partition", None)
        if isinstance(flat, Tensor):
            yield flat
        for each in value:
            yield from _walk(each)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors' memory, that of several views once."""
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())
