"""The self-test of an architecture that is in no table: our loss and gradient against the stock model's, on two rows.

A small model of the same class and config is enough, since what may differ is what the class computes. Knows nothing of runs.
"""

import copy
import logging
import math

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel

from dstrain.errors import UserError
from dstrain.models.families import all_configs, decoder_start_id, is_experiment, output_head
from dstrain.models.loss import Seq2SeqLoss

RTOL = 1e-5
NUM_LAYERS = 2
"""Layers of encoder and decoder in the test, where the config counts them."""
LAYER_FIELDS = (
    "num_layers",
    "num_hidden_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)
LENGTHS = ((9, 6), (5, 4))
"""Tokens of source and target of each row."""
LOGIT_STD = 4.0
"""Standard deviation of the logits, about that of a trained model: a cap would hardly change smaller ones."""

log = logging.getLogger(__name__)


def check_experiment(model_config: PreTrainedConfig, *, device: torch.device) -> None:
    """Check an architecture of no known family on this device in fp32; does nothing for one of a family.

    Raises:
        UserError: the loss or the gradient norm differs from the stock model's, or cannot be computed.
    """
    if not is_experiment(model_config):
        return
    kind = model_config.model_type
    try:
        model = _small_model(model_config, device=device)
        _check_head(model)
        (stock, stock_norm), (ours, our_norm) = _measure(model)
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"model.name: architecture `{kind}` is of no supported family, and the self-test cannot compute its loss "
            f"({type(error).__name__}: {reason[0][:200]}): use a model of another architecture"
        ) from error
    finally:
        model = None
    said = f"loss {ours:.7g} (stock {stock:.7g}), gradient norm {our_norm:.7g} (stock {stock_norm:.7g})"
    if not (math.isclose(ours, stock, rel_tol=RTOL) and math.isclose(our_norm, stock_norm, rel_tol=RTOL)):
        raise UserError(
            f"model.name: architecture `{kind}` is of no supported family, and fails the self-test: {said}. It would be "
            "trained with another loss than its own: use a model of another architecture"
        )
    log.info("architecture `%s` is experimental: self-test passed, %s", kind, said)


def _small_model(model_config: PreTrainedConfig, *, device: torch.device) -> PreTrainedModel:
    """A model of the config's class with few layers; no parameter and no zero buffer is left at a value that hides its use."""
    config = copy.deepcopy(model_config)
    for part in all_configs(config):
        for field in LAYER_FIELDS:
            count = getattr(part, field, None)
            if isinstance(count, int) and count > NUM_LAYERS:
                setattr(part, field, NUM_LAYERS)
        if getattr(part, "layer_types", None) is not None:
            part.layer_types = part.layer_types[-NUM_LAYERS:]
        part._attn_implementation = part._experts_implementation = None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for buffer in model.buffers():
            if buffer.is_floating_point() and not buffer.any():
                buffer.normal_()
    return model.to(device).eval()


def _check_head(model: PreTrainedModel) -> None:
    if getattr(output_head(model), "bias", None) is not None:
        raise UserError(
            f"model.name: architecture `{model.config.model_type}` has an output head with a bias, which is not supported: "
            "use a model of another architecture"
        )


def _measure(model: PreTrainedModel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Loss per token and gradient norm: (of the stock model, ours)."""
    start = decoder_start_id(model)
    source_ids, source_mask, decoder_ids, labels = _rows(model, start=start)
    _raise_logits(model, source_ids=source_ids, source_mask=source_mask, decoder_ids=decoder_ids)
    loss = model(input_ids=source_ids, attention_mask=source_mask, labels=labels).loss
    stock = _differentiate(model, loss)
    summed = Seq2SeqLoss(model).eval()(source_ids, source_mask, decoder_ids, labels)
    return stock, _differentiate(model, summed / sum(target for _, target in LENGTHS))


def _rows(model: PreTrainedModel, *, start: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    config, device = model.config, model.device
    num_ids = model.get_input_embeddings().weight.shape[0]
    names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
    given = [getattr(part, name, None) for part in all_configs(config) for name in names]
    special = {each for value in given for each in (value if isinstance(value, list) else [value])}
    ordinary = torch.tensor([i for i in range(num_ids) if i not in special])
    generator = torch.Generator().manual_seed(0)
    pad = next((value for value in given[::4] if isinstance(value, int)), 0)
    (width, length), num_rows = map(max, zip(*LENGTHS, strict=True)), len(LENGTHS)
    source_ids = torch.full((num_rows, width), pad)
    decoder_ids = torch.full((num_rows, length), pad)
    source_mask, labels = torch.zeros_like(source_ids), torch.full((num_rows, length), -100)
    for row, (num_source, num_target) in enumerate(LENGTHS):
        drawn = ordinary[torch.randint(len(ordinary), (num_source + num_target,), generator=generator)]
        source_ids[row, :num_source], labels[row, :num_target] = drawn[:num_source], drawn[num_source:]
        source_mask[row, :num_source] = 1
        decoder_ids[row, 0] = drawn[-1] if start is None else start
        decoder_ids[row, 1:num_target] = drawn[num_source:-1]
    return source_ids.to(device), source_mask.to(device), decoder_ids.to(device), labels.to(device)


@torch.no_grad()
def _raise_logits(model: PreTrainedModel, *, source_ids: Tensor, source_mask: Tensor, decoder_ids: Tensor) -> None:
    """Scale the head, in place, until the logits are as large as those of a trained model."""
    weight = output_head(model).weight
    assert isinstance(weight, Tensor)
    for _ in range(2):  # a tied head changes the embeddings too
        logits = model(input_ids=source_ids, attention_mask=source_mask, decoder_input_ids=decoder_ids).logits
        weight.mul_(LOGIT_STD / logits.std().clamp_min(1e-3))


def _differentiate(model: PreTrainedModel, loss: Tensor) -> tuple[float, float]:
    """The loss and the norm of its gradient over all parameters."""
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    squares = [parameter.grad.double().square().sum() for parameter in model.parameters() if parameter.grad is not None]
    return float(loss.detach()), math.sqrt(float(sum(squares)))
