"""The scores of one evaluation: one type from the metrics to the model card, and the files that hold them. No torch.

An evaluation leaves `scores/step-….json` and, beside it, the folder of its hypotheses: in the run folder for the run's own
evaluation rows, in `test_sets/NAME/` for another test set. The run alone writes metrics.jsonl, so the scores of another
job reach the run's records through these files.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import count, takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.config.arguments import shell_command
from dstrain.run_folder.atomic import new_folder, write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes
from dstrain.run_folder.row_statistics import STATISTICS, statistics_lines


@dataclass(frozen=True, slots=True)
class OutputRate:
    """The share of texts with a mark of a model that fails, 0 to 1; some references have it as well."""

    hypotheses: float
    references: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of one evaluation, with everything needed to interpret them and to compute them again.

    Rates lie in 0..1, BLEU and chrF in 0..100.
    """

    scores: dict[str, float]
    """Over all rows; those that may choose the best model also by evaluation set (`flores/bleu`)."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same by group of rows, where data.eval names sets, or the data name groups or have several language pairs."""
    signatures: dict[str, str] = field(default_factory=dict)
    """sacreBLEU's, by score."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Settings of the search."""
    num_rows: int | None = None
    hypotheses: str | None = None
    """Folder of the hypotheses, relative to the folder that holds `scores/`."""
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    intervals: dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]] = field(default_factory=dict)
    """Half the 95 % interval of each score whose rows have numbers of their own."""
    outputs: dict[str, OutputRate] = field(default_factory=dict)
    """Shares of empty hypotheses, loops, copies of the source, and other scripts or languages than those of the references."""

    def signature_of(self, metric: str) -> str | None:
        """The signature of a score; that of an evaluation set (`flores/bleu`) is listed only where it is not that of all rows."""
        name, _, of_set = metric.rpartition("/")
        return self.signatures.get(f"{of_set} ({name})", self.signatures.get(of_set))

    def as_fields(self) -> dict[str, Any]:
        """The fields of this class by name, to build a type that extends it."""
        return {each.name: getattr(self, each.name) for each in fields(Scores)}


@dataclass(frozen=True, slots=True)
class ScoredData:
    """The rows that were scored."""

    places: tuple[str, ...]
    """For each source a file, a name on the hub or `demo:…`."""
    fingerprint: str
    """A hash of their tokens."""
    rows_read: int | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows that were read and not scored, by reason."""
    truncated: int = 0
    """Rows whose source was cut at `task.max_source_tokens`."""
    changes: dict[str, Any] | None = None
    """Keys that decide a score and have another value than in the run's own evaluations; None if they were not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFile(Scores):
    """A score file."""

    step: int
    lease: int = 0
    """Lease of the checkpoint, where the run left the evaluation to another job; else 0."""
    data: ScoredData | None = None


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """The texts that were compared, one line each, in the order of the evaluation rows."""

    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]
    """The first reference of every row, the second, and so on; a row with fewer repeats its first."""
    sources: Sequence[str]
    index: Sequence[str]
    """`file:line` of every row, because rows that cannot be used are left out."""
    statistics: Sequence[Mapping[str, Sequence[float]]] = ()
    """What each row adds to each score that it counts in; empty if that is not known."""


_SCORE_FILE = TypeAdapter(ScoreFile)
SOURCES = "sources.txt"
"""In a folder of hypotheses: the sources, one in each line."""


def describe_scores(scores: Scores) -> str:
    """The scores over all rows in one line, with their intervals: `bleu 39.5000 ± 0.9000  gen_len 17.2000`."""
    return "  ".join(
        f"{name} {value:.4f}" + (f" ± {scores.intervals[name]:.4f}" if name in scores.intervals else "")
        for name, value in scores.scores.items()
    )


