"""Runs a function on real gloo ranks: processes forked from one server that has imported torch and DeepSpeed already."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from dstrain.cluster.environment import ProcessInfo, free_port

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.distributed.preload"])
RANK_SECONDS = 300


class RankFailed(AssertionError):
    """A rank raised; the message holds its traceback."""


def run_ranks(function: Callable[..., Any], *arguments: Any, world_size: int) -> list[Any]:
    """What `function(ranks, *arguments)` returns on every rank of a process group, in rank order."""
    return start_ranks(_join_and_call, function, arguments, world_size=world_size)


def end_ranks(
    function: Callable[..., int],
    *arguments: Any,
    world_size: int,
    meanwhile: Callable[[list[int]], None] = lambda pids: None,
    seconds: float = RANK_SECONDS,
) -> list[int]:
    """Exit codes of processes that run `function(place, *arguments)`, in rank order; signals are negative.

    `meanwhile` is called with their process ids, for example to kill them. After `seconds` they are killed.
    """
    children = []
    for place in build_places(world_size):
        child = SPAWN.Process(target=_run_to_the_end, args=(place, function, arguments), daemon=True)
        child.start()
        children.append(child)
    meanwhile([child.pid for child in children if child.pid is not None])
    for rank, child in enumerate(children):
        child.join(timeout=seconds)
        if child.exitcode is None:
            for other in children:
                other.kill()
            raise RankFailed(f"rank {rank} did not end in {seconds:g} s")
    return [child.exitcode for child in children if child.exitcode is not None]


def build_places(world_size: int) -> list[ProcessInfo]:
    """The processes of a run on this host, with a free port."""
    port = free_port()
    return [
        ProcessInfo(
            rank=rank,
            local_rank=rank,
            world_size=world_size,
            master_address="127.0.0.1",
            master_port=port,
            launcher="environment",
            local_world_size=world_size,
        )
        for rank in range(world_size)
    ]


def start_ranks(function: Callable[..., Any], *arguments: Any, world_size: int) -> list[Any]:
    """What `function(place, *arguments)` returns in each of `world_size` processes, in rank order."""
    children = []
    for place in build_places(world_size):
        here, there = SPAWN.Pipe()
        child = SPAWN.Process(target=_run_rank, args=(there, place, function, arguments), daemon=True)
        child.start()
        there.close()
        children.append((child, here))
    try:
        return [_receive(here, rank=rank) for rank, (_, here) in enumerate(children)]
    finally:
        for child, _ in children:
            child.join(timeout=5)
            child.kill()


def _receive(pipe: Connection, *, rank: int) -> Any:
    if not pipe.poll(RANK_SECONDS):
        raise RankFailed(f"rank {rank} returned no result in {RANK_SECONDS} s")
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise RankFailed(f"rank {rank} died") from None
    if kind == "error":
        raise RankFailed(f"rank {rank}:\n{value}")
    return value


def _run_rank(pipe: Connection, place: ProcessInfo, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    try:
        pipe.send(("value", function(place, *arguments)))
    except BaseException:
        pipe.send(("error", traceback.format_exc()))
    finally:
        pipe.close()
        os._exit(0)  # destructors of the process group would wait for peers that are gone


def _run_to_the_end(place: ProcessInfo, function: Callable[..., int], arguments: tuple[Any, ...]) -> None:
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    code = 1
    try:
        code = function(place, *arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # as in _run_rank


def _join_and_call(place: ProcessInfo, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    from dstrain.cluster.process_group import join_ranks

    ranks = join_ranks(place, timeout_minutes=2)
    value = function(ranks, *arguments)
    ranks.barrier()
    return value
