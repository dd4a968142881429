"""A SweepView as text for people, or as JSON values for scripts. Reads nothing."""

from collections.abc import Iterator
from typing import Any

from dstrain.config.arguments import shell_command
from dstrain.reporting.terminal import aligned, printable
from dstrain.sweep.inspect import MemberView, SweepView
from dstrain.sweep.members import SIZE, write_indices

NOTHING_TO_SUBMIT = "nothing: every member runs, has finished, is started again by Slurm or has changed"


def describe_sweep(view: SweepView) -> str:
    """One aligned line per member, then the commands to type."""
    table = aligned([("member", "overrides", "run folder", "status"), *map(_row, view.members)])
    return "\n".join([table, "", *_advice(view)])


def as_json(view: SweepView) -> dict[str, Any]:
    """The same as JSON values."""
    members = [
        {
            "number": each.member.number,
            "overrides": each.member.overrides,
            "run_dir": each.member.run_dir,
            "state": each.state,
            "comes_again": each.comes_again,
            "changed": each.changed,
        }
        for each in view.members
    ]
    return {"members": members, "submit": view.submit, "compare": view.compare}


def _row(view: MemberView) -> tuple[str, str, str, str]:
    member = view.member
    again = f", Slurm starts job {view.comes_again} again" if view.comes_again else ""
    overrides = shell_command(member.varied) or "-"
    return str(member.number), overrides, printable(member.run_dir), f"{view.state or '-'}{again}"


def _advice(view: SweepView) -> Iterator[str]:
    yield f"submit   {view.submit or NOTHING_TO_SUBMIT}"
    if view.submit:
        yield f"size     of one member: {shell_command(SIZE)} above; without GPUs --ntasks-per-node=1"
    if changed := [each for each in view.members if each.changed]:
        numbers = write_indices(each.member.number for each in changed)
        yield (
            f"changed  member {numbers}: the run in its folder has another recipe ({changed[0].changed}): give the sweep "
            "another output_dir, or remove that folder"
        )
    if view.resubmit:
        jobs = ",".join(each.comes_again for each in view.members if each.comes_again)
        yield f"waiting  {shell_command(['squeue', '--jobs', jobs])}; for members it does not list: {view.resubmit}"
    yield f"compare  {view.compare}"
