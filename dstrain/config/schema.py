"""The vocabulary of a run, one section a topic: the recipe half, and both halves together. Reads no files.

A run has two halves. The *recipe* (RECIPE_KEYS) decides what is learned; the *machine* half decides how it is computed
and never changes what is learned, beyond rounding; its sections stand in machine.py.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dstrain.config import conflicts
from dstrain.config.conflicts import ConflictError
from dstrain.config.machine import Checkpoint, Logging, Machine
from dstrain.config.section import PositiveInt, Probability, Section

RECIPE_KEYS = ("seed", "precision", "model", "task", "data", "training", "evaluation")
"""Top-level keys of the recipe half; the rest is the machine half (`name` and `output_dir` name the run, no more)."""

T5_ARCHITECTURES = ("t5", "mt5", "umt5")
"""Architectures whose activations overflow fp16 (transformers#9295): bf16 or fp32 unless forced."""


class Scratch(Section):
    """A model without pretrained weights; its tokenizer is trained on the training text with sentencepiece."""

    architecture: Literal["m2m100", "nllb", "mbart", "marian", "t5", "mt5"]
    """Which family's architecture and tokenizer format to build."""
    vocabulary_size: PositiveInt = 4000
    """Sentencepiece pieces, before language codes and task tokens."""
    hidden_size: PositiveInt = 128
    """Width of the model; a multiple of num_heads."""
    feed_forward_size: PositiveInt = 512
    """Width inside the feed-forward layers."""
    num_layers: PositiveInt = 2
    """Layers of the encoder, and as many of the decoder."""
    num_heads: PositiveInt = 4
    """Attention heads."""
    max_positions: PositiveInt = 512
    """Longest sequence, in tokens, of families with a fixed table of positions."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Scratch":
        if self.hidden_size % self.num_heads:
            message = f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: change one"
            raise ConflictError((("hidden_size", "num_heads"), message))
        return self


class Model(Section):
    """Where the model comes from: a hub name, a local folder, or `scratch`."""

    name: str | None = None
    """Hub name (`facebook/m2m100_418M`) or local folder in the Hugging Face layout."""
    revision: str | None = None
    """Commit, tag or branch on the hub; a commit makes the run repeatable."""
    scratch: Scratch | None = None
    """Build from random weights instead of `name`."""
    dropout: Probability | None = None
    """Dropout of all layers; null keeps the model's own."""
    layerdrop: Probability = 0.0
    """Probability of leaving out a layer. 0 on every ZeRO stage, because ZeRO-3 cannot run it and a recipe must not
    depend on the stage; where the model's own value differs, the run says so."""
    allow_fp16_t5: bool = False
    """Train T5 or mT5 in fp16 all the same. Their activations overflow fp16, and the run is likely to end in NaN."""

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.name is None) == (self.scratch is None):
            given = "none" if self.name is None else "both"
            message = f"give exactly one of `name` (hub name or folder) and `scratch`; found {given}; null unsets one"
            raise ConflictError((("name", "scratch"), message))
        return self


class Task(Section):
    """What a row means."""

    kind: Literal["translation", "parsing"]
    """`translation` between languages, or `parsing` of utterances into bracketed parses."""
    source_language: str | None = None
    """The tokenizer's own code (`ko` for M2M100, `kor_Hang` for NLLB, `ko_KR` for mBART). Needed by these families."""
    target_language: str | None = None
    """As source_language; decides the forced first token of every hypothesis."""
    form: Literal["pointer", "plain"] = "pointer"
    """Parsing: words of the utterance as pointers `<pt-N>` (Held et al., ACL 2023), or as they are."""
    source_prefix: str = ""
    """Put before every source: `parse: ` in the pointer form of t5-small-pointer-mtop, `translate Korean to English: `
    for T5."""
    max_source_tokens: PositiveInt = 256
    """Longest source, in tokens with special tokens; longer rows follow `data.rules.too_long`."""
    max_target_tokens: PositiveInt = 256
    """Longest target, in tokens with special tokens; longer rows follow `data.rules.too_long`."""


