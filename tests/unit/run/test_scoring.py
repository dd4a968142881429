"""Scoring without an engine: one job at a time makes the scores of a folder, and only its holder writes them."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost, acquire
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.processes import this_process
from dstrain.errors import UserError
from dstrain.evaluation.result import EvaluationResult
from dstrain.run.evaluation_request import EvaluationRequest
from dstrain.run.scoring import (
    Target,
    _as_section,
    _next_pending,
    _no_folder_of_a_mistake,
    _renew,
    _save,
    _warn_of_training_rows,
    join_scorers,
    sole_scorer,
)
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.scores import ScoredData, ScoredTexts, Scores, read_score_file
from tests.unit.run.run_cases import CPU, build_config, write_run

RESULT = EvaluationResult(Scores(scores={"bleu": 30.0}, num_rows=1), ScoredTexts(["a"], [["b"]], ["c"], ["f:1"]))


def test_a_single_process_needs_no_process_group() -> None:
    ranks = join_scorers(read_process_info({}), machine=build_config().machine, rendezvous=None)
    assert (ranks.rank, ranks.world_size, ranks.group) == (0, 1, None)


def test_a_second_job_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with sole_scorer(folder, ranks=CPU, stale_seconds=60.0) as lease:
        assert lease is not None
        with (
            pytest.raises(UserError, match="is computing these scores already; wait for it, or end it") as caught,
            sole_scorer(folder, ranks=CPU, stale_seconds=60.0),
        ):
            raise AssertionError("two jobs at once")
        assert str(folder.scores) in str(caught.value)
        assert not isinstance(caught.value, LeaseHeld), "only one rank prints what every rank raises"
    with sole_scorer(folder, ranks=CPU, stale_seconds=60.0) as lease:
        assert lease is not None
        assert lease.number == 2


def test_the_lease_is_released_and_no_thread_is_left_even_after_an_error(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), sole_scorer(RunFolder(tmp_path), ranks=CPU, stale_seconds=60.0):
        raise KeyboardInterrupt
    assert read_claims(RunFolder(tmp_path).scores)[-1].released
    assert threading.active_count() == before


def test_a_renewal_that_fails_is_tried_again() -> None:
    ended, calls = threading.Event(), 0

    class Failing:
        """A lease that cannot be renewed."""

        def renew(self) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                ended.set()
            raise OSError("full") if calls % 2 else LeaseLost("taken over")

    lease: Any = Failing()
    _renew(lease, seconds=0.0, ended=ended)
    assert calls == 3


def take(folder: Path) -> Lease:
    folder.mkdir(parents=True, exist_ok=True)
    return acquire(folder, holder=this_process(), stale_seconds=60.0)


def test_scores_are_written_with_their_time_their_checkpoint_and_their_rows(tmp_path: Path) -> None:
    target, data = Target(RunFolder(tmp_path), 20, lease=3), ScoredData(("eval.tsv",), "f")
    scores = _save(RESULT, target=target, lease=take(tmp_path / "l"), started=time.perf_counter() - 5.0, data=data)
    assert scores is not None
    assert scores.seconds is not None
    assert scores.seconds >= 5.0
    found = read_score_file(RunFolder(tmp_path), step=20)
    assert found is not None
    assert (found.step, found.lease, found.data, found.scores) == (20, 3, data, {"bleu": 30.0})
    assert (tmp_path / "hypotheses" / "step-00000020" / "references.txt").read_text() == "b\n"


def test_nothing_is_written_without_a_result_or_without_the_lease(tmp_path: Path) -> None:
    target = Target(RunFolder(tmp_path / "run"), 20)
    assert _save(None, target=target, lease=take(tmp_path / "l"), started=0.0) is None
    assert _save(RESULT, target=target, lease=None, started=0.0) is None
    assert not target.folder.path.exists()


def test_a_job_that_another_has_replaced_writes_nothing(tmp_path: Path) -> None:
    lease, target = take(tmp_path / "l"), Target(RunFolder(tmp_path / "run"), 20)
    (claim,) = RunFolder(tmp_path / "l").claims.glob("*.json")
    claim.with_name("00000002.json").write_text(json.dumps(json.loads(claim.read_text()) | {"number": 2}))
    with pytest.raises(LeaseLost):
        _save(RESULT, target=target, lease=lease, started=0.0)
    assert not target.folder.path.exists()


def test_of_a_run_without_pending_evaluations_none_is_next(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", bleu={10: 20.0})
    assert _next_pending(folder, tried=set(), ranks=CPU) is None


@pytest.mark.parametrize(("asked", "revision"), [("some/model", "abc"), ("other/model", None)])
def test_the_recipes_revision_belongs_to_the_recipes_own_model(
    tmp_path: Path, asked: str, revision: str | None
) -> None:
    config = build_config(model={"name": "some/model", "revision": "abc", "layerdrop": 0.1})
    request = EvaluationRequest(config, asked, None, tmp_path, is_pending=False, card_of=None, ignored=())
    section = _as_section(request)
    assert (section.name, section.revision, section.layerdrop) == (asked, revision, 0.1)


def test_a_mistake_leaves_no_folder_but_one_with_scores_stays(tmp_path: Path) -> None:
    new, old = RunFolder(tmp_path / "test_sets" / "new"), RunFolder(tmp_path / "test_sets" / "old")
    old.scores.mkdir(parents=True)
    for folder in (new, old):
        with (
            pytest.raises(UserError, match="no such column"),
            _no_folder_of_a_mistake(folder, ranks=CPU),
            sole_scorer(folder, ranks=CPU, stale_seconds=60.0),
        ):
            raise UserError("no such column")
    assert not new.path.exists()
    assert old.path.is_dir()
    with _no_folder_of_a_mistake(new, ranks=CPU):
        new.path.mkdir()
    assert new.path.is_dir()


@pytest.mark.parametrize(
    ("fingerprint", "sources", "is_warned"),
    [("t", ["x"], True), ("u", ["b"], True), ("u", ["a", "b"], True), ("u", ["b", "x"], False), ("u", [], False)],
)
def test_scores_of_training_rows_are_warned_about(
    fingerprint: str, sources: list[str], is_warned: bool, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    write_run_info(run.path, {"data": {"train": {"fingerprint": "t", "sources": ["a", "b"]}}})
    tokens: Any = SimpleNamespace(fingerprint=fingerprint, report={"sources": sources})
    found = _warn_of_training_rows(RESULT.scores, tokens=tokens, run=run)
    assert ["scores measure memorisation" in warning for warning in found.warnings] == [True] * is_warned
