"""The status as text and as JSON."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from dstrain.reporting.standing import Standing
from dstrain.run_folder.rows import EvalRow, TrainRow
from dstrain.status.judge import MEANINGS, State
from dstrain.status.text import as_json, describe_standing, describe_status
from tests.unit.status.status_cases import (
    NOW,
    look,
    write_claim,
    write_outcome,
    write_rank,
    write_row,
)


def test_a_failed_run_shows_its_message_and_no_advice_to_start_again(run: Path) -> None:
    """A rank that fails alone does not know the number of its attempt."""
    for rank in (0, 1):
        write_rank(run, rank, changed=NOW - 301, heartbeat=NOW - 299)
    write_outcome(run, "failed", attempt=0, message="rank 1: no\x1b[31m such column\nfound 'x'", exit_code=1)
    status = look(run)
    assert status.state == "failed"
    text = describe_status(status)
    assert "no [31m such column\n" in text
    assert "found 'x'" in text
    assert "start it again" not in text
    assert "mend what the message says; then the same command resumes from the newest checkpoint" in text


def test_a_page_is_told_the_state_its_reasons_and_what_to_do(run: Path) -> None:
    write_outcome(run, "preempted", message="received SIGTERM\nat step 120", step=120)
    stopped = look(run)
    advice = "start it again: the same command resumes from the newest checkpoint"
    assert describe_standing(stopped) == Standing("stopped", "received SIGTERM", advice, step=120)
    caused = replace(stopped, cause="time limit, according to sacct", comes_again="17")
    assert describe_standing(caused).why == "received SIGTERM; cause: time limit, according to sacct"
    assert describe_standing(caused).advice.startswith("Slurm starts job 17 again")
    advice = "start it again: the same command begins at the first step, since there is no checkpoint yet"
    assert describe_standing(replace(stopped, checkpoint=None)).advice == advice
    write_outcome(run, "finished", step=1000, exit_code=0)
    assert describe_standing(look(run)) == Standing("finished", step=1000)


def test_a_missing_folder_is_told_apart_from_a_run_that_never_started(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nowhere", tmp_path / "file"):
        assert look(folder).state == "no such folder"
        headline, advice = describe_status(look(folder)).splitlines()
        assert headline == f"{folder}: no such folder"
        assert "output_dir" in advice


def test_512_ranks_fit_in_a_few_lines(run: Path) -> None:
    for rank in range(512):
        phase = "evaluation" if rank % 100 == 0 else "step"
        late = {"step": 110, "heartbeat": NOW - 1000} if rank in (17, 18, 200, 300, 400) else {}
        write_rank(run, rank, host=f"node{rank // 8}", tracks={"main": phase, "save": "idle"}, **late)
    for number in range(1, 41):
        write_claim(run, number)
    for rank in range(512):
        path = run / "ranks" / f"rank-{rank:05d}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attempt": 40}))
    text = describe_status(look(run))
    assert "512: 506 in 'step', 6 in 'evaluation'" in text
    assert next(line for line in text.splitlines() if "rank 17 " in line).split()[0] == "slowest"
    assert "… and 2 more" in text
    assert "… 35 earlier" in text
    assert len(text.splitlines()) <= 25


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_null_in_json(run: Path, value: float) -> None:
    write_row(run, TrainRow(110, 1.1, value, elapsed_seconds=math.nan, lease=1))
    status = look(run)
    assert status.eta_seconds == 880 * 2 + 9 * 30
    assert as_json(status)["last_loss"] == {"step": 110, "metric": "loss", "value": None, "interval": None}
    json.dumps(as_json(status), allow_nan=False)


def test_scores_stand_with_their_intervals(run: Path) -> None:
    scores = {"bleu": 14.0, "chrf": 20.0, "loss": 2.25}
    write_row(run, EvalRow(step=110, epoch=1.1, scores=scores, intervals={"bleu": 0.75, "chrf": 0.5}, lease=1))
    status = look(run)
    lines = [" ".join(line.split()) for line in describe_status(status).splitlines()]
    assert "scores bleu 14.0000 ± 0.7500 chrf 20.0000 ± 0.5000 loss 2.2500 at step 110" in lines
    assert "best bleu 14.0000 ± 0.7500 at step 110" in lines
    assert as_json(status)["last_scores"]["intervals"] == {"bleu": 0.75, "chrf": 0.5}
    assert as_json(status)["best"]["interval"] == 0.75


def test_every_state_has_a_meaning() -> None:
    assert set(MEANINGS) == set(get_args(State))
