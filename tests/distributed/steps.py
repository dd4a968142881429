"""Small real models and steps for the tests of engine and checkpoint, and a plain PyTorch loop to compare them with."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
)

from dstrain.config.schema import RunConfig
from dstrain.data.collate import collate
from dstrain.data.loader import StepBatch
from dstrain.data.plan import FILLER, Position, StepPlan, deal
from dstrain.engine.engine import micro_batch_seed
from dstrain.engine.schedule import learning_rate_at
from dstrain.models.loss import Seq2SeqLoss

VOCABULARY = 96
PAD, EOS = 1, 2
TOTAL_STEPS = 12


def build_config(**changes: Any) -> RunConfig:
    """A configuration with the given dotted changes, `training__learning_rate=1e-3` for training.learning_rate."""
    values: dict[str, Any] = {
        "name": "test",
        "model": {"scratch": {"architecture": "m2m100"}},
        "task": {"kind": "translation", "source_language": "ko", "target_language": "en"},
        "data": {"train": [{"demo": "translation"}], "eval": [{"demo": "translation", "split": "eval"}]},
        "training": {"batch_size": 16, "max_steps": TOTAL_STEPS, "learning_rate": 1e-3, "warmup_steps": 2},
    }
    return change(values, changes)


def change(values: dict[str, Any], changes: dict[str, Any]) -> RunConfig:
    """The configuration of `values` with changes, `training__learning_rate` for training.learning_rate."""
    for dotted, value in changes.items():
        *path, key = dotted.split("__")
        section = values
        for part in path:
            section = section.setdefault(part, {})
        section[key] = value
    return RunConfig.model_validate(values)


def build_model(kind: str, *, dropout: float, num_layers: int = 2) -> PreTrainedModel:
    """A random model with as many layers on each side, the same on every call."""
    torch.manual_seed(0)
    if kind == "mt5":
        return MT5ForConditionalGeneration(
            MT5Config(
                vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=64, num_layers=num_layers, num_heads=4,
                dropout_rate=dropout, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
            )
        )  # fmt: skip
    return M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=VOCABULARY, d_model=32, encoder_layers=num_layers, decoder_layers=num_layers,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
            max_position_embeddings=64, dropout=dropout, attention_dropout=0.0, activation_dropout=0.0,
            encoder_layerdrop=0.0, decoder_layerdrop=0.0,
            pad_token_id=PAD, eos_token_id=EOS, bos_token_id=0, decoder_start_token_id=EOS,
        )
    )  # fmt: skip


def build_rows(*, num_rows: int = 16, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of random token ids of very different lengths."""
    random = np.random.default_rng(seed)

    def ids(longest: int) -> np.ndarray:
        return np.append(random.integers(3, VOCABULARY, random.integers(1, longest)), EOS).astype(np.int32)

    return [(ids(14), ids(20)) for _ in range(num_rows)]


def build_batch(
    rows: Sequence[tuple[np.ndarray, np.ndarray]], *, sizes: Sequence[int], rank: int, world_size: int, start: int = EOS
) -> StepBatch:
    """One step of these rows, cut into micro-batches of the given sizes and dealt to a rank."""
    bounds = np.cumsum([0, *sizes])
    parts = [np.arange(low, high) for low, high in pairwise(bounds)]
    num_tokens = sum(len(target) for _, target in rows)
    mine = deal(list(sizes), world_size=world_size)[rank]

    def micro_batch(index: int) -> Any:
        number = len(parts) - 1 if index == FILLER else index
        chosen = parts[number][-1:] if index == FILLER else parts[number]
        sources, targets = [rows[i][0] for i in chosen], [rows[i][1] for i in chosen]
        weight = 0.0 if index == FILLER else 1.0
        return collate(sources, targets, pad_id=PAD, decoder_start_id=start, weight=weight, index=number, rows=chosen)

    plan = StepPlan(Position(0, 0), Position(0, 1), np.arange(len(rows)), tuple(parts), num_tokens)
    return StepBatch(
        plan=plan,
        micro_batches=tuple(map(micro_batch, mine)),
        target_tokens=num_tokens,
        source_tokens=0,
        padded_source_tokens=0,
        padded_target_tokens=0,
    )


def plain_loop(
    model: PreTrainedModel, *, rows: Sequence[Any], sizes: Sequence[int], config: RunConfig, steps: int, start: int
) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses per token, gradient norms and parameters of ordinary PyTorch: the stock model's own loss, torch's AdamW.

    Dropout draws from the same seeds a micro-batch, so that even its results must agree.
    """
    settings = config.training
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.0, betas=settings.betas, eps=settings.epsilon, weight_decay=0.0
    )
    losses, norms = [], []
    batch = build_batch(rows, sizes=sizes, rank=0, world_size=1, start=start)
    model.train()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        total = 0.0
        for part in batch.micro_batches:
            torch.manual_seed(micro_batch_seed(config.seed, step=step, index=part.index))
            output = model(
                input_ids=part.source_ids,
                attention_mask=part.source_mask,
                decoder_input_ids=part.decoder_ids,
                labels=part.labels,
                use_cache=False,
            )
            loss = output.loss * int((part.labels != -100).sum())
            (loss / batch.target_tokens).backward()
            total += float(loss.detach())
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or float("inf"))))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, training=settings, total_steps=TOTAL_STEPS)
        optimizer.step()
        losses.append(total / batch.target_tokens)
    return losses, norms, {name: value.detach().clone() for name, value in model.named_parameters()}


def build_loss(kind: str, *, dropout: float, num_layers: int = 2) -> Seq2SeqLoss:
    """The loss module around `build_model`."""
    return Seq2SeqLoss(build_model(kind, dropout=dropout, num_layers=num_layers), label_smoothing=0.0)


class IdEncoder:
    """A tokenizer of texts that are token ids already."""

    fingerprint = "ids"
    unk_token_id: int | None = None
    vocabulary_size = 1 << 31

    def encode(self, sources: list[str], targets: list[str], **languages: str | None) -> Any:
        """Both sides with the end token appended."""
        return tuple([[*map(int, text.split()), EOS] for text in side] for side in (sources, targets))

    def decode(self, ids: list[int]) -> str:
        """The ids as text."""
        return " ".join(map(str, ids))

    def is_empty(self, ids: list[int]) -> bool:
        """Never: each text has ids."""
        return False

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """The first ids and the end token."""
        return [*ids[: max_tokens - 1], EOS]


def snapshot(engine: Any) -> dict[str, Any]:
    """Everything that a step changes on this rank, copied: masters, moments, counters, and the weights of the model."""
    from dstrain.engine.shards import applied_steps, owned_shards

    state: dict[str, Any] = {
        "applied_steps": applied_steps(engine.wrapped),
        "skipped_steps": engine.skipped_steps,
        "loss_scaler": engine.loss_scaler_state(),
    }
    for piece in owned_shards(engine.wrapped, moments=engine.moments):
        for kind, tensor in {"master": piece.master, **piece.moments}.items():
            state[f"{kind}/{piece.name}@{piece.start}"] = tensor.clone()
    with engine.gathered() as model:
        state.update({f"weight/{name}": weight.clone() for name, weight in model.named_parameters()})
    return state


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Names of the entries that differ in any bit between two snapshots."""
    assert before.keys() == after.keys()

    def is_same(name: str) -> bool:
        one, other = before[name], after[name]
        return bool(torch.equal(one, other)) if isinstance(one, torch.Tensor) else one == other

    return [name for name in before if not is_same(name)]
