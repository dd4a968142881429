"""How the ranks of a run meet: through a key-value store, before the process group exists, with one verdict for all.

A store may still hold the keys of a group that was restarted, as torchrun's does. So nothing in it counts that does not carry a
number which a process of this start has drawn. All waiting is done in Python, so that signals are answered at once, and a
rank reports for which ranks it waits, and where.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from dstrain.cluster.devices import Seat
from dstrain.cluster.environment import ProcessInfo, has_agent_store
from dstrain.cluster.rendezvous import Rendezvous, choose_host, listen
from dstrain.errors import PeerLost, UserError

MEETING_SECONDS = 1800.0
"""How long ranks wait for those that have not started: nodes may be minutes apart."""
FIRST_REPORT_SECONDS, NEXT_REPORT_SECONDS = 10.0, 60.0
"""When a rank first reports that it waits, and how often it reports it again."""
POLL_SECONDS = 0.1
CONNECT_SECONDS = 2.0
MAX_NAMED = 8
"""Most ranks that are named in a message."""

_TCPStore: Any = vars(dist)["TCPStore"]  # exported at run time only
_PrefixStore: Any = vars(dist)["PrefixStore"]
_HashStore: Any = vars(dist)["HashStore"]

log = logging.getLogger(__name__)

Judge = Callable[[Sequence[Seat]], str | None]
"""Given the seats of all ranks, why they cannot compute together; None if they can. Rank 0 calls it."""


def meet(
    process: ProcessInfo,
    *,
    seat: Seat,
    judge: Judge,
    rendezvous: Rendezvous | None = None,
    timeout: timedelta,
    waiting_seconds: float = MEETING_SECONDS,
) -> Any:
    """A store that only the ranks of this start use, once all of them are here and can compute together.

    Raises:
        UserError: `judge` refuses; on every rank. Or rank 0 cannot open its port.
        PeerLost: a rank did not come, or the store is gone.
    """
    if process.world_size == 1:
        if (refusal := judge([seat])) is not None:
            raise UserError(refusal)
        return _HashStore()
    port = rendezvous.port if rendezvous else process.master_port
    patience = _Patience(process, port=port, seconds=waiting_seconds)
    listener = rendezvous.listener if rendezvous else None
    store = _open_store(process, port=port, listener=listener, timeout=timeout, patience=patience)
    number = secrets.token_hex(8)
    store.set(f"here/{process.rank}", json.dumps({"number": number, "seat": asdict(seat)}))
    if process.rank == 0:
        group = _lead(store, process, number=number, patience=patience, judge=judge)
    else:
        group = _follow(store, process, number=number, patience=patience)
    if refusal := json.loads(store.get(f"verdict/{group}")):
        raise UserError(refusal)
    return _PrefixStore(f"group/{group}", store)


class _Patience:
    """Waits for a condition; reports what is missing, and gives up in the end."""

    def __init__(self, process: ProcessInfo, *, port: int, seconds: float) -> None:
        self._place = f"{process.master_address}:{port}"
        self._known_from = process.known_from
        self._began = time.monotonic()
        self._seconds = seconds
        self._next_report = FIRST_REPORT_SECONDS

    def wait_for(self, find: Callable[[], Any], *, missing: Callable[[], str]) -> Any:
        """What `find` returns once that is not None."""
        while (found := find()) is None:
            waited = time.monotonic() - self._began
            words = f"{missing()} at {self._place} (as {self._known_from} say)"
            if waited >= self._seconds:
                raise PeerLost(f"gave up after waiting {waited:.0f} s for {words}")
            if waited >= self._next_report:
                self._next_report = waited + NEXT_REPORT_SECONDS
                log.warning("waiting for %s; for a single process unset these variables", words)
            time.sleep(POLL_SECONDS)
        return found


def _open_store(
    process: ProcessInfo, *, port: int, listener: socket.socket | None, timeout: timedelta, patience: _Patience
) -> Any:
    is_host = process.rank == 0 and not has_agent_store(os.environ)
    if not is_host:
        _knock(process.master_address, port, patience=patience)
    elif listener is None:
        listener = _listen(process, port=port)
    opening: Future[Any] = Future()

    def connect() -> None:
        try:
            store = _TCPStore(
                process.master_address,
                port,
                process.world_size,
                is_master=is_host,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=listener.detach() if listener else None,
            )
        except Exception as error:
            opening.set_exception(error)
        else:
            opening.set_result(store)

    # in a thread, because it waits in C++, where no signal is answered: for ever if another program answers at the port
    threading.Thread(target=connect, name="dstrain-store", daemon=True).start()
    patience.wait_for(
        lambda: opening.done() or None,
        missing=lambda: (
            "its own store" if is_host else "the store of rank 0 (something answers, but perhaps another program)"
        ),
    )
    return opening.result()


def _listen(process: ProcessInfo, *, port: int) -> socket.socket:
    """Rank 0's port, opened here because the store would listen at every address."""
    try:
        return listen(port, host=choose_host(process))
    except OSError as error:
        raise UserError(
            f"port {port} of this machine cannot be opened ({error.strerror}), probably because another run uses it; choose "
            "another port (deepspeed and torchrun: --master_port 29501; else set MASTER_PORT)"
        ) from error


