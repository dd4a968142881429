"""A sweep as it is now: every member with the state of its run, and what is to be submitted. Reads run folders, writes none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.cluster.processes import Holder
from dstrain.config.arguments import shell_command
from dstrain.status.inspect import inspect_status
from dstrain.status.judge import IN_ORDER
from dstrain.sweep.members import Member, check_members, find_change, plan_members, read_sweep, write_submit


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member, and its run folder as it is now."""

    member: Member
    state: str | None
    """As `dstrain status` names it; None before the run begins."""
    comes_again: str | None
    """The Slurm job that Slurm will start again."""
    changed: str | None
    """First difference between the recipe of the run in the folder and the member's; None if there is none."""

    @property
    def needs_job(self) -> bool:
        """Whether it is to be submitted: it neither runs nor has finished, has no job, and its folder is its own."""
        return not (self.state in IN_ORDER or self.comes_again or self.changed)


@dataclass(frozen=True, slots=True)
class SweepView:
    """A sweep as `dstrain sweep` shows it."""

    members: tuple[MemberView, ...]
    submit: str | None
    """The command that submits every member that needs a job; None if no member does."""
    resubmit: str | None
    """The command for members that Slurm should start again, in case it does not; None if there are none."""
    compare: str
    """The command that compares the runs."""


def inspect_sweep(file: str, *, typed: Sequence[str], now: float, observer: Holder) -> SweepView:
    """Checks every member of a sweep and looks up the state of its run.

    Args:
        typed: overrides of the command line, for all members.
        now: seconds since 1970.
        observer: the process that asks, as `inspect_status` takes it.

    Raises:
        UserError: everything that is wrong with the file or a member.
    """
    sweep = read_sweep(file, typed=typed)
    members = plan_members(sweep)
    configs = check_members(sweep, members)
    views = tuple(
        MemberView(member, *_state_of(Path(member.run_dir), now=now, observer=observer), find_change(config))
        for member, config in zip(members, configs, strict=True)
    )
    to_submit = [view.member.number for view in views if view.needs_job]
    waiting = [view.member.number for view in views if view.comes_again]
    return SweepView(
        members=views,
        submit=write_submit(file, to_submit, typed=typed) if to_submit else None,
        resubmit=write_submit(file, waiting, typed=typed) if waiting else None,
        compare=f"{shell_command(['dstrain', 'compare', sweep.output_dir.rstrip('/')])}/*",
    )


def _state_of(run_dir: Path, *, now: float, observer: Holder) -> tuple[str | None, str | None]:
    """State of a run, None before it begins; and the job that Slurm will start again, if any."""
    if not run_dir.is_dir():
        return None, None
    found = inspect_status(run_dir, now=now, observer=observer)
    return found.state, found.comes_again
