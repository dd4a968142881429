"""The training loss: vocabulary projection and cross-entropy on real target positions. Knows nothing of steps.

The loss is a sum, so that whoever knows the optimizer step's tokens over all ranks can divide by them once.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from dstrain.models.families import hidden_scale, output_head

MAX_LOGITS = 2**26
"""Elements of logits alive at a time: 256 MB in fp32, and as much again for their gradient."""


class Seq2SeqLoss(nn.Module):
    """Sum of token cross-entropies of an encoder-decoder model: `model(...).loss * num_tokens` in value and gradient.

    Parameter names begin with `model.`. Weights are reached through called modules only, so that hooks which gather
    sharded weights fire.
    """

    def __init__(self, model: PreTrainedModel, *, label_smoothing: float = 0.0, max_logits: int = MAX_LOGITS) -> None:
        super().__init__()
        self.model = model
        self.projection = ProjectionLoss(model, label_smoothing=label_smoothing, max_logits=max_logits)

    def forward(
        self,
        source_ids: Tensor,
        source_mask: Tensor,
        decoder_ids: Tensor,
        labels: Tensor,
        num_positions: int | None = None,
    ) -> Tensor:
        """The fp32 sum over labels that are not -100, a scalar.

        source_ids, source_mask: `[batch, source]`; decoder_ids, labels: `[batch, target]`. num_positions is the number
        of real labels where the caller knows it on the host: it saves a GPU synchronisation. Label smoothing applies in
        training mode only, and spreads its mass evenly over the whole vocabulary, the right token included, as
        `torch.nn.functional.cross_entropy` does.
        """
        hidden = decoder_states(self.model, source_ids=source_ids, source_mask=source_mask, decoder_ids=decoder_ids)
        real = (labels != -100).flatten()
        if num_positions is None:
            num_positions = int(real.sum())
        positions = torch.argsort(real, descending=True, stable=True)[:num_positions]
        result: Tensor = self.projection(hidden.flatten(0, 1)[positions], labels.flatten()[positions])
        return result


class ProjectionLoss(nn.Module):
    """Logits and their cross-entropy, in chunks that bound memory: the backward pass computes a chunk's logits again.

    The number of chunks follows from the batch, so it differs between ranks. Under ZeRO-3 this class must be marked as
    a leaf module: the head's weights are then gathered once for all chunks, equally often on every rank.
    """

    def __init__(self, model: PreTrainedModel, *, label_smoothing: float, max_logits: int) -> None:
        super().__init__()
        self.head = output_head(model)
        self.label_smoothing = label_smoothing
        self.max_logits = max_logits
        self.vocabulary_size: int = model.config.vocab_size
        self.scale = hidden_scale(model)
        bias = getattr(model, "final_logits_bias", None)
        self.bias: Tensor | None
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The fp32 sum of cross-entropies. hidden: `[positions, hidden]`; labels: `[positions]`, all real."""
        num_chunks = max(1, math.ceil(hidden.shape[0] * self.vocabulary_size / self.max_logits))
        if num_chunks == 1:
            return self._chunk_loss(hidden, labels)
        total = hidden.new_zeros((), dtype=torch.float32)
        for states, targets in zip(hidden.chunk(num_chunks), labels.chunk(num_chunks), strict=True):
            total = total + checkpoint(self._chunk_loss, states, targets, use_reentrant=False, preserve_rng_state=False)
        return total

    def _chunk_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        states = hidden if self.scale == 1.0 else hidden * self.scale
        # Not through __call__: the head's own ZeRO-3 hooks would count a call a chunk, and ranks disagree on chunks.
        # This module's hooks have gathered the weights.
        logits: Tensor = self.head.forward(states)
        if self.bias is not None:
            logits = logits + self.bias
        smoothing = self.label_smoothing if self.training else 0.0
        # fp32, because a sum of exponentials over a whole vocabulary loses too much in 16 bits.
        return functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)


def decoder_states(model: PreTrainedModel, *, source_ids: Tensor, source_mask: Tensor, decoder_ids: Tensor) -> Tensor:
    """The decoder's last hidden states `[batch, target, hidden]`, as the stock model computes them before its head."""
    if model.config.model_type in ("t5", "mt5"):
        encoded = model.encoder(input_ids=source_ids, attention_mask=source_mask).last_hidden_state
        decoded = model.decoder(
            input_ids=decoder_ids, encoder_hidden_states=encoded, encoder_attention_mask=source_mask, use_cache=False
        )
    else:
        decoded = model.model(
            input_ids=source_ids, attention_mask=source_mask, decoder_input_ids=decoder_ids, use_cache=False
        )
    states: Tensor = decoded.last_hidden_state
    return states
