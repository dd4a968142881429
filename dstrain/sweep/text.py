"""A sweep as text."""

import shlex

from dstrain.reporting.terminal import printable
from dstrain.sweep.members import Member


def _member_row(member: Member, state: str | None, job: str | None) -> tuple[str, str, str, str]:
    again = f", Slurm starts job {job} again" if job else ""
    return str(member.number), shlex.join(member.varied) or "-", printable(member.run_dir), f"{state or '-'}{again}"
