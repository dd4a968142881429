"""The audit of a run's data: what both token sets report of their rows, and which evaluation rows are in training.

Overlap is kept in the cache by the names of both sets, so that a set may meet others. Near duplicates need the texts of all
training rows: `dstrain audit` reads them once more, and a start says what it has found before.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dstrain.config.schema import RunConfig
from dstrain.data.bad_rows import BadRowLog, UnusableRowError
from dstrain.data.drops import sources_of
from dstrain.data.identity import hash_sources
from dstrain.data.near import NearFinder
from dstrain.data.overlap import find_shared
from dstrain.data.shards import Beat, beating, no_beat
from dstrain.data.sources import Row, build_rows, read_records
from dstrain.data.tally import NUM_SHOWN
from dstrain.data.tokens import TokenSet
from dstrain.reporting.audit import describe_start, find_alarms
from dstrain.run.cache import cache_dir
from dstrain.run_folder.audit import Audit, Found, Losses, Overlap, read_audit, read_overlap, read_set, write_overlap
from dstrain.run_folder.layout import RunFolder

log = logging.getLogger(__name__)


def overlap_of(config: RunConfig, *, train: TokenSet, evaluation: TokenSet) -> Overlap:
    """How much of the evaluation is in training, found if it is not in the cache.

    Raises UnusableRowError if it must not be, by `data.rules.overlap`.
    """
    path = _cached(config, train=train, evaluation=evaluation)
    overlap = read_overlap(path)
    if overlap is None:
        places = (train.places, evaluation.places)
        rows = np.concatenate(list(evaluation.identities()))
        ways, held = find_shared(rows, train.identities(), places=places)
        overlap = Overlap(evaluation.num_rows, train.fingerprint, evaluation.fingerprint, ways, tuple(held))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_overlap(overlap, path=path)
    if config.data.rules.overlap == "error" and overlap.held_in_training:
        first = "; ".join(f"{mine} and {other}" for mine, other in overlap.ways["normalised source"].rows[:NUM_SHOWN])
        raise UnusableRowError(
            f"{len(overlap.held_in_training):,} of {overlap.eval_rows:,} evaluation rows have a source that is in training, the "
            f"first: {first}. data.rules.overlap is `error`: remove these rows from one of the two, or set it to skip_train or "
            "keep"
        )
    return overlap


def add_near(
    config: RunConfig, overlap: Overlap, *, train: TokenSet, evaluation: TokenSet, beat: Beat = no_beat
) -> Overlap:
    """The overlap with near duplicates, which are looked for if they are not known; reads all training rows."""
    if any(way.startswith("near") for way in overlap.ways):
        return overlap
    finder = NearFinder([(example.raw_source, example.raw_target, example.where) for example in evaluation.examples])
    finder.add(_training_rows(config, evaluation=evaluation, beat=beat))
    found = replace(overlap, ways={**overlap.ways, **finder.shared()})
    write_overlap(found, path=_cached(config, train=train, evaluation=evaluation))
    return found


def _training_rows(config: RunConfig, *, evaluation: TokenSet, beat: Beat) -> Iterator[Row]:
    records = beating(read_records(config.data.train), beat)
    rows = build_rows(records, task=config.task, rules=config.data.rules, on_bad=BadRowLog())
    if config.data.rules.overlap != "skip_train":
        yield from rows
        return
    left_out = {*hash_sources([example.raw_source for example in evaluation.examples]).tolist()}
    for row in rows:
        if int(hash_sources([row.source])[0]) not in left_out:
            yield row


def _cached(config: RunConfig, *, train: TokenSet, evaluation: TokenSet) -> Path:
    return cache_dir(config) / "overlap" / f"{train.folder.name}-{evaluation.folder.name}.json"


def without_errors(config: RunConfig) -> RunConfig:
    """The recipe with every rule that is `error` changed to leave the rows out, or to keep those of training and evaluation."""
    rules = config.data.rules.model_dump() | {"unknown_token": config.unknown_token_rule}
    softer = {rule: "keep" if rule == "overlap" else "skip" for rule, value in rules.items() if value == "error"}
    data = config.data.model_copy(update={"rules": config.data.rules.model_copy(update=softer)})
    return config.model_copy(update={"data": data})


def find_ending(config: RunConfig, audit: Audit) -> tuple[str, ...]:
    """The rules of a recipe that are `error` and have rows in an audit without them."""
    rules = config.data.rules.model_dump() | {"unknown_token": config.unknown_token_rule}
    found = {reason for losses in audit.losses.values() for reason, number in losses.skipped.items() if number}
    found |= {"overlap"} if audit.overlap.held_in_training else set()
    return tuple(rule for rule, value in rules.items() if value == "error" and rule in found)


def build_audit(*, train: TokenSet, evaluation: TokenSet, overlap: Overlap) -> Audit:
    """The audit of both sets and of what they share."""
    reports = {"train": train.report, "eval": evaluation.report}
    sets = {split: read_set(report["audit"]) for split, report in reports.items()}
    losses = {split: _losses(report) for split, report in reports.items()}
    return Audit(sets["train"], sets["eval"], overlap, losses)


def _losses(report: Mapping[str, Any]) -> Losses:
    unknown = [report[f"{side}_unknown"] / max(1, report[f"{side}_tokens"]) for side in ("source", "target")]
    first = report["first_not_given_back"]
    return Losses(
        skipped=report["skipped"],
        rows={name: tuple(rows) for name, rows in report["bad_places"].items()},
        source_cut=report["source_cut"],
        target_cut=report["target_cut"],
        kept_too_long=report["kept_too_long"],
        source_unknown=unknown[0],
        target_unknown=unknown[1],
        not_given_back=Found(report["not_given_back"], (first["where"],) if first else ()),
    )


def say_audit(audit: Audit, *, config: RunConfig) -> None:
    """Say on the terminal what is worth saying before the first step."""
    for line in describe_start(audit, max_rows=config.evaluation.max_rows):
        log.info("%s", line)
    for alarm in find_alarms(audit, kind=config.task.base_kind):
        log.warning("%s", alarm)


def held_out_by(evaluation: TokenSet) -> bytes:
    """The sources of an evaluation set, which training leaves out with `data.rules.overlap: skip_train`."""
    return sources_of(np.concatenate(list(evaluation.identities())))


def mark_held(tokens: TokenSet, *, run: RunFolder | None) -> None:
    """Note which rows of an evaluation set are in the training of a run, if they are those that the run has audited."""
    audit = None if run is None else read_audit(run)
    if audit is not None and audit.overlap.eval_fingerprint == tokens.fingerprint:
        tokens.held_in_training = frozenset(audit.overlap.held_in_training)
