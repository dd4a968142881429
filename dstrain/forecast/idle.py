"""Ranks without work: a step of fewer micro-batches than there are ranks leaves some with nothing to compute. Pure."""

from dataclasses import replace

from dstrain.forecast.request import Machines


def advised_micro_batches(*, num_rows: int, world_size: int) -> int:
    """The `machine.min_micro_batches` that shares a step of so many rows out best: no micro-batch has less than a row."""
    return min(num_rows, world_size)


def idle_warning(num_micro_batches: int, *, num_rows: int, world_size: int) -> str | None:
    """What is wrong with the first step, of so many rows, and the way out; None where every rank has a micro-batch of it."""
    if num_micro_batches >= world_size:
        return None
    parts = f"{num_micro_batches} {'micro-batch' if num_micro_batches == 1 else 'micro-batches'}"
    found = (
        f"the first step is cut into {parts} for {world_size} ranks: {world_size - num_micro_batches} of them are idle"
    )
    advised = advised_micro_batches(num_rows=num_rows, world_size=world_size)
    if advised > num_micro_batches:
        rest = f", which leaves {world_size - advised} idle" if advised < world_size else ""
        why = "a run cuts all of its steps in the same way"
        return f"{found}. Set machine.min_micro_batches={advised}{rest}, in a new run: {why}"
    rows = f"{num_rows} {'row' if num_rows == 1 else 'rows'}"
    return f"{found}. It has only {rows}: take at most {num_rows} ranks, or raise training.batch_size"


def fewer_machines(machines: Machines, *, num_ranks: int) -> Machines:
    """The machines with `num_ranks` ranks instead, on as few nodes as hold them."""
    per_node = machines.world_size // machines.num_nodes
    return replace(machines, world_size=num_ranks, num_nodes=-(-num_ranks // per_node))