class Source(Section):
    """One place rows come from: exactly one of `path`, `hub` and `demo`."""

    path: str | None = None
    """Local file; with `target_path` the source side of two line-aligned text files."""
    target_path: str | None = None
    """The target side of two line-aligned text files."""
    format: Literal["jsonl", "tsv", "csv", "parquet", "text"] | None = None
    """Format of `path`; null takes it from the suffix (`text` when target_path is given)."""
    hub: str | None = None
    """Name of a dataset on the Hugging Face hub."""
    revision: str | None = None
    """Commit, tag or branch of `hub`."""
    subset: str | None = None
    """Configuration name of `hub`, for example `ko-en`."""
    split: str = "train"
    """Split of `hub` or `demo`: `train`, `validation`, `eval` …"""
    demo: Literal["translation", "parsing"] | None = None
    """Built-in generated data that needs no download."""
    source_column: str | int = 0
    """Column name (dotted for nested fields: `translation.ko`) or 0-based number for files without a header."""
    target_column: str | int = 1
    """As source_column, for the target side."""
    group_column: str | int | None = None
    """Column that names a row's group; scores are given for each group as well."""
    source_language: str | None = None
    """Overrides `task.source_language` for these rows."""
    target_language: str | None = None
    """Overrides `task.target_language` for these rows."""
    repeat: PositiveInt = 1
    """How often these rows appear in an epoch: the mixing weight against other sources."""
    max_rows: PositiveInt | None = None
    """Take only the first rows."""

    @property
    def place(self) -> str:
        """Where the rows come from, in a word."""
        return self.path or self.hub or f"demo:{self.demo}"

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        places = ("path", "hub", "demo")
        given = [key for key in places if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ConflictError(
                (places, f"give exactly one of `path`, `hub` and `demo`; found {found}; null unsets one")
            )
        if self.target_path is not None and (self.path is None or self.format not in (None, "text")):
            message = "`target_path` goes with `path` and format `text` (two line-aligned files)"
            raise ConflictError((("target_path", "path", "format"), message))
        if self.format == "text" and self.target_path is None:
            message = "format `text` needs `target_path`, the other of two line-aligned files"
            raise ConflictError((("format", "target_path"), message))
        return self


class Rules(Section):
    """What happens to a row that cannot be used as it is. Every such row is counted and listed with file:line."""

    empty: Literal["error", "skip"] = "skip"
    """A side is empty after stripping white space."""
    undecodable: Literal["error", "skip"] = "error"
    """Bytes that are not UTF-8, or a line that does not parse."""
    unpointable: Literal["error", "skip"] = "error"
    """A word of the parse that is not in the utterance (pointer form)."""
    too_long: Literal["error", "skip", "truncate"] = "truncate"
    """Over max_source_tokens or max_target_tokens. In evaluation sets targets are never cut: they are the reference."""
    unknown_token: Literal["error", "skip", "keep"] | None = None
    """A target that tokenises to unk. Null is `error` for parsing, where vanished brackets would match, and `keep` for
    translation, where the score compares with the reference text itself."""


class Data(Section):
    """Training and evaluation rows."""

    train: Annotated[tuple[Source, ...], Field(min_length=1, strict=False, examples=["[{path: file.tsv}]"])]
    """Sources of the training rows, mixed by `repeat`."""
    eval: Annotated[tuple[Source, ...], Field(min_length=1, strict=False, examples=["[{path: file.tsv}]"])]
    """Sources of the evaluation rows; `repeat` stays 1."""
    rules: Rules = Rules()
    """What happens to unusable rows."""

    @model_validator(mode="after")
    def _evaluation_counts_once(self) -> "Data":
        message = "evaluation rows cannot be repeated: a score counts every row once; remove `repeat`"
        repeated = [number for number, source in enumerate(self.eval) if source.repeat != 1]
        if repeated:
            raise ConflictError(*(((f"eval.{number}.repeat",), message) for number in repeated))
        return self


class EarlyStopping(Section):
    """Stop when the recipe's metric (`evaluation.best_metric`) no longer improves."""

    patience: PositiveInt
    """Evaluations without improvement before the run ends."""
    min_delta: Annotated[float, Field(ge=0.0)] = 0.0
    """Smallest change that counts as improvement, in the metric's own unit."""


class Training(Section):
    """How the weights change."""

    batch_size: PositiveInt
    """Size of an optimizer step over all ranks and micro-batches, in `batch_unit`."""
    batch_unit: Literal["sequences", "target_tokens"] = "sequences"
    """Unit of batch_size. Steps of target tokens are of rows of like length on both sides: up to 4,096 tokens of one kind, in
    larger steps of several kinds at random."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training rows; give this or max_steps."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; give this or epochs."""
    learning_rate: Annotated[float, Field(gt=0.0)]
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    """Shape after warm-up; linear and cosine reach 0 one step after the last."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps of linear warm-up from 0."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """`adam` adds weight decay to the gradient, `adamw` decouples it (Loshchilov & Hutter 2019)."""
    betas: Annotated[tuple[Probability, Probability], Field(strict=False)] = (0.9, 0.999)
    """Adam's decay rates; for sgd the first is the momentum."""
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    """Adam's epsilon."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decay of weight matrices; biases and normalisation weights are not decayed."""
    max_grad_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Clip the gradient's norm to this; 0 switches clipping off."""
    label_smoothing: Probability = 0.0
    """Probability mass spread over the vocabulary (Szegedy et al. 2016)."""
    spike_factor: Annotated[float, Field(gt=1.0)] | None = None
    """A step whose loss is over this many times the mean of the last 100 applied steps is not applied: the rows that cause
    it are searched for and set aside. Null applies every finite step."""
    max_quarantined_rows: Annotated[int, Field(ge=0)] = 16
    """Rows that a run may set aside because they give no finite loss or gradient (or a spike); with more it stops."""
    early_stopping: EarlyStopping | None = None
    """Stop before the end when the metric no longer improves."""

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.max_steps is None):
            found = "none" if self.epochs is None else "both"
            message = f"give exactly one of `epochs` and `max_steps`; found {found}; null unsets one"
            raise ConflictError((("max_steps", "epochs"), message))
        return self


