"""Following a run: what fails is said once and tried again, and the end sends what is left."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.run_folder.layout import RunFolder
from dstrain.tracking import follow as program
from dstrain.tracking.follow import follow
from dstrain.tracking.sender import only_sender
from dstrain.tracking.tracker import Place, Tracker
from tests.unit.tracking.tracking_cases import Server, add_rows, make_run, memory, train


class Turns(threading.Event):
    """The end of a run that is told after some looks; `between` is called after each of them."""

    def __init__(self, number: int, *, between: Callable[[int], None] = lambda turn: None) -> None:
        super().__init__()
        self._number, self._between = number, between
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        self._between(len(self.pauses))
        if len(self.pauses) == self._number:
            self.set()
        return self.is_set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server in memory, which the tracker `memory` sends to."""
    server = Server()

    def make(name: str, *, folder: RunFolder, settings: Any) -> Tracker:
        return memory(server)(Place(folder.trackers / name))

    monkeypatch.setattr(program, "make_tracker", make)
    return server


def run(folder: RunFolder, ended: Turns, *, num_failures: int = 0) -> tuple[bool | None, list[str]]:
    said: list[str] = []
    return follow(folder, name="memory", ended=ended, tell=said.append, num_failures=num_failures), said


def test_rows_are_sent_as_they_come_and_the_last_ones_at_the_end(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    seen: list[list[int]] = []

    def between(turn: int) -> None:
        seen.append(list(server.steps))
        add_rows(folder, train(turn + 1))

    assert run(folder, Turns(3, between=between)) == (True, [])
    assert seen == [[1], [1, 2], [1, 2, 3]]
    assert server.steps == [1, 2, 3, 4]
    assert server.statuses == ["interrupted"]


def test_an_outage_is_said_once_and_what_it_held_back_is_sent_later(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    server.faults = [ConnectionError("no answer")] * 3
    pauses, said = [], []
    for number in range(3):
        ended = Turns(2)
        done, told = run(folder, ended, num_failures=number)
        assert done is None
        pauses += ended.pauses
        said += told
        add_rows(folder, train(number + 2))
    assert said == ["memory: ConnectionError: no answer; training continues, and this is tried again (said once)"]
    assert pauses == [10.0, 20.0, 40.0]
    assert run(folder, Turns(1), num_failures=3) == (True, [])
    assert server.steps == [1, 2, 3, 4]


def test_the_pause_after_many_failures_has_a_limit(tmp_path: Path, server: Server) -> None:
    server.faults = [ConnectionError("no answer")]
    ended = Turns(2)
    run(make_run(tmp_path / "run", train(1)), ended, num_failures=10**6)
    assert ended.pauses == [program.MOST_SECONDS]


def test_a_library_that_exits_does_not_end_the_program(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    server.faults = [SystemExit(3)]  # type: ignore[list-item]
    done, (said,) = run(folder, Turns(2))
    assert done is None
    assert "SystemExit: 3" in said


def test_an_outage_that_lasts_to_the_end_is_told_by_the_result(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    server.faults = [ConnectionError("no answer")]
    ended = Turns(1)
    ended.set()
    assert run(folder, ended) == (False, [])


def test_it_waits_for_another_sender_of_the_run(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    with only_sender(folder, name="memory"):
        done, (said,) = run(folder, Turns(2))
    assert done is None
    assert "another process is sending this run to memory" in said
    assert run(folder, Turns(1)) == (True, [])


def test_a_run_folder_that_cannot_be_read_is_told(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path / "run", train(1))
    folder.config.unlink()
    done, (said,) = run(folder, Turns(2))
    assert done is None
    assert "config.yaml" in said


def test_the_address_of_the_run_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shown(memory(Server())):  # type: ignore[misc]
        address = "https://host/run"

    monkeypatch.setattr(program, "make_tracker", lambda name, *, folder, settings: Shown(Place(folder.trackers)))
    assert run(make_run(tmp_path / "run", train(1)), Turns(3)) == (True, ["memory: https://host/run"])
