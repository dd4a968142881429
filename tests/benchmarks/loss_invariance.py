"""The same optimizer step cut in different ways: loss and gradient norm here and in transformers' Seq2SeqTrainer.

Prints a Markdown table: python -m tests.benchmarks.loss_invariance (needs `pip install accelerate` for the Trainer).
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import (
    EOS,
    PAD,
    TOTAL_STEPS,
    build_batch,
    build_config,
    build_loss,
    build_model,
    build_rows,
)

START = {"m2m100": EOS, "mt5": PAD}
SPLITS = {"1 × 16": [16], "4 × 4": [4] * 4, "2 × 8": [2] * 8}
RANKED = [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
"""World size and ZeRO stage, for the split 4 × 4."""


def measure_engine(ranks: Ranks, kind: str, sizes: Sequence[int], stage: int) -> tuple[float, float]:
    """Loss per target token and gradient norm of the first step."""
    from dstrain.engine.build import build_engine

    config = build_config(machine__zero_stage=stage, training__max_grad_norm=0.0)
    engine = build_engine(config, module=build_loss(kind, dropout=0.0), ranks=ranks, total_steps=TOTAL_STEPS)
    batch = build_batch(build_rows(), sizes=sizes, rank=ranks.rank, world_size=ranks.world_size, start=START[kind])
    result = engine.step(batch, step=1)
    return ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens, float(result.grad_norm)


def measure_trainer(kind: str, sizes: Sequence[int]) -> tuple[float, float]:
    """What Seq2SeqTrainer logs for the same step: per-device batch times gradient accumulation."""
    rows = [{"input_ids": source.tolist(), "labels": target.tolist()} for source, target in build_rows()]
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=sizes[0],
            gradient_accumulation_steps=len(sizes),
            max_steps=1,
            logging_steps=1,
            max_grad_norm=1e9,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
        )
        model = build_model(kind, dropout=0.0)
        trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=rows, data_collator=pad_rows)
        trainer.train()
        logged = trainer.state.log_history[0]
    return float(logged["loss"]), float(logged["grad_norm"])


def pad_rows(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch of padded tensors, as DataCollatorForSeq2Seq makes them."""

    def pad(name: str, value: int) -> torch.Tensor:
        width = max(len(row[name]) for row in rows)
        return torch.tensor([[*row[name], *[value] * (width - len(row[name]))] for row in rows])

    ids = pad("input_ids", PAD)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": pad("labels", -100)}


def main() -> None:
    """Print the table."""
    print("| model | split | ranks | ZeRO | loss | gradient norm | Seq2SeqTrainer loss | gradient norm |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in START:
        for name, sizes in SPLITS.items():
            loss, norm = run_ranks(measure_engine, kind, sizes, 0, world_size=1)[0]
            other: tuple[Any, Any] = measure_trainer(kind, sizes)
            print(
                f"| {kind} | {name} | 1 | 0 | {loss:.6f} | {norm:.6f} | {other[0]:.4f} | {other[1]:.4f} |", flush=True
            )
        for world_size, stage in RANKED:
            loss, norm = run_ranks(measure_engine, kind, SPLITS["4 × 4"], stage, world_size=world_size)[0]
            print(f"| {kind} | 4 × 4 | {world_size} | {stage} | {loss:.6f} | {norm:.6f} | | |", flush=True)


if __name__ == "__main__":
    main()
