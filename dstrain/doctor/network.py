"""The name of this host and its ports, by which ranks meet."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dstrain.doctor.finding import Finding, note, ok, problem

PORT = 29500
"""The port at which `deepspeed` lets ranks meet, unless it is given another."""
SECONDS = 10.0
"""How long a name server may take; ranks wait for it as well."""


@dataclass(frozen=True, slots=True)
class Network:
    """What was found of this host's name and ports."""

    host: str
    addresses: tuple[str, ...]
    error: str | None = None
    """Why the name has no address."""
    can_listen: bool = True
    """Whether a program may listen on loopback."""
    port_is_free: bool = True
    """Whether PORT is free."""


def look_at_network(*, resolve: Callable[[str], list[str]] | None = None, seconds: float = SECONDS) -> Network:
    """This host's name, looked up as its peers would, and its ports."""
    host = socket.gethostname()
    addresses, error = _within(seconds, lambda: (resolve or _resolve)(host))
    return Network(host, tuple(addresses), error, can_listen=_can_listen(0), port_is_free=_can_listen(PORT))


def judge_network(network: Network) -> Iterator[Finding]:
    """Whether ranks of this host and of others can meet here."""
    way_out = "for ranks on several hosts mend /etc/hosts or the name server, or set MASTER_ADDR to an address of rank 0's host"
    if network.error is not None:
        yield note("host name", f"{network.host} has no address: {network.error}", way_out=way_out)
    elif all(map(_is_loopback, network.addresses)):
        text = f"{network.host} is {', '.join(network.addresses)} only, where no other host can connect"
        yield note("host name", text, way_out=way_out)
    else:
        yield ok("host name", f"{network.host} is {', '.join(network.addresses)}")
    if not network.can_listen:
        way_out = "allow TCP on 127.0.0.1: even the ranks of one host meet there"
        yield problem("ports", "no program can listen on 127.0.0.1", way_out=way_out)
    elif not network.port_is_free:
        way_out = (
            "start with `deepspeed --master_port 29501` or another free one; other launchers choose one themselves"
        )
        yield note("ports", f"port {PORT}, which deepspeed takes by default, is in use", way_out=way_out)
    else:
        yield ok("ports", f"programs can listen, and port {PORT} is free")


def _within(seconds: float, look_up: Callable[[], list[str]]) -> tuple[list[str], str | None]:
    found: list[str] = []
    errors: list[str] = []

    def act() -> None:
        try:
            found.extend(look_up())
        except OSError as error:
            errors.append(error.strerror or str(error))

    thread = threading.Thread(target=act, daemon=True)  # a name server cannot be asked to hurry
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return [], f"the name server did not answer within {seconds:g} s"
    return found, errors[0] if errors else None if found else "none was found"


def _resolve(host: str) -> list[str]:
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _can_listen(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's store does
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            return False
        return True
