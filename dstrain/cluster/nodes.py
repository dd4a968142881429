"""Parses Slurm's node lists without scontrol, which containers lack."""

import re

from dstrain.errors import UserError

_RANGES = r"\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\]"
_NODES = re.compile(rf"[^\[\],\s]+(?:{_RANGES}[^\[\],\s]*)*(?=,|$)")


def first_node(node_list: str) -> str:
    """The first host of a Slurm node list, such as `gpu07` of `gpu[07-09,12],login1`.

    Raises:
        UserError: the list is empty or malformed.
    """
    match = _NODES.match(node_list.strip())
    if match is None:
        raise UserError(f"SLURM_JOB_NODELIST: not a Slurm node list: {node_list!r}; set MASTER_ADDR to the first node")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", match[0])
