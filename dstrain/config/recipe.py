"""The recipe half of the vocabulary but for data and evaluation: model, task and training. It decides what is learned."""

from typing import Annotated, Literal

from pydantic import Field, field_serializer, model_validator

from dstrain.config.hub import URL
from dstrain.config.names import TaskName
from dstrain.config.own_code import OwnCode, is_own_code, own_name
from dstrain.config.paths import LocalPath
from dstrain.config.section import ConflictError, Count, PositiveInt, Probability, Section


class Scratch(Section):
    """A model with random weights. Its tokenizer is trained on the training text with sentencepiece."""

    architecture: Literal["m2m100", "nllb", "mbart", "marian", "t5", "mt5"]
    """Model family whose architecture and tokenizer format are used."""
    vocabulary_size: Annotated[int, Field(ge=1, le=10_000_000)] = 4000
    """Number of sentencepiece pieces, before language codes and task tokens are added."""
    hidden_size: Annotated[int, Field(ge=1, le=1_000_000)] = 128
    """Width of the model. Must be a multiple of `num_heads`."""
    feed_forward_size: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Width of the feed-forward layers."""
    num_layers: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Number of encoder layers, and of decoder layers."""
    num_heads: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Number of attention heads."""
    max_positions: Annotated[int, Field(ge=1, le=1_000_000)] = 512
    """Longest sequence in tokens. Used only by families with a fixed table of positions."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "Scratch":
        if self.hidden_size % self.num_heads:
            message = f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: change one"
            raise ConflictError((("hidden_size", "num_heads"), message))
        return self


