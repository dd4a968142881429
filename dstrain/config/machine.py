"""The machine half of the vocabulary: how a recipe is computed, saved and logged. Nothing here changes what is learned."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dstrain.config.deepspeed_keys import deepspeed_problems
from dstrain.config.names import KeyName
from dstrain.config.paths import LocalPath
from dstrain.config.sbatch_options import sbatch_conflicts
from dstrain.config.section import MOST, YEAR_MINUTES, Conflict, ConflictError, Count, Minutes, PositiveInt, Section


class Watchdog(Section):
    """Minutes that a run may go without progress, by phase; then it ends with code 85, to be started again. Every step,
    every batch of an evaluation and every file of a save is progress. 0 switches a limit off."""

    set_up_minutes: Minutes = 180.0
    """Minutes before the first step: reading and tokenising data, loading the model, compiling DeepSpeed's operators."""
    step_minutes: Minutes = 15.0
    """Minutes for one optimizer step."""
    evaluation_minutes: Minutes = 20.0
    """Minutes for one batch of an evaluation, or for collecting its results."""
    save_minutes: Minutes = 30.0
    """Minutes for one file of a checkpoint, or for an exported model."""


class Machine(Section):
    """How the recipe is computed. Nothing here changes what is learned, beyond rounding and the random numbers of dropout."""

    device: Literal["cpu", "cuda"] | None = None
    """`cpu` or `cuda` (any GPU that torch calls so). Null takes a GPU where there is one; where a GPU is present that
    torch cannot use, the run is refused instead of training on the CPU."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = 1
    """DeepSpeed ZeRO stage. 0 keeps everything on every rank; 1 shards optimizer state, 2 also gradients, 3 also
    weights. 0 with 16-bit precision runs as 1, because stage 0 hides skipped steps. Null takes the fastest stage that fits
    into the GPU's memory, as `dstrain plan` shows it; every start chooses again, and config.yaml in the run folder says which
    it was."""
    micro_batch_tokens: PositiveInt | None = 8192
    """Largest micro-batch in tokens, padding included: rows × (longest source + longest target). In steps of
    `target_tokens`, a micro-batch never spans two buckets, so it also has at most 4,096 target tokens. Null uses the
    largest budget that fits into the GPU's memory. It is measured once per model, GPU and precision, and kept for the
    whole run. Without a GPU, null is 8192."""
    micro_batch_overhead: Count | None = None
    """Fixed cost of a micro-batch, in tokens. A step is cut into more micro-batches only where that saves more padding
    than this. Null is 128 if the run began on a CPU (measured) and 4096 if it began on a GPU (estimated)."""
    micro_batch_size: PositiveInt | None = None
    """Micro-batch size in sequences. It replaces the token budget."""
    min_micro_batches: PositiveInt = 1
    """Smallest number of micro-batches per step. Set it to the largest number of ranks that the recipe will use. The
    cut never follows the actual number of ranks, because dropout belongs to a micro-batch."""
    compile: bool | None = False
    """Compile the layers of encoder and decoder for training with torch.compile. Dropout draws the same numbers either
    way. Null measures both ways once per model, GPU and precision, and keeps the faster for the whole run. Null is
    false without a GPU and under ZeRO 3, which gathers weights by hooks. The first steps of every attempt wait a minute
    or two for the compiler, and signals are not answered meanwhile. The default is false because the gain is not yet
    measured on a GPU."""
    evaluation_tokens: PositiveInt | None = None
    """Largest evaluation batch in tokens, padding included: rows × beams × longest source. Used if
    `evaluation.batch_size` is null. Null is 4096 if the run began on a CPU and 65536 if it began on a GPU, where a
    generated token takes about as long for a thousand rows as for ten. Another value may change only hypotheses whose
    two most likely tokens are equally likely, within rounding."""
    compact_embedding: bool | None = None
    """Train only those rows of the input embedding whose tokens occur in training. The others have no gradient, so what is
    learned stays the same; if gradients are clipped, up to the rounding of their norm. It saves the gradients, optimizer
    state and checkpoint space of the other rows. It needs a model whose head has its own weights, such as the published
    mT5, no weight decay, and `model.vocabulary: full`. Null is true where all of this holds and at most half of the rows
    occur; a resumed run keeps what it began with."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass. It needs less memory and about a third more time."""
    offload_optimizer: bool = False
    """Keep optimizer state in host memory. Needs ZeRO 1, 2 or 3."""
    offload_parameters: bool = False
    """Keep weights in host memory. Needs ZeRO 3."""
    collective_timeout_minutes: Annotated[int, Field(ge=1, le=int(YEAR_MINUTES))] = 240
    """Minutes that a rank waits for the others in a collective operation. At least as long as every limit of the
    watchdog, which ends a hang earlier and reports what each rank was doing."""
    reserve_seconds: Annotated[float, Field(ge=0.0, le=1e6)] = 60.0
    """Seconds kept free at the end of an allocation, on top of the expected time of a step and a save. At most a tenth
    of the allocation is kept. The run saves and ends in time without any signal, and starts no evaluation that would
    not finish. Slurm reports when an allocation ends; elsewhere set DSTRAIN_ALLOCATION_END, in seconds since 1970."""
    evaluation_job: list[str] | None = None
    """sbatch options of small Slurm jobs that evaluate frozen checkpoints while training continues, such as
    `[--gpus-per-node=1, --time=60]`: size, place and account, each in the long form and in one item. They override
    those of slurm/evaluate.sbatch, and slurm/train.sbatch submits the jobs. The scores join the run's own, by step.
    Without Slurm, `dstrain evaluate RUN --pending` computes them. Null evaluates in the run itself."""
    watchdog: Watchdog = Watchdog()
    """When a run that hangs is ended."""
    lease_seconds: Annotated[float, Field(ge=1.0, le=1e6)] = 60.0
    """Seconds without a sign of its writer after which a run folder may be taken over. The writer renews its lease four
    times as often. A file system that shows writes of other hosts late needs more."""
    prefetch_steps: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Steps collated ahead in the background."""
    data_processes: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processes that tokenise the training rows, if there are more than 131,072. Null is one for each CPU that the process of
    rank 0 may use, at most 8. Each needs about half a GB of memory. 1 tokenises in the process of rank 0."""
    cache_dir: LocalPath | None = None
    """Folder of tokenised data, on a file system that all ranks share. Null is
    `$XDG_CACHE_HOME/dstrain`, or `~/.cache/dstrain` without that variable."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """DeepSpeed's own JSON, merged over what dstrain writes. Keys that would change what is learned, write files or
    report to a tracker are refused."""

    @model_validator(mode="after")
    def _fits_deepspeed(self) -> "Machine":
        found: list[Conflict] = []
        if self.offload_optimizer and self.zero_stage == 0:
            found.append((("offload_optimizer", "zero_stage"), "offload_optimizer needs zero_stage 1, 2 or 3; found 0"))
        if self.offload_parameters and self.zero_stage not in (3, None):
            message = f"offload_parameters needs zero_stage 3; found {self.zero_stage}"
            found.append((("offload_parameters", "zero_stage"), message))
        if self.compile and self.offload_parameters and self.zero_stage is None:
            message = "compile needs zero_stage 0, 1 or 2, and offload_parameters needs 3: set one of both to false"
            found.append((("compile", "offload_parameters"), message))
        if self.compile and self.zero_stage == 3:
            message = (
                "compile needs zero_stage 0, 1 or 2, because ZeRO 3 gathers weights by hooks, which compiled layers skip; "
                "found 3: set compile to false or null"
            )
            found.append((("compile", "zero_stage"), message))
        limits = self.watchdog.model_dump()
        for name, minutes in limits.items():
            if minutes > self.collective_timeout_minutes:
                message = (
                    f"watchdog.{name} is {minutes:g}, longer than collective_timeout_minutes, {self.collective_timeout_minutes}: "
                    "a hang would end without the watchdog's report; raise collective_timeout_minutes or lower the limit"
                )
                found.append(((f"watchdog.{name}", "collective_timeout_minutes"), message))
        found += sbatch_conflicts(self.evaluation_job or (), key="evaluation_job")
        found += [((f"deepspeed.{key}",), message) for key, message in deepspeed_problems(self.deepspeed)]
        if found:
            raise ConflictError(*found)
        return self


class Checkpoint(Section):
    """When the full state of a run is saved, and how much is kept."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between checkpoints. Null saves after every evaluation. The end is always saved."""
    every_minutes: Annotated[float, Field(ge=0.0, le=MOST)] = 10.0
    """Minutes of training after which the run is saved if nothing else has saved it: a kill costs no more, apart from an
    evaluation that it interrupts. The first save of every start comes within a minute, and ends the run if it fails. Where
    saves hold training up for more than 1 % of this time, they become rarer. 0 switches saves by time off."""
    keep_last: Annotated[int, Field(ge=2, le=100_000)] = 2
    """Newest checkpoints that are kept with their full state. At least two, because the newest may prove unreadable.
    The best checkpoint by the recipe's metric is kept too, at least its weights."""
    keep_weights_every_steps: PositiveInt | None = None
    """Older checkpoints at multiples of this step are kept without optimizer state. They take a third of the space;
    they can be exported, but not resumed."""
    background: bool = True
    """Write checkpoints while training continues, from a copy in host memory. The copy takes 12 bytes per parameter
    with Adam, split over the ranks."""


