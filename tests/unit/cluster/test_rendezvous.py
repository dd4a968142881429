"""The port that ranks agree on: kept open, never shared, never read late; and the errors if there is no agreement."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.cluster import rendezvous
from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.cluster.rendezvous import (
    PORTS,
    Rendezvous,
    choose_host,
    list_ports,
    name_launch,
    name_rendezvous,
    needs_rendezvous,
    open_port,
    open_rendezvous,
)

STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_JOB_ID": "12345",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
    "SLURM_CLUSTER_NAME": "big",
}


def process(rank: int = 0) -> ProcessInfo:
    return replace(read_process_info(STEP), rank=rank)


def join(
    run_dir: Path, *, rank: int = 0, environment: dict[str, str] = STEP, timeout_seconds: float = 0.0
) -> Rendezvous:
    return open_rendezvous(
        process(rank),
        environment=environment,
        folder=run_dir / "rendezvous",
        timeout_seconds=timeout_seconds,
        sleep=lambda seconds: None,
    )


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Rendezvous]:
    rendezvous = join(tmp_path)
    assert rendezvous.listener is not None
    with closing(rendezvous.listener):
        yield rendezvous


def test_only_a_step_of_slurm_without_a_port_has_to_agree_on_one() -> None:
    assert needs_rendezvous(read_process_info(STEP))
    assert not needs_rendezvous(read_process_info(STEP | {"MASTER_PORT": "1234"}))
    assert not needs_rendezvous(read_process_info({}))


def test_ranks_of_one_mpirun_have_a_name_that_no_other_launch_has() -> None:
    assert name_launch({"PMIX_NAMESPACE": "a"}) == name_launch({"PMIX_NAMESPACE": "a", "RANK": "1"})
    assert name_launch({"PMIX_NAMESPACE": "a"}) != name_launch({"PMIX_NAMESPACE": "b"})
    assert f"-{os.getppid()}-" in name_launch({})


def test_the_other_ranks_read_the_port_that_rank_0_holds(first: Rendezvous, tmp_path: Path) -> None:
    other = join(tmp_path, rank=1)
    assert other.port == first.port
    assert (other.listener, other.path) == (None, None)
    with socket.create_connection(("127.0.0.1", other.port), timeout=10):
        pass


def test_ranks_of_one_host_meet_where_no_other_host_can_connect(tmp_path: Path) -> None:
    step = STEP | {"SLURM_STEP_TASKS_PER_NODE": "2"}
    alone = open_rendezvous(read_process_info(step), environment=step, folder=tmp_path)
    assert alone.listener is not None
    with closing(alone.listener):
        assert alone.listener.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):  # another address of this host
            socket.create_connection(("127.0.0.2", alone.port), timeout=10)


NAMES = {"peers": "10.0.0.7", "elsewhere": "10.9.9.9", "itself": "127.0.1.1", "six": "fd00::7", "link": "fe80::1"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [("peers", "10.0.0.7"), ("elsewhere", ""), ("itself", ""), ("six", "fd00::7"), ("link", ""), ("unknown", "")],
)
def test_ranks_of_several_hosts_meet_at_the_address_that_they_are_given(
    address: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(name: str, *given: Any, **named: Any) -> list[tuple[Any, ...]]:
        if name not in NAMES:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NAMES[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(rendezvous, "_has_address", lambda found: found in ("10.0.0.7", "fd00::7", "fe80::1"))
    assert choose_host(replace(process(), master_address=address)) == expected


@pytest.mark.parametrize("address", ["", "a..b", "x" * 300, "no such name"])
def test_an_address_that_is_no_name_opens_all_of_them(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_has_address", lambda found: False)
    assert choose_host(replace(process(), master_address=address)) == ""


def test_a_host_has_its_own_addresses_only() -> None:
    assert rendezvous._has_address("127.0.0.3")
    assert not rendezvous._has_address("198.51.100.7")


def test_the_port_is_taken_from_the_moment_it_is_published(first: Rendezvous) -> None:
    with pytest.raises(ValueError, match=r"none of 1 ports .* is free; set MASTER_PORT"):
        open_port([first.port], host="")


@pytest.mark.parametrize("changed", ["SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"])
def test_the_port_of_another_step_or_restart_is_ignored(changed: str, first: Rendezvous, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank 1 waited"):
        join(tmp_path, rank=1, environment=STEP | {changed: "77"})


@pytest.mark.parametrize("mark", ["SLURM_JOB_START_TIME", "SLURM_STEP_LAUNCHER_PORT"])
def test_a_file_left_by_a_job_whose_id_is_reused_is_ignored(mark: str, first: Rendezvous, tmp_path: Path) -> None:
    again = STEP | {mark: "41234"}
    with pytest.raises(ValueError, match="rank 1 waited"):
        join(tmp_path, rank=1, environment=again)
    second = join(tmp_path, environment=again)  # rank 0 of that job overwrites the old file
    assert second.listener is not None
    with closing(second.listener):
        assert join(tmp_path, rank=1, environment=again).port == second.port != first.port


def test_a_closed_rendezvous_leaves_no_file(first: Rendezvous, tmp_path: Path) -> None:
    first.close()
    first.close()  # twice is no error
    with pytest.raises(ValueError, match="rank 1 waited"):
        join(tmp_path, rank=1)


def test_waiting_ends_as_soon_as_rank_0_has_published(tmp_path: Path) -> None:
    opened: list[Rendezvous] = []

    def publish_after_a_while(seconds: float) -> None:
        if not opened:
            opened.append(join(tmp_path))

    other = open_rendezvous(process(1), environment=STEP, folder=tmp_path / "rendezvous", sleep=publish_after_a_while)
    assert opened[0].listener is not None
    opened[0].listener.close()
    assert other.port == opened[0].port


def test_a_run_folder_that_is_not_shared_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rank 1 waited 5 s for rank 0 on gpu07 .*output_dir.*MASTER_PORT"):
        join(tmp_path, rank=1, timeout_seconds=5.0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"port": "x", "mark": "-"}', '{"port": 1}', "{}"])
def test_a_malformed_file_is_ignored(content: str, first: Rendezvous, tmp_path: Path) -> None:
    assert first.path is not None
    first.path.write_text(content)
    with pytest.raises(ValueError, match="rank 1 waited"):
        join(tmp_path, rank=1)


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rendezvous").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="cannot be published"):
        join(tmp_path)


def test_a_hostile_name_of_a_cluster_stays_inside_the_folder() -> None:
    assert name_rendezvous(STEP | {"SLURM_CLUSTER_NAME": "../../etc"}) == "______etc-12345-0-0"


def test_a_slurm_variable_that_is_not_a_number_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"SLURM_STEP_ID must be a whole number, found '\.\./x'"):
        name_rendezvous(STEP | {"SLURM_STEP_ID": "../x"})


@pytest.mark.parametrize("key", ["a", "big-1-0-0", "big-4294967295-0-0"])
def test_the_ports_lie_between_the_well_known_and_the_ephemeral_ones_and_are_tried_once(key: str) -> None:
    ports = list_ports(key)
    assert ports == list_ports(key)
    assert len(set(ports)) == len(ports)
    assert set(ports) <= set(PORTS)


def test_twenty_times_in_a_row_two_starts_that_want_the_same_ports_get_different_ones(tmp_path: Path) -> None:
    ports = list_ports("both")[:2]  # no more than two, so that every pair fights for them
    for _ in range(20):
        held: list[socket.socket] = []
        together = threading.Barrier(2)

        def start(held: list[socket.socket] = held, together: threading.Barrier = together) -> None:
            together.wait()
            held.append(open_port(ports, host=""))

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(listener.getsockname()[1] for listener in held) == sorted(ports)
        for listener in held:
            listener.close()


def test_twenty_times_in_a_row_two_jobs_of_one_host_meet_among_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "list_ports", lambda key: list(PORTS[:50]))  # so that every pair fights for them
    for number in range(20):
        jobs = [STEP | {"SLURM_JOB_ID": f"{number}{job}"} for job in range(2)]
        heard: dict[tuple[str, int], str] = {}
        together = threading.Barrier(4)

        def speak(
            job: dict[str, str],
            heard: dict[tuple[str, int], str] = heard,
            together: threading.Barrier = together,
        ) -> None:
            together.wait()
            rendezvous = open_rendezvous(process(0), environment=job, folder=tmp_path / "rendezvous")
            assert rendezvous.listener is not None
            with closing(rendezvous.listener):
                connection, _ = rendezvous.listener.accept()
                with closing(connection):
                    heard[job["SLURM_JOB_ID"], 0] = connection.recv(64).decode()
                    connection.sendall(job["SLURM_JOB_ID"].encode())
            rendezvous.close()

        def listen(
            job: dict[str, str],
            heard: dict[tuple[str, int], str] = heard,
            together: threading.Barrier = together,
        ) -> None:
            together.wait()
            rendezvous = open_rendezvous(
                process(1), environment=job, folder=tmp_path / "rendezvous", sleep=lambda seconds: time.sleep(0.01)
            )
            with socket.create_connection(("127.0.0.1", rendezvous.port), timeout=10) as connection:
                connection.sendall(job["SLURM_JOB_ID"].encode())
                heard[job["SLURM_JOB_ID"], 1] = connection.recv(64).decode()

        threads = [threading.Thread(target=act, args=(job,)) for job in jobs for act in (speak, listen)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        ids = [job["SLURM_JOB_ID"] for job in jobs]
        assert heard == {(name, rank): name for name in ids for rank in range(2)}
