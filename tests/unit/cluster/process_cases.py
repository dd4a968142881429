"""Processes among their peers, without an environment."""

from dstrain.cluster.environment import ProcessInfo


def build_process(launcher: str = "python", *, rank: int = 0, world_size: int = 1) -> ProcessInfo:
    """A rank of `world_size` on this host."""
    return ProcessInfo(
        rank=rank,
        local_rank=rank,
        world_size=world_size,
        master_address="127.0.0.1",
        master_port=1,
        launcher=launcher,
        local_world_size=world_size,
    )
