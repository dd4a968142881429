"""Every name in a run folder, in one frozen type. Reads and writes no files."""

import re
from dataclasses import dataclass
from pathlib import Path

from dstrain.config.paths import BASE
from dstrain.errors import UserError

BEST, FINAL = "best", "final"
MODELS = (BEST, FINAL)
"""Sub-folders with a model in the Hugging Face layout; the first is the better one to use."""
ADAPTER = "adapter"
"""Folder in an exported model whose run trained an adapter: the adapter alone, in peft's format."""
EXPORTED_STEP = "training_step.json"
"""File in every exported model folder: the step whose weights it holds."""
TASK_SETTINGS = "task_settings.json"
"""File in an exported model folder: the task that the model was trained for."""

AVERAGE = "average"
"""Sub-folder with the mean of several checkpoints' weights."""

CONVERTED = "ctranslate2"
"""Folder in an exported model that was converted for CTranslate2, instead of its weights: what that engine loads."""

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of a run folder. The scores of another test set have a folder of their own, with the same names."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, overrides included; a folder that has it is a run folder."""
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        """Machine, versions, data and model as the newest attempt found them."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """Training rows, evaluations and events, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def outcome(self) -> Path:
        """How the run ended, whatever starts were refused since."""
        return self.path / "outcome.json"

    @property
    def quarantine(self) -> Path:
        """Rows that training left out because no step with them could be applied."""
        return self.path / "quarantine.jsonl"

    @property
    def audit(self) -> Path:
        """What was found in the data before the first step."""
        return self.path / "audit.json"

    def bad_rows(self, split: str) -> Path:
        """Rows of a split (`train` or `eval`) that could not be used as they are."""
        return self.path / f"bad_rows.{split}.jsonl"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the run trains with."""
        return self.path / "tokenizer"

    @property
    def vocabulary(self) -> Path:
        """The token ids that a run with `model.vocabulary: seen` trains."""
        return self.path / "vocabulary.json"

    @property
    def base(self) -> Path:
        """The model of another run with which this one began (`model.from_run`)."""
        return self.path / BASE

    @property
    def base_record(self) -> Path:
        """Which model that is."""
        return self.path / "base.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def model(self, name: str) -> Path:
        """An exported model; `name` is one of MODELS."""
        return self.path / name

    @property
    def card(self) -> Path:
        return self.path / "README.md"

    @property
    def report(self) -> Path:
        """The page of the run, for a browser."""
        return self.path / "report.html"

    @property
    def word_counts(self) -> Path:
        """How often the words of the references occur in the training targets."""
        return self.path / "word_counts.json"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def loss_plot(self) -> Path:
        return self.plots / "loss.png"

    @property
    def score_plot(self) -> Path:
        return self.plots / "score.png"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def trackers(self) -> Path:
        """One file per tracker: what it has been sent; and what a tracker writes itself."""
        return self.path / "trackers"

    def tracked(self, name: str) -> Path:
        """What a tracker has been sent."""
        return self.trackers / f"{name}.json"

    def tracker_lock(self, name: str) -> Path:
        """Locked by the one process that sends to a tracker."""
        return self.trackers / f"{name}.lock"

    @property
    def scores(self) -> Path:
        """One file per scored step."""
        return self.path / "scores"

    def score_file(self, step: int) -> Path:
        return self.scores / f"step-{step:08d}.json"

    def score_files(self) -> list[Path]:
        """Those that exist, by step."""
        return sorted(self.scores.glob("step-*.json"))

    @property
    def external(self) -> Path:
        """Scores that other programs have computed: one file per step."""
        return self.path / "external"

    def external_file(self, step: int) -> Path:
        return self.external / f"step-{step:08d}.json"

    @property
    def all_hypotheses(self) -> Path:
        """One folder per scored step."""
        return self.path / "hypotheses"

    def hypotheses(self, step: int) -> Path:
        """Folder of hypotheses, references and sources, a row per line."""
        return self.all_hypotheses / f"step-{step:08d}"

    @property
    def test_sets(self) -> Path:
        """One folder per other test set."""
        return self.path / "test_sets"

    def test_set(self, name: str) -> "RunFolder":
        """The folder of another test set.

        Raises:
            UserError: the name is not valid.
        """
        if not _SET_NAME.fullmatch(name):
            raise UserError(
                f"--as {name}: a name has at most 200 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit"
            )
        return RunFolder(self.test_sets / name)

    @property
    def average(self) -> "RunFolder":
        """The model with the mean of several checkpoints' weights, and its scores, with the same names."""
        return RunFolder(self.path / AVERAGE)

    @property
    def evaluation(self) -> Path:
        """Scores of the best model, computed again by `dstrain evaluate`."""
        return self.path / "evaluate"

    @property
    def claims(self) -> Path:
        """One file per attempt: who may write the folder."""
        return self.path / "lease"

    @property
    def start_mark(self) -> Path:
        """The process that started the run last, from before it acquires the lease."""
        return self.claims / "start.json"

    def end(self, attempt: int) -> Path:
        """How an attempt ended."""
        return self.claims / f"{attempt:08d}.end"

    def ends(self) -> list[Path]:
        """Those that exist, by attempt."""
        return sorted(self.claims.glob("*.end"))

    @property
    def rank_records(self) -> Path:
        """One file per rank of the newest attempt: what it is doing."""
        return self.path / "ranks"

    @property
    def hangs(self) -> Path:
        """One folder per attempt that ended by a hang."""
        return self.path / "hangs"

    def hang(self, attempt: int) -> Path:
        """Folder of the stacks of all ranks, where an attempt ended by a hang."""
        return self.hangs / str(attempt)

    def hang_record(self, attempt: int) -> Path:
        """Which ranks hung, and since when."""
        return self.hang(attempt) / "hang.json"

    @property
    def failures(self) -> Path:
        """Tracebacks, one file per rank."""
        return self.path / "failures"

    @property
    def rendezvous(self) -> Path:
        """Where rank 0 publishes its port while the ranks join."""
        return self.path / "rendezvous"

    @property
    def slurm_history(self) -> Path:
        """Starts and ends of the run's Slurm jobs."""
        return self.path / "slurm.jsonl"

    @property
    def evaluation_jobs(self) -> Path:
        """Slurm jobs submitted for evaluations."""
        return self.path / "evaluation_jobs.jsonl"

    @property
    def debug_mark(self) -> Path:
        """Says that the folder was made by `--debug` or `--overfit`, so that the next one may empty it."""
        return self.path / ".dstrain-debug"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every sub-folder that is written to."""
        models = (self.tokenizer, self.base, self.checkpoints, *map(self.model, MODELS), self.average.path)
        results = (self.plots, self.tensorboard, self.trackers, self.scores, self.external, self.all_hypotheses)
        others = (self.test_sets, self.evaluation, self.claims, self.rank_records, self.hangs)
        return (*models, *results, *others, self.failures, self.rendezvous)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that lies in the run folder itself."""
        lists = (self.metrics, self.quarantine, *map(self.bad_rows, ("train", "eval")))
        return (
            self.config,
            self.info,
            self.outcome,
            self.card,
            self.report,
            self.word_counts,
            self.audit,
            self.vocabulary,
            self.base_record,
            *lists,
            self.slurm_history,
            self.evaluation_jobs,
        )


NAMES = RunFolder(Path())
"""The same paths relative to the run folder, to be shown in texts."""