class Evaluation(Section):
    """When and how the model is scored on the evaluation rows."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between evaluations; the end of training is always evaluated."""
    every_epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Epochs between evaluations, fractions allowed; instead of every_steps."""
    batch_size: PositiveInt | None = None
    """Sequences generated together. Null fills each batch up to `machine.evaluation_tokens`, which is faster."""
    num_beams: PositiveInt = 1
    """Beam size; 1 is greedy search."""
    length_penalty: float = 1.0
    """Exponent of the length in beam scores."""
    max_new_tokens: PositiveInt | None = None
    """Longest hypothesis, in tokens. Null takes it from the longest reference plus a margin, so that no hypothesis is
    cut before a reference could be reached; transformers' own default, 20, cuts most."""
    best_metric: Literal["bleu", "chrf", "exact_match", "loss"] | None = None
    """Chooses the best checkpoint. Null is `bleu` for translation and `exact_match` for parsing."""
    loss: bool = True
    """Compute the loss of the references as well, one more pass of the decoder."""
    max_rows: PositiveInt | None = None
    """Score only the first rows; the card says so."""
    rehearsal: bool = True
    """Evaluate two batches before step 1, so that a fault in evaluation costs no training time."""

    @model_validator(mode="after")
    def _one_cadence(self) -> "Evaluation":
        if self.every_steps is not None and self.every_epochs is not None:
            message = "give only one of `every_steps` and `every_epochs`; null unsets one"
            raise ConflictError((("every_steps", "every_epochs"), message))
        return self

    @model_validator(mode="after")
    def _loss_is_computed_where_it_chooses(self) -> "Evaluation":
        if self.best_metric == "loss" and not self.loss:
            raise ConflictError((("best_metric", "loss"), "best_metric `loss` needs `loss: true`; found false"))
        return self


class RunConfig(Section):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run folder and the model card: letters, digits, `.`, `_` and `-`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Decides initial weights, data order and dropout."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass; master weights and optimizer state are always fp32."""
    model: Model
    task: Task
    data: Data
    training: Training
    evaluation: Evaluation = Evaluation()
    machine: Machine = Machine()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    output_dir: str | None = None
    """The run folder; null is `runs/<name>`."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "RunConfig":
        evaluation = self.evaluation
        architecture = self.model.scratch.architecture if self.model.scratch else None
        sides = (("train", self.data.train), ("eval", self.data.eval))
        found = [
            *conflicts.evaluation_conflicts(
                kind=self.task.kind,
                metric=evaluation.best_metric,
                early_stopping=self.training.early_stopping is not None,
                is_periodic=evaluation.every_steps is not None or evaluation.every_epochs is not None,
                is_elsewhere=self.machine.evaluation_job is not None,
            ),
            *conflicts.task_conflicts(
                kind=self.task.kind,
                demos={f"data.{side}.{n}.demo": row.demo for side, rows in sides for n, row in enumerate(rows)},
                architecture=architecture,
                languages={key: getattr(self.task, key) for key in ("source_language", "target_language")},
            ),
        ]
        t5 = architecture or conflicts.named_architecture(self.model.name or "", known=T5_ARCHITECTURES)
        if self.precision == "fp16" and t5 in T5_ARCHITECTURES and not self.model.allow_fp16_t5:
            found.append((("precision", "model.name", "model.scratch.architecture"), fp16_refusal(t5)))
        if found:
            raise ConflictError(*found)
        return self

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint, task default applied."""
        default = "bleu" if self.task.kind == "translation" else "exact_match"
        return self.evaluation.best_metric or default

    @property
    def run_dir(self) -> str:
        """The run folder, default applied."""
        return self.output_dir or f"runs/{self.name}"

    @property
    def unknown_token_rule(self) -> str:
        """`data.rules.unknown_token`, task default applied."""
        default = "error" if self.task.kind == "parsing" else "keep"
        return self.data.rules.unknown_token or default


def fp16_refusal(architecture: str) -> str:
    """Why fp16 is refused for the T5 family, and the way out."""
    return (
        f"`fp16` overflows in `{architecture}` (activations over 65,504; transformers#9295): use bf16 or fp32, or set "
        "model.allow_fp16_t5=true to try all the same"
    )