def _knock(address: str, port: int, *, patience: _Patience) -> None:
    """Wait until something listens there."""
    problem = ""

    def knock() -> bool | None:
        nonlocal problem
        try:
            with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
                return True
        except socket.gaierror:
            problem = "the name cannot be resolved"
        except OSError as error:
            problem = (error.strerror or "no answer").lower()
        return None

    patience.wait_for(knock, missing=lambda: f"rank 0 ({problem})")


def _lead(store: Any, process: ProcessInfo, *, number: str, patience: _Patience, judge: Judge) -> str:
    """Rank 0: tell all ranks the number of this group, wait until each has read it, and give the verdict."""
    group, everyone = secrets.token_hex(8), range(process.world_size)
    welcomed: dict[str, str] = {}

    def find_absent() -> list[int]:
        return [rank for rank in everyone[1:] if not store.check([f"read/{group}/{rank}"])]

    def find_all() -> bool | None:
        nonlocal welcomed
        # a number may be that of a dead process at first: the living one overwrites it
        present = {str(rank): _here(store, rank)["number"] for rank in everyone if store.check([f"here/{rank}"])}
        if present["0"] != number:
            raise PeerLost("another rank 0 has been started in the place of this one")
        if present != welcomed:
            welcomed = present
            store.set("welcome", json.dumps({"group": group, "numbers": welcomed}))
        return None if find_absent() else True

    patience.wait_for(find_all, missing=lambda: f"{_named(find_absent())} of {process.world_size}")
    store.set(f"verdict/{group}", json.dumps(judge([Seat(**_here(store, rank)["seat"]) for rank in everyone])))
    return group


def _follow(store: Any, process: ProcessInfo, *, number: str, patience: _Patience) -> str:
    """Any other rank: join the group whose rank 0 knows this process, and wait for its verdict."""

    def find_verdict() -> str | None:
        welcome = json.loads(store.get("welcome")) if store.check(["welcome"]) else {"numbers": {}}
        if welcome["numbers"].get(str(process.rank)) != number:
            return None
        store.set(f"read/{welcome['group']}/{process.rank}", "")
        return str(welcome["group"]) if store.check([f"verdict/{welcome['group']}"]) else None

    group: str = patience.wait_for(find_verdict, missing=lambda: "rank 0, or for ranks that it waits for,")
    return group


def _here(store: Any, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(f"here/{rank}"))
    return found | {"seat": found["seat"] | {"visible": tuple(found["seat"]["visible"])}}


def _named(ranks: Sequence[int]) -> str:
    more = f" and {len(ranks) - MAX_NAMED} more" if len(ranks) > MAX_NAMED else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks[:MAX_NAMED]))}{more}"
