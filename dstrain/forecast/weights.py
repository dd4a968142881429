"""The parameters of a model by name, shape and part, without building it. Pure.

The names are those of `named_parameters` of transformers' classes, so that the patterns of `model.freeze` and the targets of an
adapter can be matched with them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dstrain.forecast.architecture import BART_LIKE, Architecture, Stack

Part = Literal["embedding", "positions", "encoder", "decoder", "head", "adapter", "other"]
"""Where a parameter belongs. A head that shares the embedding's weights has none of its own."""

PARTS: tuple[Part, ...] = ("embedding", "positions", "encoder", "decoder", "head", "adapter", "other")


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter."""

    name: str
    part: Part
    shape: tuple[int, ...]
    is_trained: bool = True

    @property
    def numel(self) -> int:
        """Its elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it is the matrix of a layer of encoder or decoder, which an adapter can stand beside."""
        return (
            len(self.shape) == 2 and self.part in ("encoder", "decoder") and "relative_attention_bias" not in self.name
        )


def list_weights(architecture: Architecture) -> tuple[Weight, ...]:
    """Every parameter of the model once, tied ones under their first name."""
    build = _t5_weights if architecture.is_like_t5 else _bart_weights
    return tuple(build(architecture))


def count_buffers(architecture: Architecture) -> int:
    """Elements that lie beside the parameters: tables of sines that are computed at the start, and the bias of the logits."""
    if architecture.is_like_t5:
        return 0
    layout = BART_LIKE[architecture.kind]
    sines = (
        0 if layout.num_sine_rows is None else 2 * (architecture.positions + layout.num_sine_rows) * architecture.hidden
    )
    return sines + (architecture.vocabulary if layout.has_logits_bias else 0)


def _bart_weights(architecture: Architecture) -> Iterator[Weight]:
    yield Weight("model.shared.weight", "embedding", (architecture.vocabulary, architecture.hidden))
    for side in ("encoder", "decoder"):
        yield from _bart_stack(architecture, side=side)
    yield from _head(architecture)


def _bart_stack(architecture: Architecture, *, side: str) -> Iterator[Weight]:
    hidden, layout = architecture.hidden, BART_LIKE[architecture.kind]
    part: Part = "encoder" if side == "encoder" else "decoder"
    stack: Stack = getattr(architecture, side)
    prefix = f"model.{side}"
    if layout.learned_offset is not None or layout.has_sine_tables:
        shape = (architecture.positions + (layout.learned_offset or 0), hidden)
        yield Weight(f"{prefix}.embed_positions.weight", "positions", shape, not layout.has_sine_tables)

    def norm(name: str) -> Iterator[Weight]:
        yield Weight(f"{prefix}.{name}.weight", part, (hidden,))
        yield Weight(f"{prefix}.{name}.bias", part, (hidden,))

    def linear(name: str, width: int, inputs: int) -> Iterator[Weight]:
        yield Weight(f"{prefix}.{name}.weight", part, (width, inputs))
        yield Weight(f"{prefix}.{name}.bias", part, (width,))

    for number in range(stack.num_layers):
        layer = f"layers.{number}"
        for attention in ("self_attn", "encoder_attn")[: 1 if side == "encoder" else 2]:
            for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
                yield from linear(f"{layer}.{attention}.{name}", hidden, hidden)
            yield from norm(f"{layer}.{attention}_layer_norm")
        yield from linear(f"{layer}.fc1", stack.feed_forward, hidden)
        yield from linear(f"{layer}.fc2", hidden, stack.feed_forward)
        yield from norm(f"{layer}.final_layer_norm")
    if layout.has_first_norm:
        yield from norm("layernorm_embedding")
    if layout.has_last_norm:
        yield from norm("layer_norm")


def _t5_weights(architecture: Architecture) -> Iterator[Weight]:
    yield Weight("shared.weight", "embedding", (architecture.vocabulary, architecture.hidden))
    for side in ("encoder", "decoder"):
        yield from _t5_stack(architecture, side=side)
    yield from _head(architecture)


def _t5_stack(architecture: Architecture, *, side: str) -> Iterator[Weight]:
    hidden = architecture.hidden
    part: Part = "encoder" if side == "encoder" else "decoder"
    stack: Stack = getattr(architecture, side)
    attentions = ("SelfAttention", "EncDecAttention")[: 1 if side == "encoder" else 2]
    for number in range(stack.num_layers):
        for place, attention in enumerate(attentions):
            layer = f"{side}.block.{number}.layer.{place}"
            for name in ("q", "k", "v"):
                yield Weight(f"{layer}.{attention}.{name}.weight", part, (stack.inner, hidden))
            yield Weight(f"{layer}.{attention}.o.weight", part, (hidden, stack.inner))
            # T5 and mT5 use the first layer's positions in all layers; umT5's layers have their own
            if place == 0 and (number == 0 or architecture.kind == "umt5"):
                shape = (architecture.num_buckets, stack.num_heads)
                yield Weight(f"{layer}.{attention}.relative_attention_bias.weight", "positions", shape)
            yield Weight(f"{layer}.layer_norm.weight", part, (hidden,))
        layer = f"{side}.block.{number}.layer.{len(attentions)}"
        for name in ("wi_0", "wi_1") if architecture.is_gated else ("wi",):
            yield Weight(f"{layer}.DenseReluDense.{name}.weight", part, (stack.feed_forward, hidden))
        yield Weight(f"{layer}.DenseReluDense.wo.weight", part, (hidden, stack.feed_forward))
        yield Weight(f"{layer}.layer_norm.weight", part, (hidden,))
    yield Weight(f"{side}.final_layer_norm.weight", part, (hidden,))


def _head(architecture: Architecture) -> Iterator[Weight]:
    if architecture.has_own_head:
        yield Weight("lm_head.weight", "head", (architecture.vocabulary, architecture.hidden))
