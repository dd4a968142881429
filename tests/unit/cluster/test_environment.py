"""Rank and peers of a process from the environment of every launcher; and the refusal of an incomplete one."""

import socket

import pytest

from dstrain.cluster.environment import MPI, ProcessInfo, free_port, read_process_info, read_start
from dstrain.errors import UserError

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


@pytest.mark.parametrize("extra", [{"LOCAL_SIZE": "4", "CROSS_RANK": "0"}, {"LOCAL_WORLD_SIZE": "4"}])
def test_ranks_that_are_all_on_one_host_meet_on_loopback(extra: dict[str, str]) -> None:
    assert read_process_info(LAUNCHED | extra).master_address == "127.0.0.1"
    assert not read_process_info(LAUNCHED | {"LOCAL_WORLD_SIZE": "2"}).is_one_host
    assert read_process_info(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "8"}).master_address == "127.0.0.1"
    assert read_process_info(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}).master_address == "gpu07"


def test_ranks_of_torchrun_meet_where_its_agent_keeps_the_store() -> None:
    agent = {"TORCHELASTIC_RUN_ID": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "LOCAL_WORLD_SIZE": "4"}
    assert read_process_info(LAUNCHED | agent).master_address == "node1"


def test_a_pod_with_one_rank_needs_no_local_rank() -> None:
    process = read_process_info(without(LAUNCHED, "LOCAL_RANK"))
    assert (process.rank, process.local_rank, process.local_world_size, process.launcher) == (3, 0, 1, "environment")
    with pytest.raises(UserError, match="not LOCAL_RANK, and this node has 2 ranks; set LOCAL_RANK"):
        read_process_info(without(LAUNCHED, "LOCAL_RANK") | {"LOCAL_WORLD_SIZE": "2"})


def mpi(names: tuple[str, str, str, str], *values: int) -> dict[str, str]:
    return {name: str(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("names", MPI, ids=lambda names: names[0])
def test_mpirun_on_one_node_needs_neither_address_nor_port(names: tuple[str, str, str, str]) -> None:
    process = read_process_info(mpi(names, 1, 2, 1, 2))
    assert (process.rank, process.world_size, process.local_rank, process.local_world_size) == (1, 2, 1, 2)
    assert (process.launcher, process.master_address, process.master_port) == ("mpirun", "127.0.0.1", 0)
    assert process.known_from == f"{names[0]} and {names[1]}"


def test_mpirun_on_several_nodes_needs_address_and_port() -> None:
    environment = mpi(MPI[0], 5, 8, 1, 4)
    with pytest.raises(
        UserError, match=r"started 8 ranks, but not that all are on this node; .*MASTER_ADDR.*MASTER_PORT"
    ):
        read_process_info(environment)
    process = read_process_info(environment | {"MASTER_ADDR": "n1", "MASTER_PORT": "1234"})
    assert (process.master_address, process.master_port, process.rank) == ("n1", 1234, 5)


def test_slurms_own_pmi_variables_do_not_hide_its_step() -> None:
    assert read_process_info(SLURM | {"PMI_RANK": "5", "PMI_SIZE": "8"}).launcher == "srun"
    alone = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "PMI_RANK": "0", "PMI_SIZE": "1"}
    assert read_process_info(alone).launcher == "python"


def test_mpirun_inside_a_step_of_one_task_a_node_counts_by_its_own_variables() -> None:
    process = read_process_info(SLURM | {"SLURM_NTASKS": "2"} | mpi(MPI[0], 3, 4, 3, 4))
    assert (process.launcher, process.rank, process.world_size) == ("mpirun", 3, 4)


def test_a_pod_for_torchrun_that_python_started_is_refused() -> None:
    with pytest.raises(UserError, match=r"PET_NNODES=4 .*start it with torchrun"):
        read_process_info({"PET_NNODES": "4", "PET_NODE_RANK": "2"})
    assert read_process_info({"PET_NNODES": "1"}).world_size == 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (LAUNCHED | {"RANK": "4"}, "RANK and WORLD_SIZE say that this is rank 4 of 4, but ranks count from 0 to 3"),
        (LAUNCHED | {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "rank 2 of 2"),
        (SLURM | {"SLURM_PROCID": "8"}, "SLURM_PROCID and SLURM_NTASKS say that this is rank 8 of 8"),
        (mpi(MPI[0], 5, 2, 0, 1), "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE say that this is rank 5 of 2"),
        (LAUNCHED | {"RANK": "0", "WORLD_SIZE": "0"}, "rank 0 of 0, but there must be at least one"),
        (mpi(MPI[0], 2, 2, 1, 2), "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE say that this is rank 2 of 2"),
    ],
)
def test_a_rank_beyond_the_number_of_ranks_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_process_info(environment)


@pytest.mark.parametrize("port", ["0", "99999"])
@pytest.mark.parametrize("environment", [LAUNCHED, SLURM, mpi(MPI[0], 0, 2, 0, 2)], ids=["env", "srun", "mpirun"])
def test_a_port_that_does_not_exist_is_refused(environment: dict[str, str], port: str) -> None:
    with pytest.raises(UserError, match=f"MASTER_PORT must be from 1 to 65535, found {port}"):
        read_process_info(environment | {"MASTER_PORT": port})


def test_a_world_size_that_an_mpi_contradicts_is_said_where_the_rank_is_explained() -> None:
    assert read_process_info(LAUNCHED | mpi(MPI[0], 3, 4, 1, 2)).known_from == "RANK and WORLD_SIZE"
    contradicted = LAUNCHED | mpi(MPI[0], 0, 8, 0, 8)
    assert read_process_info(contradicted).known_from == "RANK and WORLD_SIZE, though OMPI_COMM_WORLD_SIZE is 8,"
    # mpirun may start one torchrun on each node
    assert read_process_info(contradicted | {"TORCHELASTIC_RUN_ID": "1"}).known_from == "RANK and WORLD_SIZE"


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


@pytest.mark.parametrize("missing", sorted(set(LAUNCHED) - {"LOCAL_RANK"}))
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
        ({}, ("", 0, 0)),
        ({"SLURM_JOB_ID": "7"}, ("/7", 0, 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2"}, ("big/7", 2, 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "DSTRAIN_LAUNCH": "3"}, ("/7", 2, 3)),
        ({"SLURM_JOB_ID": "7", "DSTRAIN_LAUNCH": "x"}, ("/7", 0, 0)),
        ({"DSTRAIN_LAUNCH": "3"}, ("", 0, 0)),
        ({"SLURM_JOB_ID": "x", "SLURM_RESTART_COUNT": "2"}, ("", 0, 0)),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "x"}, ("", 0, 0)),
        ({"SLURM_RESTART_COUNT": "2"}, ("", 0, 0)),
    ],
)
def test_the_environment_names_the_job_its_restarts_and_its_launches(
    environment: dict[str, str], start: tuple[str, int, int]
) -> None:
    assert read_start(environment) == start
