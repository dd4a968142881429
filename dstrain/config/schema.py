"""The vocabulary of a run: the recipe half and the machine half, together. Reads no files.

The *recipe* (RECIPE_KEYS) decides what is learned; its sections are in recipe.py. The *machine* half decides how it is
computed and never changes what is learned, beyond rounding; its sections are in machine.py. `card` is said on the model card.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dstrain.config import conflicts
from dstrain.config.card import Card
from dstrain.config.data import Data
from dstrain.config.evaluation import Evaluation
from dstrain.config.machine import Checkpoint, Logging, Machine
from dstrain.config.metrics import choosing_metrics, own_code, rank_metrics
from dstrain.config.names import FileName
from dstrain.config.paths import BASE, LocalPath
from dstrain.config.recipe import Model, Task, Training
from dstrain.config.section import ConflictError, Section

RECIPE_KEYS = ("seed", "precision", "model", "task", "data", "training", "evaluation")
"""Top-level keys of the recipe half; the rest is the machine half, but for `name` and `output_dir`, which name the run, and
`card`."""


class RunConfig(Section):
    """One run."""

    name: FileName
    """Name of the run folder and the model card: at most 200 letters, digits, `.`, `_` and `-`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the initial weights, the data order and dropout."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass. Master weights and optimizer state are always fp32."""
    model: Model
    task: Task
    data: Data
    training: Training
    evaluation: Evaluation = Evaluation()
    machine: Machine = Machine()
    checkpoint: Checkpoint = Checkpoint()
    logging: Logging = Logging()
    card: Card = Card()
    output_dir: LocalPath | None = None
    """The run folder. Null is `runs/<name>`."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "RunConfig":
        task, model, evaluation = self.task, self.model, self.evaluation
        found = [
            *conflicts.evaluation_conflicts(
                task, data=self.data, evaluation=evaluation, training=self.training, machine=self.machine
            ),
            *conflicts.significance_conflicts(
                self.best_metric, evaluation=evaluation, training=self.training, machine=self.machine
            ),
            *conflicts.average_conflicts(evaluation, model=model, machine=self.machine),
            *conflicts.task_conflicts(task, data=self.data, model=model),
            *conflicts.prefix_conflicts(task, data=self.data),
            *conflicts.precision_conflicts(self.precision, model=model),
            *conflicts.embedding_conflicts(self.machine, model=model, training=self.training),
            *conflicts.card_conflicts(self.card, model=model),
            *conflicts.path_conflicts({"output_dir": self.output_dir, "machine.cache_dir": self.machine.cache_dir}),
        ]
        if found:
            raise ConflictError(*found)
        return self

    @model_validator(mode="after")
    def _model_of_a_run_lies_in_the_run_folder(self) -> "RunConfig":
        if self.model.from_run is not None:
            # the model is immutable from here on
            object.__setattr__(self, "model", self.model.model_copy(update={"name": f"{self.run_dir}/{BASE}"}))
        return self

    @property
    def best_metric(self) -> str:
        """The metric that chooses the best checkpoint, task default applied."""
        return self.evaluation.best_metric or self.choosing[0]

    @property
    def choosing(self) -> tuple[str, ...]:
        """The metrics of all rows that may choose the best checkpoint: the task's default first, the loss last."""
        return choosing_metrics(self.task.base_kind, wanted=self.evaluation.metrics)

    @property
    def ranking(self) -> tuple[str, ...]:
        """The metrics that rank evaluations: `best_metric`, then those that break ties."""
        return rank_metrics(self.task.base_kind, best=self.best_metric, wanted=self.evaluation.metrics)

    @property
    def languages(self) -> tuple[str | None, str | None]:
        """Codes of the source and target language that an exported model has by default: the task's, else the first source's."""
        task, first = self.task, self.data.train[0]
        return task.source_language or first.source_language, task.target_language or first.target_language

    @property
    def own_code(self) -> tuple[tuple[str, str], ...]:
        """(key, item) for each class or function of the user's own that the recipe names."""
        of_task = () if self.task.own is None else (("task.kind", self.task.own),)
        return (*of_task, *(("evaluation.metrics", item) for item in own_code(self.evaluation.metrics)))

    @property
    def run_dir(self) -> str:
        """The run folder, default applied."""
        return self.output_dir or f"runs/{self.name}"

    @property
    def unknown_token_rule(self) -> str:
        """`data.rules.unknown_token`, task default applied."""
        default = "error" if self.task.kind == "parsing" else "keep"
        return self.data.rules.unknown_token or default
