"""The name of this host, as its peers see it, and its ports."""

import socket
import threading
from dataclasses import replace

import pytest

from dstrain.doctor.finding import ok
from dstrain.doctor.network import PORT, Network, judge_network, look_at_network

GOOD = Network("node1", ("10.0.0.7",))


def test_a_host_that_others_reach_is_ok() -> None:
    assert list(judge_network(GOOD)) == [
        ok("host name", "node1 is 10.0.0.7"),
        ok("ports", f"programs can listen, and port {PORT} is free"),
    ]


@pytest.mark.parametrize("addresses", [("127.0.1.1",), ("127.0.0.1", "::1"), ("::1%lo",)])
def test_a_name_that_leads_back_to_the_host_is_noted(addresses: tuple[str, ...]) -> None:
    finding, _ = judge_network(replace(GOOD, addresses=addresses))
    assert finding.level == "note"
    assert f"node1 is {', '.join(addresses)} only" in finding.text
    assert "/etc/hosts" in (finding.way_out or "")


def test_one_address_that_others_reach_is_enough() -> None:
    finding, _ = judge_network(replace(GOOD, addresses=("127.0.1.1", "fe80::1%eth0")))
    assert finding.level == "ok"


def test_a_name_without_an_address_is_noted() -> None:
    finding, _ = judge_network(Network("node1", (), "Name or service not known"))
    assert (finding.level, finding.text) == ("note", "node1 has no address: Name or service not known")


def test_ports_that_are_taken_or_forbidden_are_told_apart() -> None:
    _, taken = judge_network(replace(GOOD, port_is_free=False))
    assert (taken.level, "--master_port" in (taken.way_out or "")) == ("note", True)
    _, forbidden = judge_network(replace(GOOD, can_listen=False, port_is_free=False))
    assert forbidden.level == "problem"


def test_this_host_is_looked_up() -> None:
    found = look_at_network(resolve=lambda host: [host])
    assert found.addresses == (socket.gethostname(),)
    assert found.can_listen


def test_a_port_in_use_is_found() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", PORT))
        except OSError:
            pass  # another program has it, which serves as well
        else:
            listener.listen()
        assert not look_at_network(resolve=lambda host: ["10.0.0.1"]).port_is_free


def test_an_error_and_a_name_server_that_does_not_answer_are_reported() -> None:
    def fail(host: str) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    answered = threading.Event()

    def hang(host: str) -> list[str]:
        answered.wait(60)
        return []

    assert look_at_network(resolve=fail).error == "Name or service not known"
    assert look_at_network(resolve=lambda host: []).error == "none was found"
    assert look_at_network(resolve=hang, seconds=0.01).error == "the name server did not answer within 0.01 s"
    answered.set()