class Adapter(Section):
    """Train low-rank updates of weight matrices instead of the matrices."""

    kind: Literal["lora"] = "lora"
    """`lora` adds a product of two small matrices to each (Hu et al. 2022). It needs peft: `pip install 'dstrain[lora]'`."""
    rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Width of the small matrices. LoRA wants a larger learning rate than training of all weights: often 1e-4 to 1e-3."""
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0
    """The product is multiplied by `alpha` / `rank`."""
    dropout: Probability = 0.0
    """Dropout of the input of the small matrices."""
    targets: Literal["attention", "all"] | Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = "attention"
    """The matrices: those of `attention`, `all` of attention and feed-forward layers, or a list of names such as
    `[q_proj, v_proj]` (T5 and mT5: `[q, v]`)."""


class Model(Section):
    """Where the model comes from: the Hugging Face Hub, a local folder, or `scratch`."""

    name: LocalPath | None = None
    """Hub name (`facebook/m2m100_418M`), or a local folder in the Hugging Face layout."""
    revision: str | None = None
    """Commit, tag or branch on the Hub. Only a commit makes the run repeatable."""
    scratch: Scratch | None = None
    """Start from random weights instead of `name`."""
    from_run: LocalPath | None = None
    """Start from the weights and the tokenizer of another run instead of `name`: `RUN` or `RUN@best` for its best model,
    `RUN@1200` for the checkpoint of a step, where RUN is its folder. Its languages hold where neither the task nor a data
    source names one. The model is copied into the run folder at the first start; from then on the other run is not needed."""
    add_languages: dict[str, str] | None = None
    """Languages that the model of `name` lacks, such as `{myv_Cyrl: fin_Latn}` for NLLB: each code gets a token, whose embedding
    begins as that of the language after the colon. M2M100, NLLB and mBART only."""
    dropout: Probability | None = None
    """Dropout probability of all layers. Null keeps the model's own value."""
    layerdrop: Probability = 0.0
    """Probability of skipping a whole layer. The default is 0 on every ZeRO stage: ZeRO-3 cannot skip layers, and a
    recipe must not depend on the stage. A notice is printed if the model's own value differs."""
    allow_fp16_t5: bool = False
    """Allow fp16 for T5, mT5, umT5 and LongT5. Their activations overflow fp16, so the run is likely to end in NaN."""
    vocabulary: Literal["full", "seen"] = "full"
    """Token ids that are trained. `seen` leaves out those that occur neither in the training rows nor in the evaluation
    sources, but for special tokens and single characters: with a few thousand of the 250,000 ids of mT5 a step takes a
    fraction of the time and memory. The loss is then over fewer ids, and hypotheses hold no others; exports have all rows
    again, those left out as they were."""
    freeze: Annotated[tuple[str, ...], Field(min_length=1, strict=False, examples=["[encoder, embeddings]"])] | None = (
        None
    )
    """Parameters that are not trained: `encoder` and `decoder` without the embeddings that they share, `embeddings` (with a head
    that is tied to them), or patterns such as `model.encoder.layers.[0-5].*`. Tokens that the model lacked are trained all the
    same. Checkpoints hold only what is trained, and belong to this model. Null trains all."""

    adapter: Adapter | None = None
    """Train an adapter instead of the model's own weights. Exports are the merged model, beside the adapter in peft's format."""

    @property
    def trains_part(self) -> bool:
        """Whether the recipe leaves parameters as they are."""
        return self.freeze is not None or self.adapter is not None

    @field_serializer("name")
    def _only_what_was_given(self, name: str | None) -> str | None:
        # with `from_run` it is a folder in the run folder (`RunConfig`), wherever that lies
        return None if self.from_run is not None else name

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        origins = ("name", "scratch", "from_run")
        given = [key for key in origins if getattr(self, key) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            message = f"give exactly one of `name` (hub name or folder), `scratch` and `from_run`; found {found}; null unsets one"
            raise ConflictError((tuple(given) or origins, message))
        if self.revision is not None and self.from_run is not None:
            raise ConflictError((("revision", "from_run"), "a run has no revisions: name a step, as in `RUN@1200`"))
        if self.name is not None and URL.match(self.name):
            message = f"`{self.name}` is a URL: write owner/name, as the Hub names the model"
            raise ConflictError((("name",), message))
        if self.add_languages and self.scratch is not None:
            message = "`add_languages` goes with `name`: a new model has the languages of its architecture"
            raise ConflictError((("add_languages", "scratch"), message))
        if self.freeze and self.adapter:
            message = "an adapter freezes every weight of the model already: remove `freeze`"
            raise ConflictError((("freeze", "adapter"), message))
        if self.adapter and self.scratch is not None:
            message = "an adapter of random weights would learn little: `adapter` goes with `name` or `from_run`"
            raise ConflictError((("adapter", "scratch"), message))
        itself = [code for code, like in (self.add_languages or {}).items() if code == like]
        if itself:
            message = f"`{itself[0]}` would begin as itself: name a language that the model has after the colon"
            raise ConflictError((("add_languages",), message))
        return self


class Task(Section):
    """What a row means."""

    kind: Literal["translation", "parsing", "text"] | OwnCode
    """`translation` between languages, `parsing` of utterances into bracketed parses, `text`: any text to any other, such as
    summarisation, correction or question answering, or a class of your own as `my_package.my_module:Class`, which turns texts of
    the data into those of the model and back (see [running.md](running.md#a-task-of-your-own))."""
    name: TaskName | None = None
    """Kind `text` and classes of your own: what the task is called on the card, such as `summarisation`."""
    source_language: str | None = None
    """Language code of the sources, as the tokenizer writes it: `ko` for M2M100, `kor_Hang` for NLLB, `ko_KR` for
    mBART. These families need it for translation, here or in each data source. For other tasks it may be left out: then both
    sides begin with the tokenizer's default code, in training and in use alike."""
    target_language: str | None = None
    """Language code of the targets, written and needed like `source_language`. It decides the forced first token of every
    hypothesis."""
    form: Literal["pointer", "plain"] = "pointer"
    """Parsing only: `pointer` writes words of the utterance as pointers `<pt-N>` (Held et al., ACL 2023), `plain` keeps
    the words."""
    segmentation: Literal["words", "published"] = "words"
    """Pointer form only: where an utterance is cut into the words that pointers count. `words` cuts it at punctuation, the
    clitic `'s`, and between digits and letters, so that a new utterance is cut like those in training. Words of the parse
    that have no place of their own are put together from several, or spelt out. `published` is the rule of Held et al.: it
    cuts the utterance at the words of its parse, in evaluation too, which no new utterance has. So the score
    `exact_match_typed` stands beside its scores. A run folder made before this key existed keeps `published`."""
    source_prefix: str = ""
    """Text put before every source, such as `translate Korean to English: ` for T5, or `parse: ` for the pointer form
    of t5-small-pointer-mtop."""
    max_source_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Longest source in tokens, special tokens included. `data.rules.too_long` decides what happens to longer rows."""
    max_target_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    """Longest target in tokens, special tokens included. `data.rules.too_long` decides what happens to longer rows."""

    @model_validator(mode="after")
    def _only_text_has_a_name(self) -> "Task":
        if self.name is not None and self.base_kind != "text":
            raise ConflictError((("name", "kind"), f"a task of kind `{self.kind}` has its own name: leave `name` out"))
        return self

    @property
    def own(self) -> str | None:
        """The class of the user's own, as `my_package.my_module:Class`; None for the other kinds."""
        return self.kind if is_own_code(self.kind) else None

    @property
    def title(self) -> str:
        """What the task is called on the card: its name, else its kind, or the name of the user's own class."""
        return self.name or own_name(self.own or "") or self.kind

    @property
    def base_kind(self) -> str:
        """Whose metrics the task has: `translation`, `parsing`, or `text`, which a class of the user's own works on."""
        return "text" if self.own else self.kind

    @property
    def cuts_by_reference(self) -> bool:
        """Whether sources are cut at the words of their parse, in evaluation too."""
        return self.has_pointers and self.segmentation == "published"

    @property
    def has_pointers(self) -> bool:
        """Whether targets are in the pointer form."""
        return self.kind == "parsing" and self.form == "pointer"


class EarlyStopping(Section):
    """Stop when the recipe's metric (`evaluation.best_metric`) no longer improves."""

    patience: PositiveInt
    """Evaluations without improvement after which the run ends. While the metric is 0, a better value of the metrics that break
    ties counts as an improvement."""
    min_delta: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    """Smallest change that counts as an improvement, in the metric's own unit."""
    significant: bool = False
    """Count an improvement only if the 95 % interval of its difference to the last one that counted leaves out 0, by paired
    bootstrap over the rows. Not for the loss, which has no rows."""


MOST_COUNTED_EPOCHS = 100_000


class Training(Section):
    """How the weights change."""

    batch_size: PositiveInt
    """Size of an optimizer step over all ranks and micro-batches, in `batch_unit`."""
    batch_unit: Literal["sequences", "target_tokens"] = "sequences"
    """Unit of `batch_size`. `target_tokens` builds each step from buckets of rows of similar length, with at most 4,096
    target tokens per bucket. A larger step draws several buckets at random."""
    epochs: Annotated[float, Field(gt=0.0, le=1e9)] | None = None
    """Passes over the training rows. Give either this or `max_steps`. In steps of `target_tokens` at most 100,000: there the
    steps of all epochs are counted before the first."""
    max_steps: PositiveInt | None = None
    """Number of optimizer steps. Give either this or `epochs`."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1000.0)]
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant", "inverse_sqrt"] = "linear"
    """Shape of the learning rate after warm-up. `linear` and `cosine` reach 0 one step after the last."""
    warmup_steps: Count = 0
    """Optimizer steps of linear warm-up from 0."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """`adam` adds weight decay to the gradient; `adamw` decouples it (Loshchilov & Hutter 2019); `sgd` has momentum."""
    betas: Annotated[tuple[Probability, Probability], Field(strict=False)] = (0.9, 0.999)
    """Adam's decay rates. For `sgd` the first is the momentum."""
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    """Adam's epsilon."""
    weight_decay: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    """Weight decay of weight matrices. Biases and normalisation weights are not decayed."""
    max_grad_norm: Annotated[float, Field(ge=0.0, le=1e9)] = 1.0
    """Gradient norm above which the gradient is clipped. 0 switches clipping off."""
    label_smoothing: Probability = 0.0
    """Probability mass that is spread over the vocabulary (Szegedy et al. 2016)."""
    spike_factor: Annotated[float, Field(gt=1.0, le=1e9)] | None = None
    """A step is not applied if its loss exceeds this multiple of the mean loss of the last 100 applied steps. The rows
    that cause the spike are searched for and quarantined. Null applies every finite step."""
    max_quarantined_rows: Count = 16
    """Most rows that a run may quarantine because their loss or gradient is not finite, or a spike. The run stops when
    there are more."""
    early_stopping: EarlyStopping | None = None
    """Stop before the end when the metric no longer improves. Null trains to the end."""

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.epochs is None) == (self.max_steps is None):
            found = "none" if self.epochs is None else "both"
            message = f"give exactly one of `epochs` and `max_steps`; found {found}; null unsets one"
            raise ConflictError((("max_steps", "epochs"), message))
        if self.batch_unit == "target_tokens" and self.epochs is not None and self.epochs > MOST_COUNTED_EPOCHS:
            message = (
                f"the steps of {self.epochs:g} epochs in target tokens would have to be counted before the first, at most "
                f"{MOST_COUNTED_EPOCHS:,} are: give max_steps instead"
            )
            raise ConflictError((("epochs", "batch_unit"), message))
        return self
