"""Bytes that autograd keeps between forward and backward pass of a micro-batch, those of the loss, and those of a search. Pure.

Each term names what saves it. The terms were found by listing the tensors that autograd saves in real models
(`torch.autograd.graph.saved_tensors_hooks`), and the tests count them again.
"""

from dataclasses import dataclass

from dstrain.forecast.architecture import BART_LIKE, Architecture, Stack
from dstrain.forecast.workload import Batch, Searches

FP32_BYTES = 4
ID_BYTES = 8
MAX_LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""As in `models/projection.py`: the number of logits in memory at a time."""

FIRST_ROOM = 16
"""As in `evaluation/decode.py`: tokens for which the search first reserves memory, doubled when they are written."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """How the device computes, as far as it decides what is saved."""

    device: str
    """`cpu` or `cuda`."""
    width: int
    """Bytes of an element in the recipe's precision."""

    @property
    def mask(self) -> int:
        """Bytes of an element of a dropout mask: a GPU keeps a boolean, a CPU the factors."""
        return 1 if self.device == "cuda" else self.width


@dataclass(frozen=True, slots=True)
class _Attention:
    """One attention of a layer."""

    rows: int
    queries: int
    keys: int
    stack: Stack
    has_bias: bool = False
    """Whether a bias is added to its scores, with a gradient: T5's relative positions."""
    has_mask: bool = False
    """Whether a mask of its own is made for every head and layer (T5)."""


def saved_bytes(architecture: Architecture, batch: Batch, *, kernels: Kernels, recomputes: bool = False) -> int:
    """What autograd keeps of a micro-batch when its forward pass through encoder and decoder has ended.

    With `recomputes` (`machine.activation_checkpointing`) it is the input of each layer, and one layer's own tensors while it is
    computed again. Where parts are frozen autograd keeps less; what is returned is then an upper bound.
    """
    layers = _t5_layers if architecture.is_like_t5 else _bart_layers
    encoder, decoder = layers(architecture, batch, kernels=kernels)
    if recomputes:
        return input_bytes(architecture, batch, kernels=kernels) + max(encoder, decoder)
    around = _around(architecture, batch, kernels=kernels)
    return around + architecture.encoder.num_layers * encoder + architecture.decoder.num_layers * decoder


def input_bytes(architecture: Architecture, batch: Batch, *, kernels: Kernels) -> int:
    """What is kept of a micro-batch whose layers are computed again: the input of each, and what lies outside of them."""
    source, target = batch.num_rows * batch.source, batch.num_rows * batch.target
    inputs = architecture.encoder.num_layers * source + architecture.decoder.num_layers * target
    return _around(architecture, batch, kernels=kernels) + kernels.width * architecture.hidden * inputs


def _around(architecture: Architecture, batch: Batch, *, kernels: Kernels) -> int:
    """Outside of layers: ids, dropout of embeddings, normalisation before and behind the layers, the encoder's output."""
    positions = batch.num_rows * (batch.source + batch.target)
    drops = kernels.mask if architecture.dropout else 0
    if architecture.is_like_t5:
        # dropout of embeddings and of both outputs; a normalisation behind the layers of each side
        norm = _t5_norm(kernels.width)
        encoded = batch.num_rows * batch.source * architecture.hidden * kernels.width
        return positions * (ID_BYTES + architecture.hidden * (2 * drops + norm)) + encoded
    layout = BART_LIKE[architecture.kind]
    norms = int(layout.has_first_norm) + int(layout.has_last_norm)
    source = batch.num_rows * batch.source
    # the encoder's output, which every layer of the decoder reads, counts once; positions are looked up by ids
    learned = ID_BYTES if layout.learned_offset is not None else 0
    return (
        positions
        * (ID_BYTES + learned + architecture.hidden * (drops + norms * kernels.width) + norms * 2 * FP32_BYTES)
        + source * architecture.hidden * kernels.width
    )


def _bart_layers(architecture: Architecture, batch: Batch, *, kernels: Kernels) -> tuple[int, int]:
    rows, hidden, width = batch.num_rows, architecture.hidden, kernels.width
    drops = kernels.mask if architecture.dropout else 0

    def layer(positions: int, *, stack: Stack, attentions: list[_Attention]) -> int:
        num = len(attentions)
        # per attention: what its normalisation reads and writes; the same for the feed-forward layers
        hiddens = positions * hidden * width * 2 * (num + 1)
        dropped = positions * hidden * drops * (num + 1)
        statistics = positions * 2 * FP32_BYTES * (num + 1)
        inside = positions * stack.feed_forward * _bart_inside(architecture, kernels=kernels)
        attended = sum(_attention_bytes(each, architecture=architecture, kernels=kernels) for each in attentions)
        return hiddens + dropped + statistics + inside + attended

    encoder, decoder = architecture.encoder, architecture.decoder
    own = _Attention(rows, batch.source, batch.source, encoder)
    causal = _Attention(rows, batch.target, batch.target, decoder)
    cross = _Attention(rows, batch.target, batch.source, decoder)
    return (
        layer(rows * batch.source, stack=encoder, attentions=[own]),
        layer(rows * batch.target, stack=decoder, attentions=[causal, cross]),
    )


