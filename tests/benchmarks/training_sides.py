"""One side of the training benchmark, in its own process: `python -m tests.benchmarks.training_sides JSON`.

Our side uses what a run trains with: the loader, the engine on DeepSpeed (ZeRO 1), the loop and its log hook, on one rank.
The other side is transformers' Seq2SeqTrainer with one correction: its loss is divided by the target tokens of the update;
without that, it multiplies loss and gradient by the number of accumulated batches. Prints one line of JSON with the figures
of the measured updates. Compares nothing.
"""

import gc
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from dstrain.cluster.console import can_redraw
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import join_ranks
from dstrain.config.device_defaults import OVERHEADS
from dstrain.data.arrays import Lengths
from dstrain.data.collate import collate
from dstrain.data.cuts import Cut
from dstrain.data.loader import Loader
from dstrain.data.plan import Plan, Position
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.engine.build import build_engine
from dstrain.models.compact import compact_embedding, why_not_compact
from dstrain.models.compilation import compile_layers
from dstrain.models.kernels import draw_masks_by_bits, fuse_gelu
from dstrain.models.load import quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.restrict import keep_rows
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.loop import train
from dstrain.training.state import Control, Hook, Progress, StepInfo
from tests.benchmarks.training_case import FIRST_ID, LEARNING_RATE, MAX_GRAD_NORM, Case, build_config, read_case

COUNTED = ("source_tokens", "target_tokens", "padded_source_tokens", "padded_target_tokens")
HELD_OUT_ROWS = 16


@dataclass(frozen=True)
class Side:
    """One way to train the model."""

    name: str
    """`dstrain` in steps of target tokens, `dstrain_seen` with `model.vocabulary: seen` as well, `dstrain_sequences`, or the
    Trainer's `random` or `group_by_length`."""
    size: int
    """For dstrain padded tokens of a micro-batch, for the Trainer rows of the per-device batch."""

    @property
    def is_ours(self) -> bool:
        """Whether it is dstrain."""
        return self.name.startswith("dstrain")

    @property
    def batch_unit(self) -> Literal["sequences", "target_tokens"]:
        """The batch unit of our updates."""
        return "sequences" if self.name == "dstrain_sequences" else "target_tokens"

    def __str__(self) -> str:
        return f"{self.name} {self.size}"


@dataclass(frozen=True)
class Job:
    """What one process measures."""

    side: Side
    case: str
    rows_per_update: int
    """For our updates in target tokens: as many tokens as these rows have on average."""
    num_updates: int
    num_warm_up: int
    """Updates before the clock starts."""
    seed: int = 0
    precision: str = "fp32"
    compile: bool = False
    overhead: int | None = None
    """As machine.micro_batch_overhead; None is the default of the device."""
    deepspeed: bool = False
    """Run the Trainer on DeepSpeed as well, with our settings."""
    held_out: bool = False
    """Train in the original order, and return the loss on held-out rows. Otherwise, since group_by_length begins with its longest
    rows, its updates after the first are taken evenly over the epoch."""


class Stopwatch(Hook):
    """Counts tokens and seconds of the updates after the warm-up."""

    def __init__(self, *, num_warm_up: int, num_updates: int) -> None:
        self._first, self._last = num_warm_up, num_updates
        self._counts: Counter[str] = Counter()
        self._all: Counter[str] = Counter()
        self._started = self._ended = (0.0, 0.0)

    def count(self, counts: Mapping[str, int], *, step: int) -> None:
        """Add the counts of update `step`, counted from 1."""
        self._all.update(counts)
        if step > self._first:
            self._counts.update(counts)

    def lap(self, step: int) -> None:
        """Record the time after update `step`."""
        if step in (self._first, self._last) and torch.cuda.is_available():
            torch.cuda.synchronize()
        if step == self._first:
            self._started = (time.perf_counter(), time.process_time())
        if step == self._last:
            self._ended = (time.perf_counter(), time.process_time())

    def on_step(self, info: StepInfo, control: Control) -> None:
        self.count({name: getattr(info, name) for name in COUNTED}, step=info.step)
        self.lap(info.step)

    def result(self) -> dict[str, float]:
        """The figures of the measured updates."""
        seconds, core_seconds = (end - start for start, end in zip(self._started, self._ended, strict=True))
        return {
            "seconds": seconds,
            "core_seconds": core_seconds,
            "num_updates": self._last - self._first,
            "target_tokens_seen": self._all["target_tokens"],
            "target_tokens_per_second": self._counts["target_tokens"] / seconds,
            "target_tokens_per_core_second": self._counts["target_tokens"] / core_seconds,
            "target_efficiency": self._counts["target_tokens"] / self._counts["padded_target_tokens"],
            "source_efficiency": self._counts["source_tokens"] / self._counts["padded_source_tokens"],
        } | self._counts


def choose_vocabulary(side: Side, *, case: Case, tokens: TokenSet) -> Vocabulary:
    """The ids that occur and the special ones, as `model.vocabulary: seen` keeps them; drawn ids have no spelling."""
    if side.name != "dstrain_seen":
        return WHOLE
    return Vocabulary(occurring_ids(case, tokens=tokens))


