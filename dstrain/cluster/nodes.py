"""Slurm's node lists, as text. Needs no scontrol, which containers lack."""

import re

_NODE = re.compile(r"(?P<prefix>[^\[,]+)(?:\[(?P<ranges>[^\]]+)\])?(?P<suffix>[^,\[]*)")


def first_node(node_list: str) -> str:
    """The first host of a Slurm node list: `gpu[07-09,12],login1` gives `gpu07`.

    Raises:
        ValueError: the list is empty or malformed.
    """
    match = _NODE.match(node_list.strip())
    if match is None:
        raise ValueError(f"SLURM_JOB_NODELIST: not a Slurm node list: {node_list!r}")
    ranges = match["ranges"]
    if ranges is None:
        return match["prefix"]
    return match["prefix"] + re.split(r"[-,]", ranges)[0] + match["suffix"]
