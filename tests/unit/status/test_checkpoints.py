"""The table of checkpoints: one aligned line each, with its state."""

from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.checkpoint.manifest import Manifest
from dstrain.checkpoint.verify import CheckpointStatus
from dstrain.status.checkpoints import MAX_SCORES, checkpoints_table
from tests.unit.checkpoint.checkpoint_cases import build_manifest

ROOT = Path("run/checkpoints")
VALID = CheckpointStatus(ROOT / "step-00000050.lease-3", 1_500_000)


def cells(status: CheckpointStatus) -> list[str]:
    """The columns of its line, which are two spaces apart."""
    _, line = checkpoints_table([status]).splitlines()
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def manifest(folder: Path, scores: dict[str, float] | None) -> Manifest:
    return build_manifest(folder, step=50, lease=3, scores=scores)


def test_a_line_has_step_lease_content_size_scores_and_state(tmp_path: Path) -> None:
    named = replace(VALID, manifest=manifest(tmp_path, {"bleu": 12.5}))
    assert cells(named) == ["50", "3", "full", "1.5 MB", "bleu 12.5000", "valid"]


def test_without_a_manifest_the_name_says_step_and_lease_and_the_rest_is_a_dash() -> None:
    assert cells(VALID)[:5] == ["50", "3", "-", "1.5 MB", "-"]
    assert cells(replace(VALID, directory=ROOT / "kept"))[:2] == ["?", "?"]


def test_a_few_scores_are_shown_and_more_are_hinted_at(tmp_path: Path) -> None:
    scores = {f"score_{number}": float(number) for number in range(MAX_SCORES + 1)}
    shown = checkpoints_table([replace(VALID, manifest=manifest(tmp_path, scores))])
    assert shown.count("score_") == MAX_SCORES
    assert "…" in shown


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (VALID, "valid"),
        (replace(VALID, is_next=True), "valid; the next attempt resumes from here"),
        (replace(VALID, problem="x: missing"), "broken: x: missing"),
        (replace(VALID, is_superseded=True), "valid; superseded: a later attempt resumed from an earlier step"),
        (
            replace(VALID, is_leftover=True, directory=ROOT / "step-00000050.lease-3.tmp"),
            "unfinished: step-00000050.lease-3.tmp, removed by the next save",
        ),
    ],
)
def test_the_state_says_what_a_checkpoint_is_good_for(status: CheckpointStatus, state: str) -> None:
    assert cells(status)[-1] == state
