"""What an attempt is started with: by default nothing but its process and its command."""

import pickle

from dstrain.cluster.environment import read_process_info
from dstrain.run.launch import Launch


def test_a_plain_start_has_neither_exceptions_nor_a_drill_nor_an_end() -> None:
    launch = Launch(read_process_info({}), command=("python", "launch/train.py"))
    assert (launch.process.rank, launch.process.world_size) == (0, 1)
    assert launch.allow_changed == ()
    assert launch.whole is None
    assert (launch.drill, launch.rendezvous, launch.cause, launch.allocation_end) == (None, None, None, None)


def test_a_launch_can_be_handed_to_another_process() -> None:
    launch = Launch(
        read_process_info({}), command=("c",), allow_changed=("seed",), cause="requeued", allocation_end=7.0
    )
    assert pickle.loads(pickle.dumps(launch)) == launch
