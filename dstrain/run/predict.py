"""Predicts the rows of a file or of standard input, window by window, on any number of ranks.

Rank 0 reads, tokenises and writes; every rank searches its share of a window's batches, which are planned over the whole window.
So predictions are the same on any number of ranks.
"""

import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import numpy as np

from dstrain.cluster.console import cleaned
from dstrain.cluster.console import describe as describe_error
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.progress import Progress
from dstrain.config.recipe import Task
from dstrain.data.examples import prepare_source
from dstrain.data.inputs import InputRow, Prediction, read_inputs, read_windows, write_row
from dstrain.data.visible import has_visible_text
from dstrain.errors import UserError
from dstrain.evaluation.generate import deal_batches, evaluation_mode
from dstrain.evaluation.predict import Candidate, Found, Search, Source, cut_source, encode_sources, read_text
from dstrain.run.predict_model import Predictor, describe, find_ignored, find_untrained, load_predictor
from dstrain.run.predict_request import STANDARD_INPUT, PredictRequest
from dstrain.run_folder.atomic import open_new
from dstrain.tasks.own_task import UnusableText
from dstrain.tasks.parsing import find_dangling
from dstrain.tasks.translation import Languages, choose_prefix

SHOWN_PLACES = 3

log = logging.getLogger(__name__)

Write = Callable[[str], None]


class ToldByRank0(UserError):
    """A mistake that rank 0 has found and told the others."""

    is_said_by_rank_0 = True


@dataclass(frozen=True, slots=True)
class Window:
    """What rank 0 tells the others before each search."""

    sources: list[Source]
    is_over: bool = False
    """Whether there is nothing more to search."""
    problem: str | None = None
    """Why rank 0 ends early."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The sources of a window, and to which of its rows each belongs."""

    sources: list[Source]
    rows: list[int]


@dataclass(slots=True)
class Tally:
    """What became of the rows."""

    num_rows: int = 0
    num_empty: int = 0
    cut: list[str] = field(default_factory=list)
    """The places of the first rows that were too long."""
    num_cut: int = 0
    num_capped: int = 0
    """Predictions that the longest length ended."""
    untrained: str | None = None
    """What is to be said of the first row that names languages which the model was never trained in."""
    num_untrained: int = 0
    num_dangling: int = 0
    """Predictions with a pointer beyond the words of the source."""
    dangling: str = ""
    """The place of the first of them, the pointer and the number of words."""
    num_tokens: int = 0
    """Tokens of the best predictions."""

    def note_pointers(self, row: InputRow, candidate: Candidate, *, predictor: Predictor) -> None:
        """Count a prediction whose pointers are not all words of its source."""
        decode, task = predictor.search.tokenizer.decode, predictor.task
        raw = read_text(candidate, source=row.source, where=row.where, task=task, keeps_pointers=True, decode=decode)
        source = prepare_source(row.source, task=task, prefix="", where=row.where)
        if found := find_dangling(raw, source=source):
            self.num_dangling += 1
            self.dangling = self.dangling or f"{row.where}: {found[0]} of {_count(len(source.split()), 'word')}"


def predict(request: PredictRequest, *, ranks: Ranks) -> None:
    """Write the predictions of all rows; all ranks call it.

    Raises:
        UserError: model, settings or a row cannot be used; on every rank.
        BrokenPipeError: no one reads the output any more; on rank 0 only.
    """
    total = _check_input(request, ranks=ranks)
    predictor = load_predictor(request, device=ranks.device)
    if ranks.rank == 0:
        log.info("%s", describe(predictor, request=request))
        for sentence in find_ignored(predictor, request=request):
            log.warning("%s", sentence)
    if ranks.rank == 0:
        predict_rows(request, predictor=predictor, ranks=ranks, total=total)
    else:
        _follow(predictor.search, ranks=ranks)


def _check_input(request: PredictRequest, *, ranks: Ranks) -> int | None:
    """The number of rows of a file, once all of them have been read: before the model is loaded. None for a stream."""
    total, problem = None, None
    if ranks.rank == 0 and not request.is_stream:
        try:
            total = sum(not row.is_header for row in _read(request))
        except UserError as error:
            problem = str(error)
    if (told := ranks.broadcast(problem, str | None)) is not None:
        raise ToldByRank0(told)
    return total


def _read(request: PredictRequest) -> Iterator[InputRow]:
    if request.input != STANDARD_INPUT:
        return read_inputs(request.input, layout=request.layout)
    return read_inputs(Path("stdin"), layout=request.layout, file=cast(io.BufferedReader, sys.stdin.buffer))


