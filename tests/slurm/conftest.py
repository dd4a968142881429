"""The cluster of the tests: started once and stopped at the end; if that is impossible, a clear message."""

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from dstrain.config.schema import RunConfig
from tests.slurm.jobs import DIRECTORY, build_recipe, call, run_cluster, submit

REQUIRED = "DSTRAIN_SLURM_REQUIRED"
"""If set, the tests fail instead of being skipped when no cluster can be started."""


def find_obstacle() -> str | None:
    """Why no cluster can be started here, or None if one can."""
    if os.geteuid() != 0:
        return "needs root, for the network namespaces that are its nodes"
    if not shutil.which("slurmctld") and not shutil.which("apt-get"):
        return "needs Debian or Ubuntu, whose apt-get has Slurm, or an installed slurmctld, slurmd and munge"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"namespaces are not allowed here: {tried.stderr.strip()}"
    return None


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A running cluster of two nodes."""
    if obstacle := find_obstacle():
        if os.environ.get(REQUIRED):
            pytest.fail(f"the Slurm of the tests {obstacle}; {REQUIRED} is set")
        pytest.skip(f"the Slurm of the tests {obstacle}")
    run_cluster("stop")  # in case an interrupted run left one
    run_cluster("start")
    try:
        yield
    finally:
        run_cluster("stop")


@pytest.fixture(autouse=True)
def fresh_nodes(cluster: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test starts with both nodes up and no jobs; after a failure the last log lines of the daemons are shown."""
    yield
    run_cluster("start-controller")
    call("scancel", "--user=root")
    run_cluster("power-cut", "node3")
    for node in ("node1", "node2"):
        run_cluster("plug", node)
        run_cluster("boot", node)
    print("".join(f"{path}:\n{path.read_text()[-1500:]}\n" for path in sorted((DIRECTORY / "log").glob("slurm*.log"))))


@pytest.fixture(scope="session")
def straight(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """An undisturbed run on two nodes."""
    config = build_recipe(tmp_path_factory.mktemp("straight"))
    job = submit(config, wait=True)
    assert job.wait_code == 0, job.log()
    return config
