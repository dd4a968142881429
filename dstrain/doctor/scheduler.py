"""Slurm, where there is one."""

import re
from collections.abc import Iterator, Mapping

from dstrain.doctor.finding import Finding, note, ok
from dstrain.doctor.programs import Done, Run

OLDEST = (21, 8)
"""Since then steps share a node's processors and GPUs (`srun --overlap`)."""
COMMAND = ("sbatch", "--version")
GIVEN = ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_CPUS_ON_NODE", "SLURM_GPUS_ON_NODE")


def examine_slurm(run: Run, *, environment: Mapping[str, str]) -> Iterator[Finding]:
    """The version of Slurm, and what it gave if this is a job."""
    yield from judge_slurm(run(COMMAND), environment=environment)


def judge_slurm(done: Done | None, *, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What `sbatch --version` said, None if there is no sbatch, and the variables of a job."""
    if done is not None:
        match = re.search(r"(\d+)\.(\d+)", done.out)
        if match is None:
            way_out = "ask the administrator; without Slurm deepspeed and torchrun start the ranks"
            yield note("slurm", f"`{' '.join(COMMAND)}` failed: {done.last_error}", way_out=way_out)
        elif (int(match[1]), int(match[2])) < OLDEST:
            way_out = "a job trains, but may wait minutes for a lost node: use 21.08 or later"
            yield note("slurm", done.out.strip(), way_out=way_out)
        else:
            yield ok("slurm", done.out.strip())
    if job := environment.get("SLURM_JOB_ID"):
        given = ", ".join(f"{name}={environment[name]}" for name in GIVEN if name in environment)
        yield ok("slurm", f"this is job {job}" + (f": {given}" if given else ""))