def predict_rows(request: PredictRequest, *, predictor: Predictor, ranks: Ranks, total: int | None) -> None:
    """Read, have all ranks search, and write, on rank 0; `total` is the number of rows, if it is known."""
    windows, tally = read_windows(_read(request)), Tally()
    progress = Progress("predicting", unit="rows", total=total)
    with ExitStack() as stack:
        stack.callback(progress.close)
        write = stack.enter_context(_open_output(request.output))
        while True:
            with _told(ranks):
                rows = next(windows, None)
                if rows is None:
                    break
                prepared = _prepare(rows, request=request, predictor=predictor, tally=tally)
            if prepared.sources:
                ranks.broadcast(Window(prepared.sources), Window)
            found = search_window(
                prepared.sources,
                search=predictor.search,
                ranks=ranks,
                on_rows=lambda number: progress.show(tally.num_rows + number),
            )
            with _told(ranks):
                for text in _texts(rows, prepared, found, request=request, predictor=predictor, tally=tally):
                    write(text)
                write("")
        with _told(ranks):
            stack.close()  # a file takes its place now
    ranks.broadcast(Window([], is_over=True), Window)
    _summarise(tally, seconds=progress.seconds, request=request, predictor=predictor)


def _follow(search: Search, *, ranks: Ranks) -> None:
    """Search what rank 0 sends, on the other ranks."""
    while not (window := ranks.broadcast(None, Window)).is_over:
        if window.problem is not None:
            raise ToldByRank0(window.problem)
        search_window(window.sources, search=search, ranks=ranks)


@contextmanager
def _told(ranks: Ranks) -> Iterator[None]:
    """Lets the other ranks, which wait for the next window, know of an error."""
    try:
        yield
    except BrokenPipeError:
        ranks.broadcast(Window([], is_over=True), Window)
        raise
    except (UserError, OSError) as error:
        ranks.broadcast(Window([], problem=describe_error(error)), Window)
        raise


