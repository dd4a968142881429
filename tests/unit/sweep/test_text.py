"""A sweep as text and as JSON: a row per member, and the commands to type."""

import json

from dstrain.sweep.inspect import MemberView, SweepView
from dstrain.sweep.members import Member
from dstrain.sweep.text import NOTHING_TO_SUBMIT, as_json, describe_sweep


def member(number: int, state: str | None = None, *, job: str | None = None, changed: str | None = None) -> MemberView:
    override = f"seed={number}"
    planned = Member(number, ("training.max_steps=9", override), f"runs/{number}", varied=(override,))
    return MemberView(planned, state, job, changed)


def view_of(*members: MemberView, submit: str | None = None, resubmit: str | None = None) -> SweepView:
    return SweepView(members, submit=submit, resubmit=resubmit, compare="dstrain compare runs/*")


def test_a_row_has_what_a_member_varies_its_folder_and_its_state() -> None:
    lines = describe_sweep(view_of(member(0, "finished"), member(1, "preempted", job="12"), member(2))).splitlines()
    assert lines[:5] == [
        "member  overrides  run folder  status",
        "0       seed=0     runs/0      finished",
        "1       seed=1     runs/1      preempted, Slurm starts job 12 again",
        "2       seed=2     runs/2      -",
        "",
    ]


def test_a_member_that_varies_nothing_has_a_dash_and_a_folder_is_shown_without_what_a_terminal_would_obey() -> None:
    plain = MemberView(Member(0, (), "runs/a\x1b[2J"), None, None, None)
    assert describe_sweep(view_of(plain)).splitlines()[1] == "0       -          runs/a [2J  -"


def test_the_commands_follow_the_table_and_only_those_that_are_needed() -> None:
    lines = describe_sweep(view_of(member(0), submit="sbatch all")).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["submit", "size", "compare"]
    assert lines[3] == "submit   sbatch all"
    nothing = describe_sweep(view_of(member(0, "finished"))).splitlines()
    assert nothing[3:] == [f"submit   {NOTHING_TO_SUBMIT}", "compare  dstrain compare runs/*"]


def test_changed_and_waiting_members_are_named_with_the_way_out() -> None:
    changed = [member(number, changed=f"seed was {number}") for number in (1, 2, 5)]
    lines = describe_sweep(view_of(*changed, member(7, job="12"), member(8, job="13"), resubmit="again")).splitlines()
    assert lines[-3].startswith("changed  member 1-2,5: the run in its folder has another recipe (seed was 1): give")
    assert lines[-2] == "waiting  squeue --jobs 12,13; for members it does not list: again"


def test_json_has_the_same_with_null_for_what_is_none() -> None:
    view = view_of(member(3, "preempted", job="12"), submit="sbatch all")
    assert json.loads(json.dumps(as_json(view))) == {
        "members": [
            {
                "number": 3,
                "overrides": ["training.max_steps=9", "seed=3"],
                "run_dir": "runs/3",
                "state": "preempted",
                "comes_again": "12",
                "changed": None,
            }
        ],
        "submit": "sbatch all",
        "compare": "dstrain compare runs/*",
    }
