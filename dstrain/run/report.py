"""Reports of runs: counts the words of the training data once, and writes the page. No torch.

What a report says of training is read from run folders. How rare a word is in training alone needs the data; the counts are kept
in the run folder, so that a report can be written again where the data are not.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from dstrain.config.arguments import shell_command
from dstrain.config.schema import RunConfig
from dstrain.data.examples import build_examples
from dstrain.data.sources import fingerprint_source, read_rows
from dstrain.errors import UserError
from dstrain.html_report.files import UNREADABLE, Notes, RunFiles, StartFiles, read_run, read_starts, train_fingerprint
from dstrain.html_report.rarity import count_words, words_of
from dstrain.html_report.report import build_document, check_output, write_report
from dstrain.html_report.text_sets import list_sets
from dstrain.html_report.texts import read_rows as read_scored_rows
from dstrain.reporting.standing import Standing
from dstrain.run_folder.find import find_starts, has_only_starts, holds_starts
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.word_counts import WordCounts, write_word_counts

MAX_COUNTED_ROWS = 1_000_000
"""Most training rows whose words are counted."""
MAX_RUNS = 50
"""Most runs in a report."""
_ROWS_PER_BEAT = 1000

log = logging.getLogger(__name__)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders that the paths name, each once; a folder of run folders, as of a sweep, stands for all of them.

    The runs of some may never have begun to train.

    Raises:
        UserError: there are too many.
    """
    found = list(dict.fromkeys(run for path in paths for run in (_runs_in(path) or [path])))
    if len(found) > MAX_RUNS:
        raise UserError(f"{len(found):,} runs, and a report shows at most {MAX_RUNS}: name some of them")
    return found


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir() or holds_starts(RunFolder(path)):
        return []
    return sorted(each for each in path.iterdir() if holds_starts(RunFolder(each)))


@dataclass(frozen=True, slots=True)
class Written:
    """A report that has been written."""

    num_bytes: int
    num_damage: int
    """Notes in it about files that are missing or cannot be read."""


def report_runs(run_dirs: Sequence[Path], *, output: Path, standings: Mapping[Path, Standing] | None = None) -> Written:
    """Write the report of some runs, which may be training.

    Words of the training data are counted where they have not been, if all the data are files that lie here unchanged.

    Raises:
        UserError: a folder is not a run folder, or `output` is something else than a report.
        OSError: the report cannot be written.
    """
    check_output(output)
    return _write([_read(run_dir) for run_dir in run_dirs], output, standings=standings)


def _read(run_dir: Path) -> RunFiles | StartFiles:
    if has_only_starts(find_starts(run_dir)):
        return read_starts(run_dir)
    return _with_word_counts(read_run(run_dir), is_own=False)


def report_at_end(folder: RunFolder, *, is_own: bool, beat: Callable[[], None] = lambda: None) -> None:
    """Write the report of a run into its folder; whatever goes wrong is a warning, because the run is done.

    Args:
        is_own: whether this process has trained the run, so that its data are here and unchanged.
        beat: called again and again while the training data are read.
    """
    try:
        check_output(folder.report)
        written = _write([_with_word_counts(read_run(folder.path), is_own=is_own, beat=beat)], folder.report)
    except Exception as error:  # a mistake in a report must not change how the run ends
        log.warning(
            "the report could not be written (%s): write it with: %s",
            error,
            shell_command(["dstrain", "report", folder.path]),
        )
    else:
        log.info("report: %s (%.1f MB)", folder.report, written.num_bytes / 1e6)


def _write(
    runs: Sequence[RunFiles | StartFiles], output: Path, *, standings: Mapping[Path, Standing] | None = None
) -> Written:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    document = build_document(runs, created=created, standings=standings)
    return Written(write_report(document, path=output), len(document.damage))


def _with_word_counts(files: RunFiles, *, is_own: bool, beat: Callable[[], None] = lambda: None) -> RunFiles:
    """The files with counts of the words of all references, counted and kept if they were not, or a note why there are none.

    Args:
        is_own: as in `report_at_end`; otherwise it is looked whether the data are unchanged, and nothing is downloaded.
    """
    words = _reference_words(files)
    if not words or (files.word_counts is not None and words <= files.word_counts.counts.keys()):
        return files
    try:
        if not is_own:
            _check_data(files)
        counts = _count(files.record.config, words=words, fingerprint=train_fingerprint(files.record.info), beat=beat)
    except UNREADABLE as error:
        why = f"how rare the words of some rows are in training is not known: {error}"
        return replace(files, notes=files.notes + Notes(others=(why,)))
    try:
        write_word_counts(files.folder, counts)
    except OSError as error:
        log.warning("the counts of words are not kept (%s): the next report counts them again", error)
    return replace(files, word_counts=counts)


def _reference_words(files: RunFiles) -> set[str]:
    """The words of the first references of all sets."""
    words: set[str] = set()
    for each in list_sets(files):
        try:
            rows = read_scored_rows(each.folder, step=each.scored[-1].step)
        except UNREADABLE:  # the report says so
            continue
        words.update(word for texts in rows.references for word in words_of(texts[0]))
    return words


def _check_data(files: RunFiles) -> None:
    """Raise UserError unless the training data are files that lie here as the run read them."""
    recorded = files.record.info.data.get("train")
    for number, source in enumerate(files.record.config.data.train):
        if source.hub is not None:
            raise UserError("the training data are on the Hub, and nothing is downloaded for a report")
        if recorded is None or number >= len(recorded.sources):
            raise UserError("the run folder does not say which training data the run has read")
        if fingerprint_source(source) != recorded.sources[number]:
            raise UserError("the training data have changed since the run read them")


def _count(
    config: RunConfig, *, words: Collection[str], fingerprint: str | None, beat: Callable[[], None]
) -> WordCounts:
    targets = _targets(config)
    num_rows = 0

    def counted() -> Iterator[str]:
        nonlocal num_rows
        for num_rows, target in enumerate(islice(targets, MAX_COUNTED_ROWS), start=1):
            if num_rows % _ROWS_PER_BEAT == 0:
                beat()
            yield target

    counts = count_words(counted(), words=words)
    return WordCounts(fingerprint, num_rows, is_all=next(targets, None) is None, counts=counts)


def _targets(config: RunConfig) -> Iterator[str]:
    """The training targets in the form of the references, in the order of the data."""
    task, rules = config.task, config.data.rules
    rows = read_rows(config.data.train, task=task, rules=rules, on_bad=lambda row: None)
    if task.has_pointers:
        return (each.target for each in build_examples(rows, task=task, rules=rules, on_bad=lambda row: None))
    return (row.target for row in rows)
