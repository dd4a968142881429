"""The micro-batch budget and compiled layers measured on the real engine: the budget fits, and a much larger one does not."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.config.load import load_config
from dstrain.run.autotune_probe import Probe, Request, find_budget, find_faster
from dstrain.run.prepare import prepare
from tests.distributed.ranks import start_ranks
from tests.system.runs import build_run, train

ROOM_BYTES = 120 << 20
UNSTEADY_BYTES = ROOM_BYTES // 20
"""Resident memory of a process varies: its allocator keeps some of what larger steps took."""


def test_the_budget_that_is_found_fits_and_one_twice_as_large_does_not(tmp_path: Path) -> None:
    (found,) = start_ranks(_find, [str(tmp_path)], world_size=1)
    assert found["width"] < found["budget"]
    assert found["peak"] <= found["limit"] + UNSTEADY_BYTES < found["peak_of_more"]


def _find(place: ProcessInfo, arguments: Sequence[str]) -> dict[str, int]:
    # larger than a step, so that the size of a step does not end the search
    config = build_run(Path(arguments[0]), training__batch_size=1_000_000)
    ranks = join_ranks(read_process_info({}), timeout_minutes=5)
    prepared = prepare(config, ranks=Ranks(process=place, device=ranks.device, group=None))
    folders = [str(tokens.folder) for tokens in (prepared.train, prepared.eval)]
    request = Request(config, str(Path(config.run_dir) / "tokenizer"), *folders)
    probe = Probe(request, ranks=ranks)
    first = probe.measure(probe.width)
    assert first is not None
    limit = first + ROOM_BYTES
    budget = find_budget(request, limit_bytes=limit, probe=probe)
    assert budget is not None
    peak, more = probe.measure(budget), probe.measure(2 * budget)
    assert peak is not None
    assert more is not None
    return {"width": probe.width, "budget": budget, "limit": limit, "peak": peak, "peak_of_more": more}


def test_compiled_layers_are_timed_against_eager_ones(tmp_path: Path) -> None:
    (found,) = start_ranks(_time, [str(tmp_path)], world_size=1)
    assert re.fullmatch(r"a step takes [\d.]+ s compiled, [\d.]+ s eager.*", found["reason"])
    assert found["graphs_before"] == 0
    assert found["graphs"] >= 2


def _time(place: ProcessInfo, arguments: Sequence[str]) -> dict[str, Any]:
    import torch
    from torch._dynamo.utils import counters

    config = build_run(Path(arguments[0]), machine__compile=None)
    ranks = join_ranks(read_process_info({}), timeout_minutes=5)
    prepared = prepare(config, ranks=Ranks(process=place, device=ranks.device, group=None))
    folders = [str(tokens.folder) for tokens in (prepared.train, prepared.eval)]
    probe = Probe(Request(config, str(Path(config.run_dir) / "tokenizer"), *folders), ranks=ranks)
    assert probe.measure(200) is not None
    before = counters["stats"]["unique_graphs"]
    with torch.compiler.set_stance(force_backend="eager"):
        _, reason = find_faster(probe, budget=200, limit_bytes=1 << 40)
    return {"reason": reason, "graphs_before": before, "graphs": counters["stats"]["unique_graphs"]}


def test_a_resumed_run_keeps_the_budget_of_its_first_attempt(tmp_path: Path) -> None:
    config = build_run(tmp_path, machine__micro_batch_tokens=None, machine__compile=None)
    assert train(config, stop_after=5) == [EXIT_PREEMPTED]
    kept = load_config(str(Path(config.run_dir) / "config.yaml")).machine
    assert (kept.micro_batch_tokens, kept.compile) == (8192, False)
    assert train(config, world_size=2) == [0, 0]
