"""A report of one or several runs: builds its document from their folders, and writes the page.

Reads run folders alone: no training data, no model, no network.
"""

import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dstrain import __version__
from dstrain.errors import UserError
from dstrain.html_report.audit_tables import build_audit_tables
from dstrain.html_report.curves import (
    MAX_EVALUATIONS,
    MAX_POINTS,
    OWN_SET,
    draw_metrics,
    draw_training,
    largest_groups,
)
from dstrain.html_report.document import Best, Document, Run, TextSet, encode
from dstrain.html_report.files import Notes, RunFiles, StartFiles
from dstrain.html_report.page import build_page
from dstrain.html_report.privacy import shown_text
from dstrain.html_report.settings import list_settings, summarize_run
from dstrain.html_report.text_sets import build_set, list_sets, note_missing
from dstrain.html_report.timeline import list_attempts, list_marks, list_warnings
from dstrain.reporting.standing import Standing, read_standing
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.reading import read_bytes

MAX_TEXT_BYTES = 20 << 20
"""Most bytes of texts in a report, before they are compressed."""
MIN_TEXT_BYTES = 64 << 10
"""Texts are not made fewer than that: something else is large."""
MAX_PACKED_BYTES = 2_100_000
"""Most bytes of a document once it is compressed: a page of less than 3 MB, in which three of them take the room of four."""
MARK = b'id="dstrain-data"'
"""In every report, and in no other page."""


def write_report(document: Document, *, path: Path) -> int:
    """Write the page of a document; returns its size in bytes."""
    names = ", ".join(run.name for run in document.runs)
    page = build_page(encode(document), title=names).encode("utf-8", errors="replace")
    write_file(path, page)
    return len(page)


def check_output(path: Path) -> None:
    """Raise UserError where a report would replace something else, or has no folder to lie in."""
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder; make it, or name another file with --output")
    if not os.path.lexists(path):
        return
    is_report = path.is_file() and not path.is_symlink() and MARK in read_bytes(path)
    if not is_report:
        raise UserError(f"{path} exists and is no report: name another file with --output")


def build_document(
    runs: Sequence[RunFiles | StartFiles], *, created: str, standings: Mapping[Path, Standing] | None = None
) -> Document:
    """The document of the runs, in the order given.

    Args:
        created: the present time in ISO format.
        standings: what each run is doing, by its folder, where that is known better than from its rows.
    """
    standings = standings or {}
    room = MAX_TEXT_BYTES // len(runs)
    while True:
        document = _build_document(runs, created=created, standings=standings, max_bytes=room)
        size = len(gzip.compress(encode(document)))
        used = max((_text_bytes(files) for files in runs), default=0)
        if size <= MAX_PACKED_BYTES or room <= MIN_TEXT_BYTES:
            return document
        room = int(0.9 * min(room, used) * MAX_PACKED_BYTES / size)


def _build_document(
    runs: Sequence[RunFiles | StartFiles], *, created: str, standings: Mapping[Path, Standing], max_bytes: int
) -> Document:
    """The same with at most about `max_bytes` of texts for each run."""
    built, damage, notes = [], list[str](), list[str]()
    names = [files.run_name for files in runs]
    for files in runs:
        run, said = _build_run(files, standing=standings.get(files.folder.path), max_bytes=max_bytes)
        # runs of one recipe have one name
        built.append(run if names.count(run.name) == 1 else replace(run, name=f"{run.name} ({run.folder})"))
        whose = "" if len(runs) == 1 else f"{files.name}: "
        damage += [f"{whose}{shown_text(note)}" for note in said.damage]
        notes += [f"{whose}{shown_text(note)}" for note in said.others]
    return Document(created=created, dstrain=__version__, damage=damage, notes=notes, runs=built)


def _text_bytes(files: RunFiles | StartFiles) -> int:
    return 0 if isinstance(files, StartFiles) else sum(each.num_bytes for each in list_sets(files))


def _build_run(files: RunFiles | StartFiles, *, standing: Standing | None, max_bytes: int) -> tuple[Run, Notes]:
    if isinstance(files, StartFiles):
        return _build_starts(files, standing=standing or Standing("interrupted")), files.notes
    record, standing = files.record, standing or read_standing(files.record)
    sets, notes = _build_sets(files, max_bytes=max_bytes)
    unread: list[Literal["rows", "texts"]] = ["rows"] if files.has_unread_rows else []
    unread += ["texts"] if notes.damage else []
    run = Run(
        name=files.run_name,
        folder=files.name,
        state=standing.state,
        why=shown_text(standing.why),
        advice=shown_text(standing.advice),
        summary=summarize_run(files, standing=standing),
        best=Best(record.config.best_metric, record.best.step, OWN_SET) if record.best is not None else None,
        train=draw_training(record.train_rows),
        metrics=draw_metrics(record),
        marks=list_marks(files),
        attempts=list_attempts(files, state=standing.state),
        warnings=list_warnings(files),
        settings=list_settings(files),
        audit=None if record.audit is None else build_audit_tables(record.audit, kind=record.config.task.base_kind),
        sets=sets,
        unread=unread,
    )
    return run, files.notes + _note_undrawn(files) + notes


def _build_starts(files: StartFiles, *, standing: Standing) -> Run:
    """A run that has never begun to train, of which no more is known than its starts."""
    return Run(
        name=files.run_name,
        folder=files.name,
        state=standing.state,
        why=shown_text(standing.why),
        advice=shown_text(standing.advice),
        summary=[("state", standing.state)],
        best=None,
        train=draw_training(()),
        metrics=(),
        marks=(),
        attempts=list_attempts(files, state=standing.state),
        warnings=(),
        settings=(),
        audit=None,
        sets=(),
    )


def _build_sets(files: RunFiles, *, max_bytes: int) -> tuple[list[TextSet], Notes]:
    """The texts of all sets, which share the room by their size; and notes."""
    found = list_sets(files)
    notes, total = note_missing(files, found), sum(each.num_bytes for each in found)
    counts = files.word_counts
    built = []
    for each in found:
        text_set, said = build_set(
            each,
            config=files.record.config,
            counts={} if counts is None else counts.counts,
            max_bytes=max_bytes * each.num_bytes // max(1, total),
        )
        built += [] if text_set is None else [text_set]
        notes += said
    if found and counts is not None and not counts.is_all:
        notes += Notes(others=(f"how rare a word is in training was counted in the first {counts.num_rows:,} rows",))
    return built, notes


def _note_undrawn(files: RunFiles) -> Notes:
    """A sentence for each kind of point or curve of which some are not drawn."""
    record, notes = files.record, list[str]()
    for what, number, most in (
        ("training rows", len(record.train_rows), MAX_POINTS),
        ("evaluations", len(record.eval_rows), MAX_EVALUATIONS),
    ):
        if number > most:
            notes.append(f"of {number:,} {what} {most:,} are drawn, evenly spread")
    for name in (OWN_SET, *record.test_sets):
        _, left_out = largest_groups(record, set_name=name)
        if left_out:
            notes.append(f"{left_out:,} of the smaller groups of `{name}` are not drawn; the score files have them")
    return Notes(others=tuple(notes))