class Tracker(Section):
    """Where a tracker shows the run. Credentials come from the tracker's own environment variables, never from here."""

    project: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Project of W&B, experiment of MLflow. Null is what WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says, else the tracker's
    default."""
    uri: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """Address of the server. Null is what WANDB_BASE_URL or MLFLOW_TRACKING_URI says, else the tracker's default."""
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Name of the run there. Null is `name` of the recipe."""


class Logging(Section):
    """What is written while training, and which trackers show it."""

    every_steps: PositiveInt = 50
    """Optimizer steps between rows of metrics.jsonl. Each row costs one synchronisation of host and device."""
    samples: Annotated[int, Field(ge=0, le=100)] = 3
    """Rows of which each evaluation shows hypothesis and reference on the terminal: the same rows every time. 0 shows none."""
    tensorboard: bool | None = None
    """Show the run in TensorBoard: event files in the run folder. Null writes them if tensorboard is installed."""
    trackers: Annotated[
        dict[KeyName, Tracker],
        Field(examples=["{wandb: {project: ko-en}}"]),
    ] = Field(default_factory=dict)
    """Trackers that show the run, each by its name with its settings, such as `wandb: {project: ko-en}`. The names are `wandb`,
    `mlflow` and those that installed packages bring (see [running.md](running.md#trackers)). They get the training rows, every
    score and the recipe, from a process of their own beside the training."""

    @model_validator(mode="after")
    def _tensorboard_has_a_key_of_its_own(self) -> "Logging":
        if "tensorboard" in self.trackers:
            message = "TensorBoard needs no settings: write `tensorboard: true` beside `trackers`"
            raise ConflictError((("trackers.tensorboard",), message))
        return self
