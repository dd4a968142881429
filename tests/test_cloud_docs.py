"""docs/cloud.md: every snippet can be read, and what it starts has options and variables that dstrain and torchrun take."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dstrain.cluster.environment import read_process_info
from dstrain.config.arguments import parse_arguments, split_arguments

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cloud.md").read_text()
STUB = """#!/bin/sh
printf '%s\\n' "RANK=$RANK" "WORLD_SIZE=$WORLD_SIZE" "MASTER_ADDR=$MASTER_ADDR" "MASTER_PORT=$MASTER_PORT" "$@"
"""


def snippets(title: str, language: str) -> list[str]:
    """The code blocks of a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def run(script: str, *, folder: Path, **variables: str) -> list[str]:
    """What a snippet would start, a word per line: its programs are replaced by one that prints its arguments."""
    for program in ("python", "launch/torchrun.sh"):
        (folder / program).parent.mkdir(exist_ok=True)
        (folder / program).write_text(STUB)
        (folder / program).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"} | variables
    done = subprocess.run(["sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def options(words: list[str]) -> dict[str, str]:
    """torchrun's options by name; checks the arguments of the training behind them."""
    own, training = split_arguments(words[4:])
    assert parse_arguments(training).config == "my_recipe.yaml"
    return dict(zip(own[::2], own[1::2], strict=True))


def container(pod: dict[str, Any]) -> str:
    (found,) = pod["spec"]["containers"]
    assert found["command"] == ["sh", "-c"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= 120
    return str(found["args"][0])


def test_pods_have_the_variables_of_a_rank(tmp_path: Path) -> None:
    pod = yaml.safe_load(snippets("Plain pods", "yaml")[0])["spec"]["template"]
    words = run(container(pod), folder=tmp_path, HOSTNAME="train-1")
    variables = dict(word.split("=", 1) for word in words[:4])
    process = read_process_info(variables)
    assert (process.rank, process.world_size, process.local_rank) == (1, 2, 0)
    assert (process.master_address, process.master_port) == ("train-0.train", 29500)
    assert parse_arguments(words[5:]).config == "my_recipe.yaml"


def test_a_jobset_starts_torchrun_with_the_number_of_each_node(tmp_path: Path) -> None:
    (job,) = yaml.safe_load(snippets("JobSet", "yaml")[0])["spec"]["replicatedJobs"]
    script = container(job["template"]["spec"]["template"])
    found = options(run(script, folder=tmp_path, JOB_COMPLETION_INDEX="1"))
    assert (found["--nnodes"], found["--node-rank"]) == (str(job["template"]["spec"]["completions"]), "1")
    assert found["--master-addr"] == "train-node-0-0.train"


def test_a_trainjob_leaves_all_to_torchruns_own_variables() -> None:
    trainer = yaml.safe_load(snippets("Kubeflow Trainer", "yaml")[0])["spec"]["trainer"]
    own, training = split_arguments(trainer["command"][1:])
    assert own == []
    assert parse_arguments(training).config == "my_recipe.yaml"


def test_skypilot_takes_the_first_address(tmp_path: Path) -> None:
    task = yaml.safe_load(snippets("SkyPilot", "yaml")[0])
    variables = {"NUM_NODES": "2", "NUM_GPUS_PER_NODE": "8", "NODE_RANK": "1", "NODE_IPS": "10.0.0.1\n10.0.0.2"}
    named = {f"SKYPILOT_{name}": value for name, value in variables.items()}
    found = options(run(task["run"], folder=tmp_path, **named))
    assert found == {
        "--nnodes": "2", "--nproc-per-node": "8", "--node-rank": "1", "--master-addr": "10.0.0.1", "--master-port": "29500",
    }  # fmt: skip


@pytest.mark.parametrize("main", ["10.0.0.7", None])
def test_aws_batch_names_the_main_node_to_all_but_itself(main: str | None, tmp_path: Path) -> None:
    variables = {"AWS_BATCH_JOB_NUM_NODES": "2", "AWS_BATCH_JOB_NODE_INDEX": "0" if main is None else "1"}
    if main is not None:
        variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"] = main
    (tmp_path / "hostname").write_text("#!/bin/sh\necho 10.0.0.5\n")
    (tmp_path / "hostname").chmod(0o755)
    found = options(run(snippets("AWS Batch, multi-node", "bash")[0], folder=tmp_path, **variables))
    assert found["--node-rank"] == variables["AWS_BATCH_JOB_NODE_INDEX"]
    assert found["--master-addr"] == (main or "10.0.0.5")


def test_torchrun_sh_passes_options_and_ends_with_the_code_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "torchrun").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\nexit 1\n')
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >&2\nexit 85\n')
    for program in ("torchrun", "python"):
        (tmp_path / program).chmod(0o755)
    command = [
        str(ROOT / "launch" / "torchrun.sh"),
        "--nproc-per-node",
        "2",
        "--",
        "--config",
        "a b.yaml",
        "x=$(touch bad)",
    ]
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 85
    started, asked = done.stderr.split("-m\n")
    assert started.splitlines()[:2] == ["--nproc-per-node", "2"]
    assert started.splitlines()[-3:] == ["--config", "a b.yaml", "x=$(touch bad)"]
    assert asked.splitlines()[:3] == ["dstrain.run_folder.outcome", "--code", "1"]
    assert not (tmp_path / "bad").exists()
    refused = subprocess.run(
        [command[0], "--x", "$(touch bad)", "--"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, (tmp_path / "bad").exists()) == (2, False)


RUN = """#!/bin/sh
trap 'echo saved by $1 >> log; exit 1' $1
echo "$$" > running
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(("sent", "passed_on"), [("TERM", "TERM"), ("INT", "TERM"), ("USR1", "TERM"), ("HUP", "HUP")])
@pytest.mark.parametrize("is_first", [True, False], ids=["as process 1", "as any process"])
def test_torchrun_sh_passes_signals_on_and_waits_for_the_save(
    sent: str, passed_on: str, is_first: bool, tmp_path: Path
) -> None:
    (tmp_path / "torchrun").write_text(RUN.replace("$1", passed_on))
    (tmp_path / "python").write_text("#!/bin/sh\ncat log\nexit 85\n")
    for program in ("torchrun", "python"):
        (tmp_path / program).chmod(0o755)
    command = [str(ROOT / "launch" / "torchrun.sh"), "--", "--config", "debug"]
    if is_first:
        if subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
            pytest.skip("this user may not make a pid namespace")
        command = ["unshare", "--pid", "--fork", "--kill-child", *command]
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    script = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    running = tmp_path / "running"
    wait_until(lambda: running.exists() and running.read_text() != "")
    target = script.pid if not is_first else child_of(script.pid)
    os.kill(target, getattr(signal, f"SIG{sent}"))
    said, _ = script.communicate(timeout=60)
    assert (said, script.returncode) == (f"saved by {passed_on}\n", 85)


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def wait_until(is_true: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
