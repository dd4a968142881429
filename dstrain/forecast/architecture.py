"""The sizes of a model: from a recipe's `model.scratch`, or from the config.json of a known family. Pure; reads no files.

The names are those of Hugging Face configs, which differ between families. Knows nothing of steps and of machines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dstrain.config.recipe import Scratch


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of one side."""

    num_layers: int
    num_heads: int
    inner: int
    """Width of queries, keys and values: heads × width of a head."""
    feed_forward: int


@dataclass(frozen=True, slots=True)
class Layout:
    """In what the parameters of a family like BART differ from others."""

    learned_offset: int | None = None
    """Rows of each learned table of positions beyond the model's positions; None where positions are not learned."""
    has_sine_tables: bool = False
    """Whether sines are stored as parameters that are not trained."""
    num_sine_rows: int | None = None
    """Rows beyond the model's positions of each table of sines that is computed at the start, a buffer; None without one."""
    has_first_norm: bool = False
    """Whether the embeddings are normalised."""
    has_last_norm: bool = False
    """Whether the last layer's output is normalised."""
    has_logits_bias: bool = False
    """Whether a bias of the logits is stored, as a buffer."""


BART_LIKE: Mapping[str, Layout] = {
    "m2m_100": Layout(num_sine_rows=2, has_last_norm=True),
    "mbart": Layout(learned_offset=2, has_first_norm=True, has_last_norm=True, has_logits_bias=True),
    "marian": Layout(has_sine_tables=True, has_logits_bias=True),
    "bart": Layout(learned_offset=2, has_first_norm=True, has_logits_bias=True),
    "plbart": Layout(learned_offset=2, has_first_norm=True, has_logits_bias=True),
    "pegasus": Layout(has_sine_tables=True, has_last_norm=True, has_logits_bias=True),
    "blenderbot": Layout(learned_offset=0, has_last_norm=True, has_logits_bias=True),
}
"""`model_type` to its layout: pairs of attention and feed-forward layers with biases, as BART has them."""

T5_LIKE = ("t5", "mt5", "umt5")
"""`model_type` of the families with relative positions and without biases; ByT5 is of the type T5."""

SCRATCH_KINDS = {"m2m100": "m2m_100", "nllb": "m2m_100"}
"""A recipe's architecture to its `model_type`, where the names differ."""

T5_BUCKETS = 32


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes that decide how many parameters a model has, and how many bytes and operations a step takes."""

    kind: str
    """The `model_type` of its Hugging Face config."""
    hidden: int
    encoder: Stack
    decoder: Stack
    vocabulary: int
    """Rows of the embedding."""
    positions: int = 0
    """Longest sequence in tokens; 0 where there is no limit."""
    num_buckets: int = 0
    """Rows of a table of relative positions."""
    is_gated: bool = False
    """Whether the feed-forward layers have a gate, a third matrix."""
    activation: str = "relu"
    has_own_head: bool = False
    """Whether the head has weights of its own instead of sharing those of the embedding."""
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    @property
    def is_like_t5(self) -> bool:
        return self.kind in T5_LIKE

    @property
    def num_layers(self) -> int:
        """Layers of both sides."""
        return self.encoder.num_layers + self.decoder.num_layers


def scratch_architecture(scratch: Scratch, *, vocabulary: int, dropout: float | None = None) -> Architecture:
    """The model that `build_scratch_model` makes, with as many token ids. Dropout None is the family's default."""
    kind = SCRATCH_KINDS.get(scratch.architecture, scratch.architecture)
    stack = Stack(scratch.num_layers, scratch.num_heads, scratch.hidden_size, scratch.feed_forward_size)
    common: dict[str, Any] = {
        "hidden": scratch.hidden_size,
        "encoder": stack,
        "decoder": stack,
        "vocabulary": vocabulary,
    }
    drops = SCRATCH_DROPOUT[kind] if dropout is None else (dropout,) * 3
    common |= dict(zip(("dropout", "attention_dropout", "activation_dropout"), drops, strict=True))
    if kind in T5_LIKE:
        is_gated = kind == "mt5"
        activation = "gelu_new" if is_gated else "relu"
        return Architecture(kind, num_buckets=T5_BUCKETS, is_gated=is_gated, activation=activation, **common)
    activation = {"m2m_100": "relu", "marian": "swish"}.get(kind, "gelu")
    return Architecture(kind, positions=scratch.max_positions, activation=activation, **common)


SCRATCH_DROPOUT = {
    "m2m_100": (0.1, 0.1, 0.0),
    "mbart": (0.1, 0.0, 0.0),
    "marian": (0.1, 0.0, 0.0),
    "t5": (0.1, 0.1, 0.1),
    "mt5": (0.1, 0.1, 0.1),
}
"""`model_type` to dropout of hidden states, attention and feed-forward layers by default, in transformers' configs."""


def read_architecture(
    config: Mapping[str, Any], *, has_own_head: bool | None = None, dropout: float | None = None
) -> Architecture | None:
    """The architecture of a config.json; None for a family that this room does not know, and where sizes are missing.

    `has_own_head` is what the files of the weights show; without them the config decides.
    """
    kind = config.get("model_type")
    try:
        if kind in BART_LIKE:
            found = _read_bart(str(kind), config)
        elif kind in T5_LIKE:
            found = _read_t5(str(kind), config)
        else:
            return None
    except (KeyError, TypeError, ValueError):
        return None
    is_own = not config.get("tie_word_embeddings", True) if has_own_head is None else has_own_head
    drops = found["drops"] if dropout is None else (dropout,) * 3
    names = ("dropout", "attention_dropout", "activation_dropout")
    values = {key: value for key, value in found.items() if key != "drops"}
    values |= dict(zip(names, map(float, drops), strict=True))
    return Architecture(str(kind), has_own_head=is_own, **values)


def _read_bart(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    hidden = int(config["d_model"])
    stacks = {
        side: Stack(
            int(config[f"{side}_layers"]),
            int(config[f"{side}_attention_heads"]),
            hidden,
            int(config[f"{side}_ffn_dim"]),
        )
        for side in ("encoder", "decoder")
    }
    return {
        "hidden": hidden,
        **stacks,
        "vocabulary": int(config["vocab_size"]),
        "positions": int(config["max_position_embeddings"]),
        "activation": str(config.get("activation_function", "relu" if kind == "m2m_100" else "gelu")),
        "drops": [config.get(key, 0.0) for key in ("dropout", "attention_dropout", "activation_dropout")],
    }


def _read_t5(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    heads, layers = int(config["num_heads"]), int(config["num_layers"])
    inner, feed_forward = heads * int(config["d_kv"]), int(config["d_ff"])
    gate, _, activation = str(config.get("feed_forward_proj", "relu")).rpartition("-")
    decoder_layers = config.get("num_decoder_layers")
    drop = config.get("dropout_rate", 0.1)
    return {
        "hidden": int(config["d_model"]),
        "encoder": Stack(layers, heads, inner, feed_forward),
        "decoder": Stack(layers if decoder_layers is None else int(decoder_layers), heads, inner, feed_forward),
        "vocabulary": int(config["vocab_size"]),
        "num_buckets": int(config.get("relative_attention_num_buckets", T5_BUCKETS)),
        "is_gated": bool(gate),
        # transformers reads `gated-gelu` as the approximated gelu
        "activation": "gelu_new" if (gate, activation) == ("gated", "gelu") else activation,
        "drops": (drop, drop, drop),
    }
