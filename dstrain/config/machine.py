"""The machine half of the vocabulary: how a recipe is computed, saved and logged. Nothing here changes what is learned."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from dstrain.config import conflicts
from dstrain.config.conflicts import ConflictError
from dstrain.config.deepspeed_keys import deepspeed_problems
from dstrain.config.section import PositiveInt, Section


class Watchdog(Section):
    """How long a run may go without progress before it is ended with code 85, "start me again"; minutes, 0 switches off.

    Every step, every batch of an evaluation and every file of a save is progress.
    """

    set_up_minutes: Annotated[float, Field(ge=0.0)] = 180.0
    """Before the first step: reading and tokenising data, loading the model, building DeepSpeed's operators."""
    step_minutes: Annotated[float, Field(ge=0.0)] = 15.0
    """One optimizer step."""
    evaluation_minutes: Annotated[float, Field(ge=0.0)] = 20.0
    """One batch of an evaluation, or collecting its results."""
    save_minutes: Annotated[float, Field(ge=0.0)] = 30.0
    """One file of a checkpoint, or an exported model."""


class Machine(Section):
    """How the recipe is computed. Nothing here changes what is learned, beyond rounding."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed ZeRO stage: 0 keeps everything on every rank, 1 shards optimizer state, 2 gradients too, 3 weights too.
    0 with 16-bit precision runs as 1 (stage 0 hides skipped steps)."""
    micro_batch_tokens: PositiveInt | None = 8192
    """Budget of a micro-batch: rows × (longest source + longest target), in tokens with padding. In steps of target tokens a
    micro-batch is of one bucket at most, that is of 4,096 target tokens. Null fills the GPU's memory: the largest budget that
    fits is measured once for a model, GPU and precision, and kept for the whole run; without a GPU it is 8192."""
    micro_batch_overhead: Annotated[int, Field(ge=0)] | None = None
    """What a micro-batch costs besides its tokens, in tokens: a step is cut further where that saves more padding. Null is 128 on
    a CPU (measured) and 2048 on a GPU (estimated), whichever the run began on."""
    micro_batch_size: PositiveInt | None = None
    """Pins the micro-batch to this many sequences instead of the token budget."""
    min_micro_batches: PositiveInt = 1
    """Cut every step into at least this many micro-batches: set it to the largest number of ranks the recipe will use.
    The cut never follows the actual number of ranks, because dropout belongs to a micro-batch."""
    compile: bool | None = False
    """Compile the layers of encoder and decoder for training by torch.compile; dropout draws the same numbers. Null measures
    both ways once for a model, GPU and precision, and keeps the faster for the whole run; without a GPU, and under ZeRO 3,
    whose weights are gathered by hooks, it is false. The first steps of every start wait for the compiler, a minute or two in
    which no signal is answered. Not yet measured on a GPU, therefore off."""
    evaluation_tokens: PositiveInt = 4096
    """Budget of an evaluation batch where `evaluation.batch_size` is null: rows × beams × longest source, in tokens with
    padding. Another budget may change only hypotheses whose two likeliest tokens are equally likely, within rounding."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    offload_optimizer: bool = False
    """Keep optimizer state in host memory (ZeRO 1 to 3)."""
    offload_parameters: bool = False
    """Keep weights in host memory (ZeRO 3)."""
    collective_timeout_minutes: PositiveInt = 30
    """How long a rank waits for the others in a collective operation."""
    reserve_seconds: Annotated[float, Field(ge=0.0)] = 60.0
    """Kept free at the end of an allocation, beyond a step and a save as long as those before, a tenth of it at most: the run
    saves and ends in time without any signal, and begins no evaluation that could not end. Slurm tells when an allocation
    ends; elsewhere set DSTRAIN_ALLOCATION_END, in seconds since 1970."""
    evaluation_job: list[str] | None = None
    """Leave evaluations to a small Slurm job on a frozen checkpoint, while training goes on: sbatch's options for it, such as
    `[--gpus-per-node=1, --time=60]`, over those of slurm/evaluate.sbatch, which slurm/train.sbatch submits. Their rows join
    the run's own, by step. Elsewhere `dstrain evaluate RUN --pending` makes them. Null evaluates in the run itself."""
    watchdog: Watchdog = Watchdog()
    """When a run that hangs is ended."""
    lease_seconds: Annotated[float, Field(ge=1.0)] = 60.0
    """A run folder whose writer has not been heard of for this long may be taken over. Its writer renews four times as
    often; a file system that shows other hosts' writes late needs more."""
    prefetch_steps: PositiveInt = 2
    """Steps collated ahead in the background."""
    cache_dir: str | None = None
    """Where tokenised data are kept, on a file system that all ranks share; null is `~/.cache/dstrain`."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """DeepSpeed's own JSON, merged over what dstrain makes; keys that would change what is learned are refused."""

    @model_validator(mode="after")
    def _fits_deepspeed(self) -> "Machine":
        found: list[conflicts.Conflict] = []
        if self.offload_optimizer and self.zero_stage == 0:
            found.append((("offload_optimizer", "zero_stage"), "offload_optimizer needs zero_stage 1, 2 or 3; found 0"))
        if self.offload_parameters and self.zero_stage != 3:
            message = f"offload_parameters needs zero_stage 3; found {self.zero_stage}"
            found.append((("offload_parameters", "zero_stage"), message))
        if self.compile and self.zero_stage == 3:
            message = (
                "compile needs zero_stage 0, 1 or 2, because ZeRO 3 gathers weights by hooks, which compiled layers leave out; "
                "found 3: set compile to false or null"
            )
            found.append((("compile", "zero_stage"), message))
        found += [((f"deepspeed.{key}",), message) for key, message in deepspeed_problems(self.deepspeed)]
        if found:
            raise ConflictError(*found)
        return self


class Checkpoint(Section):
    """When the full state of a run is saved, and how much is kept."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between checkpoints; null saves after every evaluation. The end is always saved."""
    keep_last: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints kept with their full state. Never below two, because the newest may prove unreadable. The best by
    the recipe's metric is kept besides, its weights at least."""
    keep_weights_every_steps: PositiveInt | None = None
    """Older checkpoints at multiples of this step are kept without optimizer state: a third of the size; they can be
    exported, not gone on from."""
    background: bool = True
    """Write while training goes on, from a copy in host memory (12 bytes a parameter with Adam, shared out over the ranks)."""


class Logging(Section):
    """What is written while training."""

    every_steps: PositiveInt = 50
    """Optimizer steps between rows of metrics.jsonl: one host-device synchronisation each."""
    tensorboard: bool | None = None
    """Write TensorBoard event files; null does so where tensorboard is installed."""
