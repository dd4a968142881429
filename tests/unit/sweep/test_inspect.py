"""A sweep as it is now: the state of each member, and which are to be submitted."""

from pathlib import Path

import pytest

from dstrain.cluster.processes import this_process
from dstrain.errors import UserError
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.sweep.inspect import MemberView, SweepView, inspect_sweep
from dstrain.sweep.members import Member, plan_members, read_sweep
from tests.unit.sweep.sweep_cases import GRID, write


def look(path: str, *typed: str) -> SweepView:
    return inspect_sweep(path, typed=typed, now=1_800_000_000.0, observer=this_process())


@pytest.mark.parametrize(
    ("state", "comes_again", "changed", "needs_job"),
    [
        (None, None, None, True),
        ("failed", None, None, True),
        ("running", None, None, False),
        ("finished", None, None, False),
        ("preempted", "12", None, False),
        ("failed", None, "seed was 1, is 2", False),
    ],
)
def test_a_member_needs_a_job_unless_it_runs_has_finished_comes_again_or_its_folder_holds_another_run(
    state: str | None, comes_again: str | None, changed: str | None, needs_job: bool
) -> None:
    assert MemberView(Member(0, (), "runs/0"), state, comes_again, changed).needs_job is needs_job


def test_a_sweep_that_has_not_begun_is_submitted_as_a_whole(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    view = look(path, "training.max_steps=7")
    assert [each.state for each in view.members] == [None] * 4
    assert view.submit is not None
    assert "--array=0-3" in view.submit
    assert view.submit.endswith(f"{path} training.max_steps=7")
    assert view.resubmit is None
    assert view.compare == f"dstrain compare {tmp_path}/runs/*"


def test_members_are_looked_up_in_their_folders(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    first, second, *_ = plan_members(read_sweep(path))
    for member, outcome in ((first, "finished"), (second, "failed")):
        Path(member.run_dir).mkdir(parents=True)
        write_outcome(Path(member.run_dir), RunOutcome(outcome, 0, ""))
    view = look(path)
    assert [each.state for each in view.members] == ["finished", "failed", None, None]
    assert view.submit is not None
    assert "--array=1-3" in view.submit


def test_a_wrong_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="member 0: "):
        look(write(tmp_path, "list: [{seed: x}]\n"))
