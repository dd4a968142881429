"""Rank and peers of a process from the environment of every launcher; and the refusal of an incomplete one."""

import socket

import pytest

from dstrain.cluster.environment import ProcessInfo, free_port, read_process_info, read_start

LAUNCHED = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_JOB_ID": "12345",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}


def without(environment: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in keys}


@pytest.mark.parametrize(
    ("extra", "launcher"),
    [({"CROSS_RANK": "0"}, "deepspeed"), ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun"), ({}, "environment")],
)
def test_a_launcher_is_known_by_its_variables(extra: dict[str, str], launcher: str) -> None:
    process = read_process_info(LAUNCHED | extra)
    assert process == ProcessInfo(
        rank=3, local_rank=1, world_size=4, master_address="node1", master_port=29500, launcher=launcher
    )


def test_a_launcher_inside_a_slurm_job_wins_over_slurm() -> None:
    assert read_process_info(SLURM | LAUNCHED | {"TORCHELASTIC_RUN_ID": "1"}).rank == 3


def test_under_srun_ranks_use_the_first_node_and_agree_on_a_port_themselves() -> None:
    process = read_process_info(SLURM)
    assert (process.rank, process.local_rank, process.world_size) == (5, 1, 8)
    assert (process.master_address, process.launcher) == ("gpu07", "srun")
    assert process.master_port == 0


def test_srun_on_a_part_of_the_job_meets_on_the_first_node_of_the_step() -> None:
    assert read_process_info(SLURM | {"SLURM_STEP_NODELIST": "gpu08"}).master_address == "gpu08"


def test_the_users_own_address_and_port_win_over_slurms() -> None:
    process = read_process_info(SLURM | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})
    assert (process.master_address, process.master_port) == ("10.0.0.1", 1234)


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, {"MASTER_PORT": "1"}],
)
def test_a_process_without_peers_is_alone_on_a_free_port(environment: dict[str, str]) -> None:
    process = read_process_info(environment)
    assert (process.rank, process.local_rank, process.world_size) == (0, 0, 1)
    assert (process.master_address, process.launcher) == ("127.0.0.1", "python")
    assert process.master_port > 0


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


@pytest.mark.parametrize("missing", sorted(LAUNCHED))
def test_an_incomplete_environment_is_refused_with_the_missing_name(missing: str) -> None:
    with pytest.raises(ValueError, match=rf"not {missing}\b.*unset"):
        read_process_info(without(LAUNCHED, missing))


@pytest.mark.parametrize("key", sorted(set(LAUNCHED) - {"MASTER_ADDR"}))
@pytest.mark.parametrize("value", ["", "two", "-1", "1.0", "²"])
def test_a_launchers_variable_that_is_not_a_number_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must be a whole number"):
        read_process_info(LAUNCHED | {key: value})


@pytest.mark.parametrize("key", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "MASTER_PORT"])
def test_a_slurm_variable_that_is_not_a_number_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} must be a whole number"):
        read_process_info(SLURM | {key: "x"})


def test_slurm_without_a_node_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SLURM_JOB_NODELIST.*MASTER_ADDR"):
        read_process_info(without(SLURM, "SLURM_JOB_NODELIST"))


def test_a_process_is_written_back_into_the_environment_it_was_read_from() -> None:
    assert read_process_info(LAUNCHED).as_environment() == LAUNCHED


@pytest.mark.parametrize(
    ("environment", "start"),
    [
        ({}, ("", 0)),
        ({"SLURM_JOB_ID": "7"}, ("/7", 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2"}, ("big/7", 2)),
        ({"SLURM_JOB_ID": "x", "SLURM_RESTART_COUNT": "2"}, ("", 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "x"}, ("", 0)),
        ({"SLURM_RESTART_COUNT": "2"}, ("", 0)),
    ],
)
def test_the_environment_names_the_job_and_its_restart(environment: dict[str, str], start: tuple[str, int]) -> None:
    assert read_start(environment) == start