def search_window(
    sources: Sequence[Source], *, search: Search, ranks: Ranks, on_rows: Callable[[int], None] = lambda number: None
) -> list[Found]:
    """What is found for each source, in order, on rank 0; nothing on the others. All ranks call it.

    `on_rows` is called after each batch with the number of rows that all ranks have done by then, about.
    """
    if not sources:
        return []
    batches = search.plan(sources)
    lengths = np.asarray([len(source.ids) for source in sources], dtype=np.int32)
    share = deal_batches(batches, source_lengths=lengths, world_size=ranks.world_size)[ranks.rank]
    own = sum(len(batch.rows) for batch in share)
    generations = {batch.target_language: search.generation(batch.target_language) for batch in share}
    found: list[Found] = []
    with evaluation_mode(search.model, loss_module=search.model):
        for batch in share:
            found += search.predict(batch, sources=sources, generation=generations[batch.target_language])
            on_rows(len(found) * len(sources) // own)
    gathered = ranks.gather(found, list[Found])
    if gathered is None:
        return []
    results = sorted((each for part in gathered for each in part), key=lambda each: each.row)
    if [each.row for each in results] != [*range(len(sources))]:
        raise RuntimeError("the ranks must return each row of a window exactly once: start all with the same version")
    return results


def _prepare(rows: Sequence[InputRow], *, request: PredictRequest, predictor: Predictor, tally: Tally) -> Prepared:
    """The sources of the rows that have one, within the limits of the task."""
    task, search = predictor.task, predictor.search
    wanted = [number for number, row in enumerate(rows) if has_visible_text(row.source)]
    texts = [_read_source(rows[number], task=task) for number in wanted]
    languages = [_languages(rows[number], predictor=predictor) for number in wanted]
    prefixes = [
        _prefix(rows[number], task=task, languages=pair) for number, pair in zip(wanted, languages, strict=True)
    ]
    read = [prefix + text for prefix, text in zip(prefixes, texts, strict=True)]
    ids = encode_sources(read, languages=languages, tokenizer=search.tokenizer)
    prepared = Prepared([], [])
    for number, each, (source, target) in zip(wanted, ids, languages, strict=True):
        own = (rows[number].source_language, rows[number].target_language)
        if own != (None, None) and (untrained := find_untrained(request, source=source, target=target)):
            tally.num_untrained += 1
            tally.untrained = tally.untrained or f"{rows[number].where}: {untrained}"
        if search.tokenizer.is_empty(each):
            continue
        if len(each) > task.max_source_tokens:
            tally.num_cut += 1
            tally.cut += [rows[number].where][: SHOWN_PLACES - len(tally.cut)]
        prepared.sources.append(Source(cut_source(each, task=task, tokenizer=search.tokenizer), target))
        prepared.rows.append(number)
    return prepared


def _read_source(row: InputRow, *, task: Task) -> str:
    """What the model reads for a row, without prefix. Raises UserError where a class of the user's own refuses it."""
    try:
        return prepare_source(row.source, task=task, prefix="", where=row.where)
    except UnusableText as error:
        raise UserError(f"{row.where}: {error}; found {row.source[:200]!r}") from error


def _prefix(row: InputRow, *, task: Task, languages: tuple[str | None, str | None]) -> str:
    """What the model reads before the source. Raises UserError where it names a language that the row lacks."""
    prefix = choose_prefix(task, prefix=None, languages=Languages(*languages))
    for side in ("source", "target"):
        if f"{{{side}_language}}" in prefix:
            raise UserError(
                f"{row.where}: the prefix {prefix!r} needs the {side} language, and the row names none: fill the cell, or give "
                f"--{side}-language"
            )
    return prefix


def _languages(row: InputRow, *, predictor: Predictor) -> tuple[str | None, str | None]:
    """The languages of a row: its own, else the task's. Raises UserError for one that is missing or not known."""
    task, codes = predictor.task, predictor.search.tokenizer.languages
    pair = row.source_language or task.source_language, row.target_language or task.target_language
    for own in (row.source_language, row.target_language):
        if own is not None:
            predictor.check_language(own, where=row.where)
    if codes and task.kind == "translation" and None in pair:
        side = "source" if pair[0] is None else "target"
        raise UserError(f"{row.where}: the row names no {side} language: fill the cell, or give --{side}-language")
    return pair


def _texts(
    rows: Sequence[InputRow],
    prepared: Prepared,
    found: Sequence[Found],
    *,
    request: PredictRequest,
    predictor: Predictor,
    tally: Tally,
) -> Iterator[str]:
    """The text of the output for each row of a window, in order."""
    at = dict(zip(prepared.rows, found, strict=True))
    for number, row in enumerate(rows):
        predictions = []
        if number in at:
            result = at[number]
            for candidate in result.candidates:
                text = read_text(
                    candidate,
                    source=row.source,
                    where=row.where,
                    task=predictor.task,
                    keeps_pointers=request.keeps_pointers,
                    decode=predictor.search.tokenizer.decode,
                )
                predictions.append(Prediction(text, candidate.score))
            if predictor.task.has_pointers:
                tally.note_pointers(row, result.candidates[0], predictor=predictor)
            tally.num_capped += result.candidates[0].was_cut
            tally.num_tokens += len(result.candidates[0].token_ids)
        tally.num_rows += not row.is_header
        tally.num_empty += not row.is_header and number not in at
        yield write_row(row, predictions, layout=request.layout)


@contextmanager
def _open_output(path: Path | None) -> Iterator[Write]:
    """Writes text to a file, which appears when it is complete, or to standard output, which an empty text flushes."""
    if path is not None:
        with _named_output(f"--output {path}", among=path.parent), open_new(path) as file:
            yield lambda text: _write(text, file=file)
        return
    output = sys.stdout.buffer
    # texts of strangers do not control a terminal; a file and a program get them as they are
    clean = cleaned if sys.stdout.isatty() else str

    def write(text: str) -> None:
        with _named_output("standard output", among=None):
            _write(clean(text), file=output)
            if not text:
                output.flush()

    yield write


@contextmanager
def _named_output(name: str, *, among: Path | None) -> Iterator[None]:
    """Names the output in an error of writing it: one that names a file in the folder `among`, or none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is not None and (among is None or Path(error.filename).parent != among):
            raise
        way_out = "make room there, or name another file with --output"
        raise UserError(f"{name} cannot be written ({error.strerror}): {way_out}") from error


def _write(text: str, *, file: IO[bytes]) -> None:
    file.write(text.encode("utf-8"))


def _summarise(tally: Tally, *, seconds: float, request: PredictRequest, predictor: Predictor) -> None:
    """Say what was done, and what a user should know of it."""
    seconds = max(seconds, 1e-9)
    to = "" if request.output is None else f": {request.output}"
    log.info(
        "%s in %.1f s: %.1f rows/s, %s generated tokens/s%s",
        _count(tally.num_rows, "row"),
        seconds,
        tally.num_rows / seconds,
        f"{tally.num_tokens / seconds:,.0f}",
        to,
    )
    if tally.num_empty:
        their = "its prediction is" if tally.num_empty == 1 else "their predictions are"
        log.info("%s without a text: %s empty", _count(tally.num_empty, "row"), their)
    if tally.num_cut:
        were = "was" if tally.num_cut == 1 else "were"
        more = ", …" if tally.num_cut > len(tally.cut) else ""
        places = f"{predictor.task.max_source_tokens} tokens: {', '.join(tally.cut)}{more}"
        log.warning("%s %s cut to %s (--max-source-tokens)", _count(tally.num_cut, "source"), were, places)
    if tally.num_capped:
        were = "was" if tally.num_capped == 1 else "were"
        limit = predictor.search.max_new_tokens
        log.warning("%s %s cut at %d tokens (--max-new-tokens)", _count(tally.num_capped, "prediction"), were, limit)
    _warn_of_rows(tally)


def _warn_of_rows(tally: Tally) -> None:
    """What is wrong with predictions, and with the languages of rows."""
    if tally.num_dangling:
        has = "has" if tally.num_dangling == 1 else "have"
        log.warning(
            "%s %s pointers beyond the words of the source, which stay as they are; the first is %s",
            _count(tally.num_dangling, "prediction"),
            has,
            tally.dangling,
        )
    if tally.untrained:
        log.warning(
            "%s of languages that were not trained; the first is %s",
            _count(tally.num_untrained, "row"),
            tally.untrained,
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