def occurring_ids(case: Case, *, tokens: TokenSet) -> tuple[int, ...]:
    """Special ids and those of the training rows, ascending."""
    occurring = np.concatenate([tokens.occurring("source"), tokens.occurring("target")]).tolist()
    return tuple(sorted({*range(FIRST_ID), case.pad_id, case.start_id, *occurring}))


def train_ours(job: Job, *, case: Case, model: PreTrainedModel, tokens: TokenSet, folder: Path) -> Stopwatch:
    """Loader, engine, loop and log hook, as `dstrain.run` puts them together; no evaluation, no checkpoint."""
    vocabulary = choose_vocabulary(job.side, case=case, tokens=tokens)
    fuse_gelu(model)
    if not torch.cuda.is_available():
        draw_masks_by_bits()
    if vocabulary.kept is not None:
        keep_rows(model, vocabulary.kept)
    elif why_not_compact(model) is None:  # as a run does
        compact_embedding(model, ids=occurring_ids(case, tokens=tokens))
    gc.collect()
    batch_size = job.rows_per_update
    if job.side.batch_unit == "target_tokens":
        batch_size = tokens_per_update(job, lengths=tokens.target_lengths)
    config = build_config(
        folder,
        kind=case.kind,
        model=case.model,
        batch_tokens=batch_size,
        batch_unit=job.side.batch_unit,
        precision=job.precision,
        budget=job.side.size,
        num_updates=job.num_updates,
        warmup_steps=warmup_steps(job),
        seed=job.seed,
        compile=job.compile,
    )
    if config.machine.compile:
        compile_layers(model)
    ranks = join_ranks(read_process_info({}), timeout_minutes=5)
    plan = Plan(
        tokens.source_lengths,
        tokens.target_lengths,
        fingerprint=tokens.fingerprint,
        seed=config.seed,
        batch_size=config.training.batch_size,
        batch_unit=config.training.batch_unit,
        cut=Cut(
            job.side.size,
            micro_batch_overhead=OVERHEADS[ranks.device.type] if job.overhead is None else job.overhead,
        ),
    )
    loader = Loader(
        tokens,
        plan,
        rank=0,
        world_size=1,
        pad_id=vocabulary.row(case.pad_id),
        decoder_start_id=vocabulary.row(case.start_id),
        vocabulary=vocabulary,
        prefetch_steps=config.machine.prefetch_steps,
        device=ranks.device,
    )
    quarantine = Quarantine(config=config, ranks=ranks, find_rows=_refuse, locate_rows=_refuse, exclude=loader.exclude)
    watch = Stopwatch(num_warm_up=job.num_warm_up, num_updates=job.num_updates)
    train(
        build_engine(config, module=Seq2SeqLoss(model).to(ranks.device), ranks=ranks, total_steps=job.num_updates),
        loader=loader,
        progress=Progress(0, Position(0, 0)),
        total_steps=job.num_updates,
        epoch_at=plan.epoch_at,
        hooks=[watch, LogHook(config=config, ranks=ranks, total_steps=job.num_updates, is_terminal=can_redraw())],
        control=Control(record=lambda row: None),
        quarantine=quarantine,
    )
    return watch


def _refuse(*arguments: Any) -> Any:
    raise AssertionError(f"a step was refused: {arguments}")