def _bart_inside(architecture: Architecture, *, kernels: Kernels) -> int:
    """Bytes for each element between the feed-forward matrices: what activation, dropout and the second matrix save."""
    # relu saves its result, which the second matrix reads; others save their input, and the second matrix theirs
    read = 0 if architecture.activation == "relu" else kernels.width
    dropped = kernels.width + kernels.mask if architecture.activation_dropout else read
    return kernels.width + dropped


def _t5_layers(architecture: Architecture, batch: Batch, *, kernels: Kernels) -> tuple[int, int]:
    rows, hidden = batch.num_rows, architecture.hidden
    drops = kernels.mask if architecture.dropout else 0

    def layer(positions: int, *, stack: Stack, attentions: list[_Attention]) -> int:
        num = len(attentions)
        # a normalisation before each part, what it gives to the part, and dropout behind it
        hiddens = positions * hidden * (num + 1) * (_t5_norm(kernels.width) + kernels.width + drops)
        inside = positions * stack.feed_forward * _t5_inside(architecture, kernels=kernels)
        attended = sum(_attention_bytes(each, architecture=architecture, kernels=kernels) for each in attentions)
        return hiddens + inside + attended

    encoder, decoder = architecture.encoder, architecture.decoder
    own = _Attention(rows, batch.source, batch.source, encoder, has_bias=True, has_mask=True)
    causal = _Attention(rows, batch.target, batch.target, decoder, has_bias=True)
    cross = _Attention(rows, batch.target, batch.source, decoder, has_mask=True)
    return (
        layer(rows * batch.source, stack=encoder, attentions=[own]),
        layer(rows * batch.target, stack=decoder, attentions=[causal, cross]),
    )


def _t5_norm(width: int) -> int:
    """Bytes for each element of a normalisation without its output: its input and the normalised input; in 16 bits besides
    the input in fp32."""
    return 2 * width + (0 if width == FP32_BYTES else FP32_BYTES)


def _t5_inside(architecture: Architecture, *, kernels: Kernels) -> int:
    dropped = kernels.width + kernels.mask if architecture.dropout else 0
    if not architecture.is_gated:
        return kernels.width + dropped
    # the approximated gelu keeps its input, half of it, the tanh and 1 + tanh; the gate both factors; the last matrix its input
    activation = 4 if architecture.activation == "gelu_new" else 1
    return kernels.width * (activation + 2) + (dropped or kernels.width)


def _attention_bytes(attention: _Attention, *, architecture: Architecture, kernels: Kernels) -> int:
    """Queries, keys, values and output; a fused kernel keeps a sum for each query, others the weights of all keys."""
    rows, stack, width = attention.rows, attention.stack, kernels.width
    read, output = rows * stack.inner * (attention.queries + 2 * attention.keys), rows * stack.inner * attention.queries
    scores = rows * stack.num_heads * attention.queries * attention.keys
    if kernels.device == "cuda" or not (attention.has_bias or architecture.attention_dropout):
        sums = rows * stack.num_heads * attention.queries * FP32_BYTES
        mask = scores * width if attention.has_mask else scores // rows * width if attention.has_bias else 0
        return (read + output) * width + sums + mask
    # on a CPU in fp32 whatever the precision: the weights, and with dropout its factors and their product
    dropped = 2 if architecture.attention_dropout else 0
    return FP32_BYTES * (read + scores * (1 + dropped)) + output * width


def logits_bytes(architecture: Architecture, *, labels: int, kernels: Kernels, trains_head: bool = True) -> int:
    """The loss of a micro-batch: a chunk of logits, and the gradients of states and head that it is computed with."""
    vocabulary, hidden = architecture.vocabulary, architecture.hidden
    num_chunks = max(1, -(-labels * vocabulary // MAX_LOGITS[kernels.device]))
    chunk = max(1, -(-labels // num_chunks)) * vocabulary
    gradients = FP32_BYTES * hidden * (labels + (vocabulary if trains_head else 0))
    is_16_bit = kernels.width < FP32_BYTES
    # the gradient of a chunk in 16 bits; on a CPU the head and the states in fp32 instead of products in 16 bits
    casts = 0
    if is_16_bit:
        casts = kernels.width * chunk if kernels.device == "cuda" else FP32_BYTES * hidden * (labels + vocabulary)
    return FP32_BYTES * chunk + gradients + casts


def search_bytes(architecture: Architecture, searches: Searches, *, num_beams: int, width: int) -> int:
    """Caches and logits of the largest evaluation batch when its hypotheses are as long as they may be."""
    batch, decoder = searches.largest, architecture.decoder
    hypotheses = batch.num_rows * num_beams
    room = FIRST_ROOM
    while room < searches.cap:
        room *= 2
    # keys and values: of what each hypothesis has written, in one layer more when beams change their order; of each source
    written = 2 * decoder.inner * room * hypotheses * (decoder.num_layers + 1)
    read = 2 * decoder.inner * batch.source * batch.num_rows * decoder.num_layers
    # logits as the head gives them and in fp32; beams need their probabilities besides
    copies = FP32_BYTES * (2 if num_beams > 1 else 1) + (width if width < FP32_BYTES else 0)
    return width * (written + read) + copies * hypotheses * architecture.vocabulary
