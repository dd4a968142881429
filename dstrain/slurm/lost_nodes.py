"""Notices lost nodes of a running job before Slurm does, and the loss of the batch host instead of Slurm. Imports no torch.

    python -m dstrain.slurm.lost_nodes watch --step PID --nodes A,B -- --config …    on the batch host, beside srun (PID)
    python -m dstrain.slurm.lost_nodes guard --host NODE --job 12                    on other nodes, started by `watch`

`watch` looks at the rank records. If the ranks of a node have shown no sign of life for SILENT_SECONDS while those of another one
have, and the node does not answer srun either, it ends the step; the batch script then starts it again where nodes are left.

A job with --no-kill that loses the host of its batch script is not requeued by Slurm: it stays in the queue as running, with
nothing that runs. So `guard`, on GUARDS other nodes, requeues it once Slurm has given that host up.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from dstrain.attempt.rank_records import RankRecord, ranks_dir, read_rank_records
from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.run_folder.ownership import make_run_folder
from dstrain.slurm.commands import print_message, run_command, without_slurm
from dstrain.slurm.nodes import Allocation, answering_nodes, kept_nodes, name_of, short_name

STEP_NAME = "train"
"""The name of the step in slurm/train.sbatch."""
SILENT_SECONDS = 60.0
"""A rank's record has a new heartbeat every 5 s; on NFS another host may see it up to a minute later."""
LOOK_SECONDS = 10.0
GUARDS = 2
"""Nodes that watch the batch host, so that one of them may be lost with it."""
GUARD_SECONDS = 20.0


class Silence:
    """For how long the nodes of a step have shown no sign of life. Compares records with earlier ones, never clocks of hosts."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def look(self, records: Iterable[RankRecord], *, clock: float) -> list[str]:
        """The hosts whose ranks were silent for SILENT_SECONDS, if another host's were not. `clock` is in seconds."""
        records = list(records)
        newest = max((record.attempt for record in records), default=0)
        signs: dict[str, list[object]] = {}
        for record in records:
            if record.attempt == newest and record.ended is None:
                signs.setdefault(record.host, []).append((record.rank, record.pid, record.heartbeat, record.beats))
        before, self._seen = self._seen, {}
        for host, sign in signs.items():
            was, since = before.get(host, (None, clock))
            self._seen[host] = (sign, since if was == sign else clock)
        silent = [host for host, (_, since) in self._seen.items() if clock - since >= SILENT_SECONDS]
        is_alive = any(clock - since < SILENT_SECONDS / 2 for _, since in self._seen.values())
        return silent if is_alive else []


def main(argv: Sequence[str] | None = None, *, environment: Mapping[str, str] = os.environ) -> int:
    """Watch until a node is lost, or until this process is killed. Returns the exit code."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    options = _parse(own)
    job_id = environment.get("SLURM_JOB_ID", "")
    name = options.job or name_of(job_id, environment=environment)
    job = Allocation(job_id, name, run_command, environment)
    if options.command == "guard":
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):  # meant for the ranks
            signal.signal(number, signal.SIG_IGN)
        return guard(job, host=options.host)
    nodes = options.nodes.split(",")
    host = environment.get("SLURMD_NODENAME", nodes[0])
    others = choose_guards(job, nodes=nodes, host=host)
    if not others:
        return 0
    given = parse_arguments(training)
    run_dir = make_run_folder(load_config(given.config, overrides=given.overrides)).path
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    command = plan_guards(job, nodes=others, host=host)
    guards = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return watch(job, nodes=nodes, records=lambda: read_rank_records(ranks_dir(run_dir)), step=options.step)
    finally:
        guards.terminate()  # srun passes it on


def watch(
    job: Allocation,
    *,
    nodes: Sequence[str],
    records: Callable[[], Sequence[RankRecord]],
    step: int,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    kill: Callable[[int, int], None] = os.kill,
) -> int:
    """Wait until one of the nodes is lost; then end the tasks of the step and its srun, whose process id is `step`."""
    silence = Silence()
    while True:
        sleep(LOOK_SECONDS)
        silent = {short_name(host) for host in silence.look(records(), clock=clock())}
        suspects = [node for node in nodes if short_name(node) in silent]
        if not suspects:
            continue
        if lost := find_lost(suspects, job=job):
            print_message(
                f"lost {', '.join(lost)}: for {SILENT_SECONDS:.0f} s no sign of life of its ranks, and no answer to srun"
            )
            end_step(job)
            with suppress(ProcessLookupError):
                kill(step, signal.SIGKILL)
            return 0
        silence = Silence()  # so that a node that answers is not asked again at once


def find_lost(suspects: Sequence[str], *, job: Allocation) -> list[str]:
    """Those of the nodes that are lost; none if Slurm itself cannot be asked: then this host may be the one that is cut off."""
    kept = kept_nodes(job)
    if kept is None:
        return []
    answering = answering_nodes([node for node in suspects if node in kept], job=job)
    silent = [node for node in suspects if node not in answering]
    return silent if kept_nodes(job) is not None else []


def end_step(job: Allocation) -> None:
    """Kill the ranks on all nodes that Slurm reaches. srun cannot: it would wait for those that it does not reach."""
    _, queue = job.run(["squeue", "--noheader", "--steps", "--jobs", job.name, "--format", "%i %j"])
    steps = [line.split()[0] for line in queue.splitlines() if line.split()[1:] == [STEP_NAME]]
    if steps:
        job.run(["scancel", "--signal=KILL", *steps])


def guard(job: Allocation, *, host: str, sleep: Callable[[float], None] = time.sleep) -> int:
    """Wait until Slurm has taken `host`, where the batch script runs, from the job; then requeue the job."""
    while True:
        sleep(GUARD_SECONDS)
        kept = kept_nodes(job)
        if kept is not None and host not in kept:
            code, _ = job.run(["scontrol", "requeue", job.name])
            if code == 0:
                return 0


def choose_guards(job: Allocation, *, nodes: Sequence[str], host: str) -> list[str]:
    """Where `guard` runs: up to GUARDS of the ranks' `nodes`, else of the spare ones; never `host`, the one to be guarded."""
    others = [node for node in nodes if node != host] or [node for node in kept_nodes(job) or () if node != host]
    return others[:GUARDS]


def plan_guards(job: Allocation, *, nodes: Sequence[str], host: str) -> list[str]:
    """The command that starts `guard` on these nodes. `host` is that of the batch script."""
    return [
        *without_slurm(job.environment),
        "srun",
        f"--jobid={job.id}",
        "--overlap",
        "--no-kill",  # the guard that is left goes on
        "--gres=none",
        f"--nodes={len(nodes)}",
        f"--ntasks={len(nodes)}",
        f"--nodelist={','.join(nodes)}",
        sys.executable,
        "-m",
        "dstrain.slurm.lost_nodes",
        "guard",
        f"--host={host}",
        f"--job={job.name}",
    ]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.slurm.lost_nodes", description="Called by slurm/step.sh.")
    parser.add_argument("command", choices=["watch", "guard"])
    parser.add_argument("--step", type=int, default=0, help="process id of srun")
    parser.add_argument("--nodes", default="", help="the nodes of the ranks, separated by commas")
    parser.add_argument("--host", default="", help="the node of the batch script")
    parser.add_argument("--job", default="", help="the job's name for Slurm's commands")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
