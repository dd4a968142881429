"""The first host of Slurm's node lists, with the examples of its manual pages."""

import pytest

from dstrain.cluster.nodes import first_node


@pytest.mark.parametrize(
    ("node_list", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("tux[0-2,5]", "tux0"),
        ("tux[2,3]", "tux2"),
        ("tux[5]", "tux5"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("login1,gpu[07-09,12]", "login1"),
        ("node[1-2]-ib", "node1-ib"),
        ("node[1-2]-ib,other", "node1-ib"),
        ("rack[00-63]-blade[0-63]", "rack00-blade0"),
        ("tux[0-3][4-7]", "tux04"),
        ("host.example.org", "host.example.org"),
        (" n1\n", "n1"),
    ],
)
def test_the_first_host_is_found(node_list: str, first: str) -> None:
    assert first_node(node_list) == first


@pytest.mark.parametrize(
    "node_list",
    [
        "",
        "  ",
        ",",
        "[1-2]",
        "gpu[",
        "gpu[1-2",
        "gpu[]",
        "gpu[a-b]",
        "gpu[1-]",
        "gpu]1",
        "gpu[1,,2]",
        "a b",
        "(null)x [",
    ],
)
def test_anything_else_is_refused(node_list: str) -> None:
    with pytest.raises(ValueError, match="not a Slurm node list"):
        first_node(node_list)
