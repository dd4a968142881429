"""Ranks meet once all are here, whatever an earlier group has left in the store; who waits says for whom. Threads as ranks."""

import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from dstrain.cluster import meeting
from dstrain.cluster.devices import Seat
from dstrain.cluster.environment import ProcessInfo, free_port, read_process_info
from dstrain.cluster.meeting import meet
from dstrain.errors import PeerLost, UserError

LATE = timedelta(seconds=60)


def places(world_size: int) -> list[ProcessInfo]:
    alone = replace(read_process_info({}), world_size=world_size, master_port=free_port())
    return [replace(alone, rank=rank) for rank in range(world_size)]


def accept(seats: Sequence[Seat]) -> None:
    return None


def come(place: ProcessInfo, *, judge: Any = accept, seconds: float = 60.0) -> Any:
    seat = Seat(place.rank, f"host{place.rank}", None)
    return meet(place, seat=seat, judge=judge, timeout=LATE, waiting_seconds=seconds)


def meet_all(world: Sequence[ProcessInfo], *, judge: Any = accept) -> list[Any]:
    with ThreadPoolExecutor(len(world)) as pool:
        return list(pool.map(lambda place: come(place, judge=judge), world))


def test_all_ranks_share_a_store_and_rank_0_has_seen_every_seat() -> None:
    seen: list[Seat] = []
    stores = meet_all(places(3), judge=seen.extend)
    assert [(seat.rank, seat.host) for seat in seen] == [(0, "host0"), (1, "host1"), (2, "host2")]
    stores[2].set("key", "value")
    assert stores[0].get("key") == b"value"


def test_a_refusal_reaches_every_rank() -> None:
    world = places(2)

    def try_to(place: ProcessInfo) -> str:
        with pytest.raises(UserError) as caught:
            come(place, judge=lambda seats: "two ranks on one GPU")
        return str(caught.value)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(try_to, world)) == ["two ranks on one GPU"] * 2


def test_a_rank_that_is_alone_needs_no_port() -> None:
    (alone,) = places(1)
    store = come(replace(alone, master_port=0))
    store.set("key", "value")
    assert store.get("key") == b"value"
    with pytest.raises(UserError, match="no"):
        come(alone, judge=lambda seats: "no")


def test_the_store_of_ranks_on_one_host_is_out_of_reach_for_others_and_names_a_port_in_use() -> None:
    world = [replace(place, local_world_size=2) for place in places(2)]
    stores = meet_all(world)
    with pytest.raises(ConnectionRefusedError):  # another address of this host
        socket.create_connection(("127.0.0.2", world[0].master_port), timeout=10)
    with pytest.raises(
        UserError, match=rf"^port {world[0].master_port} of this machine cannot be opened .Address already"
    ):
        come(world[0])
    assert len(stores) == 2


def test_a_restarted_group_meets_anew_in_a_store_that_outlived_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = places(2)
    server: Any = vars(dist)["TCPStore"]("127.0.0.1", world[0].master_port, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    first = meet_all(world)
    first[0].set("key", "old")
    # rank 0 is slow: rank 1 must not take the keys of the dead group for those of the new one
    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(come, world[1])
        begun.wait(1.0)
        assert not late.done()
        second = [pool.submit(come, world[0]).result(), late.result()]
    assert not second[1].check(["key"])
    second[0].set("key", "new")
    assert second[1].get("key") == b"new"
    assert server.check(["welcome"])


def test_who_waits_says_for_whom_where_and_how_it_knows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meeting, "FIRST_REPORT_SECONDS", 0.2)
    monkeypatch.setattr(meeting, "NEXT_REPORT_SECONDS", 0.5)
    world = places(4)
    with ThreadPoolExecutor(2) as pool, caplog.at_level(logging.WARNING):
        tries = [pool.submit(come, world[rank], seconds=3.0) for rank in (0, 2)]
        failures = [str(each.exception()) for each in tries]
        assert all(isinstance(each.exception(), PeerLost) for each in tries)
    where = f"127.0.0.1:{world[0].master_port} (as RANK and WORLD_SIZE say)"
    assert f"waiting for ranks 1, 3 of 4 at {where}; for a single process unset these variables" in caplog.text
    assert f"s for ranks 1, 3 of 4 at {where}" in failures[0]
    assert "s for rank 0" in failures[1]


def test_a_rank_without_a_rank_0_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(meeting, "FIRST_REPORT_SECONDS", 0.0)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(PeerLost, match=r"waiting .* for rank 0 \(connection refused\) at 127"),
    ):
        come(places(2)[1], seconds=0.3)
    assert "waiting for rank 0 (connection refused) at 127.0.0.1" in caplog.text


def test_a_name_that_cannot_be_resolved_is_called_that() -> None:
    place = replace(places(2)[1], master_address="nowhere.invalid")
    with pytest.raises(PeerLost, match=r"for rank 0 \(the name cannot be resolved\) at nowhere\.invalid:"):
        come(place, seconds=0.3)


def test_a_rank_that_meets_another_program_says_so_and_still_answers_signals() -> None:
    place = places(2)[1]
    # accepts, and never answers as a store does
    with (
        socket.create_server(("127.0.0.1", place.master_port)),
        pytest.raises(PeerLost, match=r"for the store of rank 0 \(something answers, but perhaps another program\)"),
    ):
        come(place, seconds=0.5)


def test_a_rank_0_whose_place_was_taken_gives_up() -> None:
    world = places(2)
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(come, world[0])
        client = vars(dist)["TCPStore"]("127.0.0.1", world[0].master_port, is_master=False)
        client.wait(["welcome"])
        client.set("here/0", '{"number": "another", "seat": {"rank": 0, "host": "h", "gpu": null, "visible": []}}')
        assert "another rank 0" in str(old.exception(timeout=60))
