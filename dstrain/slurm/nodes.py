"""Which nodes of a job are left after some were lost, and on which of them its ranks start again.

A training run may notice a lost node long before Slurm does (SlurmdTimeout, often 5 minutes). Until then squeue still lists the
node, so every node is asked to run a command. Nothing here starts or ends anything.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dstrain.slurm.commands import Run, without_slurm

ANSWER_SECONDS = 20
"""How long a node may take to run a command."""
MAX_ASKED = 16
"""Nodes that are asked at the same time."""
_REQUESTED = re.compile(r"\bnode=(\d+)")
"""The number of nodes in a list of trackable resources, such as `cpu=4,mem=8G,node=2,billing=4`."""


@dataclass(frozen=True)
class Allocation:
    """A running Slurm job and how to ask about it."""

    id: str
    name: str
    """The name for Slurm's commands: the id, or `12_3` for a task of a job array."""
    run: Run
    environment: Mapping[str, str]
    """Of the batch script."""


def name_of(job: str, *, environment: Mapping[str, str]) -> str:
    """The name of a job for Slurm's commands, as in `Allocation`."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    # a job that was submitted inside a task of another array inherits that array's variables
    return f"{array}_{task}" if array == job and task else job


def list_nodes(node_list: str, *, run: Run) -> list[str]:
    """The hosts of a Slurm node list, such as `gpu07` and `gpu08` of `gpu[07-08]`; none if Slurm cannot read it."""
    code, printed = run(["scontrol", "show", "hostnames", node_list])
    return printed.split() if code == 0 else []


def kept_nodes(job: Allocation) -> list[str] | None:
    """The nodes that Slurm counts to the job; None if it does not run any more, or Slurm cannot be asked."""
    code, queue = job.run(["squeue", "--noheader", "--jobs", job.name, "--format", "%A %T %N"])
    # for a task of an array squeue may list several jobs, of which one has this id
    fields = next((line.split() for line in queue.splitlines() if line.split()[:1] == [job.id]), [])
    if code != 0 or len(fields) != 3 or fields[1] != "RUNNING":
        return None
    return list_nodes(fields[2], run=job.run) or None


def answering_nodes(nodes: Sequence[str], *, job: Allocation) -> list[str]:
    """Those of the nodes that run a command within ANSWER_SECONDS."""

    def answers(node: str) -> bool:
        # --overlap: the step that was lost may hold its processors until Slurm gives the node up
        srun = [
            "srun",
            f"--jobid={job.id}",
            "--overlap",
            "--gres=none",
            "--nodes=1",
            "--ntasks=1",
            f"--nodelist={node}",
        ]
        code, _ = job.run(
            [*without_slurm(job.environment), "timeout", "--kill-after=5", str(ANSWER_SECONDS), *srun, "true"]
        )
        return code == 0

    with ThreadPoolExecutor(MAX_ASKED) as pool:
        return [node for node, is_there in zip(nodes, pool.map(answers, nodes), strict=True) if is_there]


def requested_nodes(job: Allocation) -> int | None:
    """The smallest number of nodes that `sbatch --nodes` asked for; None if Slurm does not say."""
    code, shown = job.run(["scontrol", "show", "job", "--oneliner", job.name])
    requested = next((field for field in shown.split() if field.startswith("ReqTRES=")), "") if code == 0 else ""
    if not requested:  # Slurm before 23.02 says it in JSON only
        _, queue = job.run(["squeue", "--json"])
        requested = _requested_in_json(queue, job=job.id)
    match = _REQUESTED.search(requested)
    return int(match[1]) if match else None


def _requested_in_json(queue: str, *, job: str) -> str:
    try:
        jobs = json.loads(queue)["jobs"]
        return next((str(each["tres_req_str"]) for each in jobs if str(each["job_id"]) == job), "")
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


@dataclass(frozen=True, slots=True)
class Loss:
    """Nodes that the ranks of a start have lost, and where they can start again."""

    silent: tuple[str, ...]
    """Nodes that Slurm has given up or that do not answer."""
    broken: tuple[str, ...]
    """Nodes that answer, but have a device that failed."""
    left: tuple[str, ...]
    """Where the ranks can start again."""
    needed: int
    """Fewer nodes than this are too few."""


def find_loss(job: Allocation, *, used: Sequence[str], wanted: int, broken: Collection[str]) -> Loss | None:
    """What is left of a job after its ranks ended. None if none of their nodes is lost, or if Slurm cannot tell.

    Args:
        used: the nodes of these ranks.
        wanted: how many nodes the ranks of the job's first start had.
        broken: nodes with a device that failed.
    """
    kept = kept_nodes(job)
    if kept is None:
        return None
    answering = answering_nodes(kept, job=job)
    silent = tuple(node for node in used if node not in answering)
    failed = tuple(node for node in used if node in answering and node in broken)
    if not silent and not failed:
        return None
    left = choose_nodes(used=used, left=[node for node in answering if node not in broken], wanted=wanted)
    needed = requested_nodes(job)
    return Loss(silent, failed, tuple(left), needed=wanted if needed is None else min(needed, wanted))


def choose_nodes(*, used: Sequence[str], left: Sequence[str], wanted: int) -> list[str]:
    """The nodes of the next start: those that were used and are left, and as many spare ones as nodes are missing."""
    stay = [node for node in left if node in used]
    spare = [node for node in left if node not in used]
    return [*stay, *spare][:wanted]


def short_name(host: str) -> str:
    """A host's name without its domain, as Slurm names its nodes."""
    return host.split(".", maxsplit=1)[0]
