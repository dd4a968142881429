"""The training loss: vocabulary projection and cross-entropy at the target positions that are not padding.

The loss is a sum, so that the caller can divide once by the optimizer step's target tokens over all ranks. Knows nothing of
steps.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.models.families import (
    encoder_arguments,
    hidden_scale,
    is_experiment,
    logit_cap,
    masks_itself,
    output_head,
)
from dstrain.models.projection import projected_cross_entropy


class Seq2SeqLoss(nn.Module):
    """Sum of token cross-entropies of an encoder-decoder model: `model(...).loss * num_tokens` in value and gradient.

    Parameter names begin with `model.`. Weights are used only inside the modules that own them, so that ZeRO-3's hooks
    gather them. max_logits bounds the logits in memory at a time; None is the device's default (`projection.MAX_LOGITS`).
    """

    def __init__(self, model: PreTrainedModel, *, label_smoothing: float = 0.0, max_logits: int | None = None) -> None:
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
        """The sum over labels that are not -100, an fp32 scalar.

        source_ids, source_mask: `[batch, source]`; decoder_ids, labels: `[batch, target]`. num_positions is the number of
        such labels, if the caller knows it on the host: it saves a GPU synchronisation. Label smoothing applies in training
        mode only, and is spread evenly over the whole vocabulary, the right token included, as in
        `torch.nn.functional.cross_entropy`.
        """
        hidden = decoder_states(self.model, source_ids=source_ids, source_mask=source_mask, decoder_ids=decoder_ids)
        real = (labels != -100).flatten()
        if num_positions is None:
            num_positions = int(real.sum())
        positions = torch.argsort(real, descending=True, stable=True)[:num_positions]
        result: Tensor = self.projection(hidden.flatten(0, 1)[positions], labels.flatten()[positions])
        return result


class ProjectionLoss(nn.Module):
    """The cross-entropy of the head's logits.

    Under ZeRO-3 this class must be marked as a leaf module. The head's weight is then gathered around this module, which
    reads it without calling the head's `forward`.
    """

    def __init__(self, model: PreTrainedModel, *, label_smoothing: float, max_logits: int | None) -> None:
        super().__init__()
        self.head = output_head(model)
        assert getattr(self.head, "bias", None) is None  # the families' biases are buffers of the model
        self.label_smoothing = label_smoothing
        self.max_logits = max_logits
        self.scale = hidden_scale(model)
        self.cap = logit_cap(model)
        bias = getattr(model, "final_logits_bias", None)
        self.bias: Tensor | None
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """The fp32 sum of cross-entropies. hidden: `[positions, hidden]`; labels: `[positions]`, all real."""
        weight = self.head.weight
        assert isinstance(weight, Tensor)
        return projected_cross_entropy(
            hidden if self.scale == 1.0 else hidden * self.scale,
            weight,
            labels,
            bias=self.bias,
            cap=self.cap,
            label_smoothing=self.label_smoothing if self.training else 0.0,
            max_logits=self.max_logits,
        )


def decoder_states(model: PreTrainedModel, *, source_ids: Tensor, source_mask: Tensor, decoder_ids: Tensor) -> Tensor:
    """The decoder's last hidden states `[batch, target, hidden]`, as the stock model computes them before its head."""
    mask, causal_mask = attention_masks(model, source_mask=source_mask, decoder_ids=decoder_ids)
    encoded = model.get_encoder()(
        input_ids=source_ids, attention_mask=mask, **encoder_arguments(model, source_ids=source_ids)
    ).last_hidden_state
    decoded = model.get_decoder()(
        input_ids=decoder_ids,
        attention_mask=causal_mask,
        encoder_hidden_states=encoded,
        encoder_attention_mask=mask,
        use_cache=False,
    )
    states: Tensor = decoded.last_hidden_state
    return states


def attention_masks(
    model: PreTrainedModel, *, source_mask: Tensor, decoder_ids: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The masks of (encoder and cross-attention, decoder); None for the causal one that the decoder makes.

    For SDPA they are boolean, `[batch, 1, 1, source]` and `[1, 1, target, target]`: given a mask `[batch, source]`,
    transformers would check whether it masks anything (masking_utils.py), which synchronises with the GPU. An experiment
    gets the masks that its stock model gets.
    """
    if model.config._attn_implementation != "sdpa" or is_experiment(model.config):
        return source_mask, None
    if masks_itself(model):
        return source_mask.bool()[:, None, None, :], None
    length = decoder_ids.shape[1]
    causal_mask = torch.ones(length, length, dtype=torch.bool, device=decoder_ids.device).tril()
    return source_mask.bool()[:, None, None, :], causal_mask[None, None]
