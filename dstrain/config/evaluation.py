"""The recipe's evaluation: when and how the model is scored."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dstrain.config.metrics import METRICS, WANTED, own_metrics
from dstrain.config.names import KeyName
from dstrain.config.own_code import is_own_code
from dstrain.config.section import YEAR_MINUTES, ConflictError, PositiveInt, Section

SOURCES, HYPOTHESES, REFERENCES = "{sources}", "{hypotheses}", "{references}"
"""What the command of an external score has for the files of an evaluation."""


class External(Section):
    """A score that another program computes from the texts of an evaluation, in an environment of its own."""

    command: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            strict=False,
            examples=["[comet-score, -s, '{sources}', -t, '{hypotheses}', -r, '{references}']"],
        ),
    ]
    """The program and its arguments, without a shell. `{sources}`, `{hypotheses}` and `{references}` stand for files with a
    text in each line; `{references}` alone for all of them, where rows have several. The score is the last number in the last
    line that it prints."""
    every: Literal["evaluation", "end"] = "end"
    """`end` scores the best model when training has ended. `evaluation` scores every evaluation, beside the training."""
    timeout_minutes: Annotated[float, Field(gt=0.0, le=YEAR_MINUTES)] = 60.0
    """The program is ended after so long, and there is no score."""

    @model_validator(mode="after")
    def _reads_the_hypotheses(self) -> "External":
        if not any(HYPOTHESES in word for word in self.command):
            message = f"the command does not read the hypotheses: give it `{HYPOTHESES}`, in quotes, as an argument"
            raise ConflictError((("command",), message))
        return self


class Evaluation(Section):
    """When and how the model is scored on the evaluation rows."""

    every_steps: PositiveInt | None = None
    """Optimizer steps between evaluations. The end of training is always evaluated."""
    every_epochs: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    """Epochs between evaluations; fractions are allowed. Give at most one of this and `every_steps`."""
    batch_size: PositiveInt | None = None
    """Sequences generated together. Null fills each batch up to `machine.evaluation_tokens`, which is faster."""
    num_beams: Annotated[int, Field(ge=1, le=1000)] = 1
    """Beam size. 1 is greedy search."""
    length_penalty: Annotated[float, Field(ge=-100.0, le=100.0)] = 1.0
    """Exponent of the hypothesis length in beam scores."""
    max_new_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Longest hypothesis in tokens. Null is the longest reference plus a margin, so that every reference can be
    reached. The default of transformers, 20, would cut most hypotheses."""
    metrics: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    """What is scored: any of `bleu`, `chrf`, `ter`, `rouge`, `token_f1`, `exact_match` and `accuracy`, for any task, and
    functions of your own, such as `my_package.my_module:score`. Null is `bleu` and `chrf` for translation, `rouge` and
    `exact_match` for text; the scores of parses are always computed. A function is called with hypotheses, references (a list
    for each row) and sources, and returns a number, or one for each row, of which the mean is taken; only so it has an interval.
    Higher must be better. It is imported from the environment or the current folder: only run a recipe whose code you trust."""
    best_metric: str | None = None
    """Metric that chooses the best checkpoint, of all rows, or of the evaluation set that it names (`flores/bleu`; not the
    loss): `bleu`, `chrf`, `ter`, `rouge_l`, `rouge_1`, `rouge_2`, `token_f1`, `exact_match`, `accuracy`, `loss` or the name of
    your function, if it is computed. Null is `bleu` for translation, `exact_match` for parsing, `rouge_l` for text, or the
    first of `metrics`. Where it is the same, the next metric decides, and at last the lower loss."""
    best_by: Literal["point", "tied_keeps_older"] = "point"
    """When an evaluation takes the place of the best one. `point`: if it is better. `tied_keeps_older`: if it is better and the
    95 % interval of the difference leaves out 0, by paired bootstrap over the rows; else the older one stays. While both are 0,
    `point` decides. Not for the loss, which has no rows, nor for evaluations of other jobs."""
    bleu_tokenizer: (
        Literal[
            "none", "zh", "13a", "intl", "char", "ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "spBLEU-1K"
        ]
        | None
    ) = None
    """sacreBLEU's tokenizer for BLEU; `flores200` gives spBLEU. Null chooses it by the text of the references and the target
    language: `zh` for Chinese, `ja-mecab` for Japanese, `ko-mecab` for Korean, `char` for other scripts without spaces, else
    `13a`. The signature says which it was."""
    loss: bool = True
    """Also compute the loss of the references, at the cost of one more decoder pass."""
    max_rows: PositiveInt | None = None
    """Score only the first rows, at most this many; the card says so. Null scores all."""
    average_last: PositiveInt | None = None
    """Checkpoints whose mean weights are scored and exported to `average/` at the end; `dstrain average` does so later."""
    external: (
        Annotated[
            dict[KeyName, External],
            Field(
                examples=["{comet: {command: [comet-score, -s, '{sources}', -t, '{hypotheses}', -r, '{references}']}}"]
            ),
        ]
        | None
    ) = None
    """Scores that other programs compute from the written texts, each by its name (see
    [running.md](running.md#scores-of-other-programs)). They never choose the best model and never stop training. Only run a
    recipe whose commands you trust."""
    rehearsal: bool = True
    """Evaluate two batches before step 1, so that a fault in evaluation costs no training time."""

    @model_validator(mode="after")
    def _metrics_are_known(self) -> "Evaluation":
        wanted = self.metrics or ()
        unknown = [item for item in wanted if item not in WANTED and not is_own_code(item)]
        if unknown:
            message = (
                f"`{unknown[0]}` is no metric: take {', '.join(WANTED)}, or a function as `my_package.my_module:score`"
            )
            raise ConflictError((("metrics",), message))
        names = [*(item for item in wanted if item in WANTED), *own_metrics(wanted)]
        taken = [metric.name for metric in METRICS]
        for number, name in enumerate(names):
            if (
                name in names[:number]
                or (name in taken and name not in WANTED)
                or (name in WANTED and name not in wanted)
            ):
                message = f"two scores would be called `{name}`: leave one out, or call the function otherwise"
                raise ConflictError((("metrics",), message))
        return self

    @model_validator(mode="after")
    def _external_scores_have_names_of_their_own(self) -> "Evaluation":
        taken = {*(metric.name for metric in METRICS), *own_metrics(self.metrics)}
        for name in self.external or {}:
            if name in taken:
                message = f"two scores would be called `{name}`: give this one another name"
                raise ConflictError(((f"external.{name}",), message))
        return self

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