def warmup_steps(job: Job) -> int:
    """Steps to the peak of the learning rate, on both sides."""
    return max(1, job.num_updates // 10)


class Rows(Dataset[dict[str, list[int]]]):
    """A token set in the form of the Trainer's rows."""

    def __init__(self, tokens: TokenSet) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return self._tokens.num_rows

    def __getitem__(self, row: int) -> dict[str, list[int]]:
        return {"input_ids": self._tokens.source(row).tolist(), "labels": self._tokens.target(row).tolist()}


class CountingTrainer(Seq2SeqTrainer):
    """The Trainer with its loss corrected and the tokens of its batches counted."""

    def __init__(self, *arguments: Any, watch: Stopwatch, num_blocks: int | None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._watch = watch
        self._num_blocks = num_blocks

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        counts = {
            "source_tokens": int(inputs["attention_mask"].sum()),
            "target_tokens": int((inputs["labels"] != -100).sum()),
            "padded_source_tokens": inputs["attention_mask"].numel(),
            "padded_target_tokens": inputs["labels"].numel(),
        }
        self._watch.count(counts, step=self.state.global_step + 1)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of the model, a mean over the micro-batch, scaled to its share of the mean over the update."""
        assert not return_outputs
        return model(**inputs).loss * ((inputs["labels"] != -100).sum() / num_items_in_batch)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if self._num_blocks is None:
            return sampler
        return take_blocks(
            list(sampler),
            size=self.args.train_batch_size * self.args.gradient_accumulation_steps,
            number=self._num_blocks,
            seed=self.args.seed,
        )


def take_blocks(order: list[int], *, size: int, number: int, seed: int) -> list[int]:
    """Complete updates of an order: the first, which needs most memory, then others spread evenly over the epoch, shuffled."""
    num_blocks = len(order) // size
    assert num_blocks >= number, f"{num_blocks} updates in an epoch, {number} wanted"
    rng = np.random.default_rng(seed)
    chosen = np.floor((np.arange(number - 1) + rng.random()) * num_blocks / (number - 1)).astype(int)
    return [row for block in [0, *rng.permutation(chosen).tolist()] for row in order[block * size : (block + 1) * size]]


class Laps(TrainerCallback):
    """Calls the stopwatch after each update of the Trainer."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._watch.lap(state.global_step)


def tokens_per_update(job: Job, *, lengths: Lengths) -> int:
    """The training.batch_size that has `rows_per_update` rows on average.

    Rows are taken while they fit, so on average half of the next row is missing; and that row is more often a long one.
    """
    mean, square = float(lengths.mean()), float((lengths.astype(float) ** 2).mean())
    return round(job.rows_per_update * mean + square / (2 * mean))


def train_trainer(job: Job, *, case: Case, model: PreTrainedModel, tokens: TokenSet, folder: Path) -> Stopwatch:
    """Seq2SeqTrainer on the same rows, with its own collator."""
    assert job.rows_per_update % job.side.size == 0
    if job.deepspeed:
        os.environ.update(read_process_info({}).as_environment())  # otherwise DeepSpeed would use MPI
    watch = Stopwatch(num_warm_up=job.num_warm_up, num_updates=job.num_updates)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=job.side.size,
        gradient_accumulation_steps=job.rows_per_update // job.side.size,
        train_sampling_strategy=job.side.name,
        max_steps=job.num_updates,
        learning_rate=LEARNING_RATE,
        warmup_steps=warmup_steps(job),
        max_grad_norm=MAX_GRAD_NORM,
        lr_scheduler_type="linear",
        weight_decay=0.0,
        seed=job.seed,
        logging_steps=50,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=job.precision == "bf16",
        deepspeed=deepspeed_settings(job) if job.deepspeed else None,
        save_strategy="no",
    )
    trainer = CountingTrainer(
        model=model,
        args=arguments,
        train_dataset=Rows(tokens),
        data_collator=DataCollatorForSeq2Seq(build_padder(case.pad_id), model=model),
        callbacks=[Laps(watch)],
        watch=watch,
        num_blocks=None if job.held_out or job.side.name == "random" else job.num_updates,
    )
    trainer.train()
    return watch


def deepspeed_settings(job: Job) -> dict[str, Any]:
    """Our engine's settings of DeepSpeed, with the batch size and clipping of the Trainer."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": job.precision == "bf16"},
    }


def build_padder(pad_id: int) -> PreTrainedTokenizerFast:
    """A tokenizer that only pads, which is all that the collator needs."""
    names = {f"<{number}>": number for number in range(pad_id)} | {"<pad>": pad_id, "<unk>": pad_id + 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="<unk>")), pad_token="<pad>", unk_token="<unk>"
    )


def held_out_loss(model: PreTrainedModel, *, case: Case) -> float:
    """Loss per target token over all held-out rows, by the stock model, in file order."""
    tokens = case.load_rows("eval")
    total = 0.0
    model.eval()
    with torch.no_grad():
        for first in range(0, tokens.num_rows, HELD_OUT_ROWS):
            rows = range(first, min(tokens.num_rows, first + HELD_OUT_ROWS))
            batch = collate(
                [tokens.source(row) for row in rows],
                [tokens.target(row) for row in rows],
                pad_id=case.pad_id,
                decoder_start_id=case.start_id,
            )
            logits = model(batch.source_ids, batch.source_mask, decoder_input_ids=batch.decoder_ids).logits
            total += float(functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum"))
    return total / int(tokens.target_lengths.sum())


def measure(job: Job) -> dict[str, Any]:
    """Train, and return the figures."""
    case = read_case(Path(job.case))
    model, tokens = case.load_model(), case.load_rows("train")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    held = _status("VmRSS")
    act = train_ours if job.side.is_ours else train_trainer
    with tempfile.TemporaryDirectory() as folder:
        watch = act(job, case=case, model=model, tokens=tokens, folder=Path(folder))
    peak = _status("VmHWM")
    found: dict[str, Any] = watch.result() | {"peak_mib": (peak - held) / 2**20, "resident_mib": peak / 2**20}
    if torch.cuda.is_available():
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    if job.held_out:
        found["held_out_loss"] = held_out_loss(model, case=case)
    return found


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def read_job(text: str) -> Job:
    """A job from its JSON."""
    values = json.loads(text)
    return Job(**(values | {"side": Side(**values["side"])}))


def write_job(job: Job) -> str:
    """A job as JSON."""
    return json.dumps(asdict(job))


def main() -> None:
    """Measure the job of the command line."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    quiet_transformers()
    print(json.dumps(measure(read_job(sys.argv[1]))))


if __name__ == "__main__":
    main()