def write_scores(
    scores: Scores,
    texts: ScoredTexts,
    *,
    folder: RunFolder,
    step: int,
    lease: int = 0,
    data: ScoredData | None = None,
) -> str:
    """Write the texts and the score file of a step; returns the texts' folder, relative to `folder`.

    The folder of the texts appears complete and before the score file, so that a score that can be read has its
    hypotheses. The score file also holds the sacrebleu command that computes the same numbers. One process at a time may
    write there.
    """
    hypotheses, score_file = folder.hypotheses(step), folder.score_file(step)
    with new_folder(hypotheses, draft=hypotheses.with_name(f"{hypotheses.name}.tmp"), durable=False) as draft:
        write_texts(texts, folder=draft)
        # they belong to the earlier evaluation of this step
        folder.external_file(step).unlink(missing_ok=True)
        score_file.unlink(missing_ok=True)
    relative = str(hypotheses.relative_to(folder.path))
    fields = scores.as_fields() | {"hypotheses": relative}
    values = asdict(ScoreFile(**fields, step=step, lease=lease, data=data)) | {"command": sacrebleu_command(scores)}
    write_file(score_file, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
    return relative


def write_texts(texts: ScoredTexts, *, folder: Path) -> None:
    """Write the texts to a folder, a file for each kind."""
    files = {"hypotheses.txt": texts.hypotheses, SOURCES: texts.sources, "index.txt": texts.index}
    files |= {f"{_reference_name(number)}.txt": lines for number, lines in enumerate(texts.references)}
    if texts.statistics:
        files[STATISTICS] = statistics_lines(texts.statistics)
    for name, lines in files.items():
        content = "".join(f"{line}\n" for line in lines)
        (folder / name).write_text(content, encoding="utf-8", newline="\n")


def reference_files(folder: Path) -> list[Path]:
    """The files of the references in a folder of texts: of the first of every row, the second, and so on."""
    paths = (folder / f"{_reference_name(number)}.txt" for number in count())
    return list(takewhile(lambda path: path.exists(), paths)) or [folder / f"{_reference_name(0)}.txt"]


def _reference_name(number: int) -> str:
    return f"references.{number}" if number else "references"


def sacrebleu_command(scores: Scores, *, folder: str | None = None) -> str | None:
    """The command that computes the same BLEU, chrF and TER; None if there is none of them with a signature.

    `folder` is that of the texts, seen from where the command is run; None runs it in the folder itself.
    """
    metrics = [name for name in ("bleu", "chrf", "ter") if name in scores.signatures]
    if not metrics:
        return None
    settings = dict(part.split(":", 1) for part in scores.signatures[metrics[0]].split("|") if ":" in part)
    named = settings.get("tok", "13a")
    # the signature of a MeCab tokenizer continues with the version of its dictionary
    tokenizer = next((mecab for mecab in ("ja-mecab", "ko-mecab") if named.startswith(mecab)), named)
    num_references = settings.get("nrefs", "1")
    if not re.fullmatch("[0-9]{1,3}", num_references):  # a stranger's: no signature of sacreBLEU
        return None
    names = [_reference_name(number) for number in range(int(num_references))]
    *references, hypotheses = (
        f"{name}.txt" if folder is None else f"{folder}/{name}.txt" for name in (*names, "hypotheses")
    )
    words = ["sacrebleu", *references, "-i", hypotheses, "-m", *metrics, "-w", "4"]
    of_bleu = ["-tok", tokenizer, *(["-lc"] if settings.get("case") == "lc" else [])] if "bleu" in metrics else []
    return shell_command([*words, *of_bleu])


def read_score_file(folder: RunFolder, *, step: int) -> ScoreFile | None:
    """The score file of a step; None if it does not exist or is damaged."""
    return _read(folder.score_file(step))


def find_other_data(folder: RunFolder, *, data: ScoredData) -> ScoredData | None:
    """Rows other than `data` that a score file in `folder` was made from; None if there is no such file."""
    read = (_read(path) for path in folder.score_files())
    kept = (scores.data for scores in read if scores is not None and scores.data is not None)
    return next((other for other in kept if other.fingerprint != data.fingerprint), None)


def read_test_sets(folder: RunFolder) -> Mapping[str, tuple[ScoreFile, ...]]:
    """Scores of other test sets by name, in the order of their steps; raises RunFolderError where a file is damaged."""
    names = sorted(path.name for path in folder.test_sets.glob("*"))
    found = {name: tuple(_read_test_set(RunFolder(folder.test_sets / name))) for name in names}
    return {name: scores for name, scores in found.items() if scores}


def _read_test_set(folder: RunFolder) -> Iterator[ScoreFile]:
    for path in folder.score_files():
        try:
            yield _SCORE_FILE.validate_json(read_bytes(path))
        except ValidationError as error:
            fault = error.errors()[0]
            raise RunFolderError(
                f"{path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}; score it again, or remove the file"
            ) from error


def _read(path: Path) -> ScoreFile | None:
    try:
        scores: ScoreFile = _SCORE_FILE.validate_json(read_bytes(path))
    except (OSError, ValidationError):
        return None
    return scores
