"""What the launchers start: how it reads its arguments, what it prints when it cannot, and what it leaves unimported."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from dstrain import train
from dstrain.attempt.lease import LeaseHeld
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.reporting.command import command_to_copy
from dstrain.train import command_words, main
from tests.unit.cluster.process_cases import build_process

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch" / "train.py"
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def run_launch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """launch/train.py in a process of its own that tells, at its end, which heavy modules it has imported."""
    code = """
import runpy, sys
heavy = ("torch", "deepspeed", "transformers", "datasets", "numpy")
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *[name for name in heavy if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(LAUNCH), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nsead: 1\n", "bad.yaml:2: sead: unknown key; found 1; did you mean `seed`?"),
        ("name: [\n", "bad.yaml:2: not valid YAML"),
    ],
)
def test_a_configuration_error_ends_the_start_before_torch_is_imported(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    done = run_launch("--config", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["imported:"]


def test_missing_data_are_found_before_torch_is_imported(tmp_path: Path) -> None:
    done = run_launch("--config", "mtop_pointer_scratch", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert done.stdout.split() == ["imported:"]


def test_a_wrong_environment_is_an_error_of_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["--config", "debug"]) == 2
    assert "WORLD_SIZE is set but not RANK" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["name", "output_dir", "machine.cache_dir", "data.train.0.path"])
def test_a_path_that_no_file_can_have_is_one_line_with_its_key(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "debug", f"{key}={'a' * 256}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(f": {key}: " in line for line in lines)
    assert all(line.startswith("override `") for line in lines)


def test_an_error_of_the_file_system_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert main(["--config", "debug", f"output_dir={tmp_path / 'run'}"]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'run' / 'run.json'}: Permission denied\n"


@pytest.mark.parametrize(("rank", "local_rank", "prints"), [(0, 0, True), (4, 0, True), (1, 1, False)])
def test_the_first_rank_of_every_node_prints_an_error_of_the_recipe(
    rank: int, local_rank: int, prints: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 8, "MASTER_ADDR": "n1", "MASTER_PORT": 29500}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    assert main(["--config", "nowhere"]) == 2
    assert bool(capsys.readouterr().err) is prints


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"RANK": "-1", "LOCAL_RANK": "-1"}, {"PET_NNODES": "2"}])
def test_every_process_prints_an_error_of_its_environment(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["--config", "debug"]) == 2
    assert capsys.readouterr().err.startswith("environment: ")


@pytest.mark.parametrize(
    ("launcher", "world_size", "script", "shown"),
    [
        ("deepspeed", 2, str(LAUNCH), "deepspeed --num_gpus 2 launch/train.py"),
        ("deepspeed", 2, "/site/dstrain/train.py", "deepspeed --num_gpus 2 --module dstrain.train"),
        ("torchrun", 4, str(LAUNCH), "torchrun --nproc-per-node 4 launch/train.py"),
        ("torchrun", 4, "/site/dstrain/train.py", "torchrun --nproc-per-node 4 --module dstrain.train"),
        ("srun", 8, str(LAUNCH), "srun --ntasks 8 python launch/train.py"),
        ("srun", 8, "/site/dstrain/train.py", "srun --ntasks 8 python -m dstrain.train"),
        ("python", 1, str(LAUNCH), "python launch/train.py"),
        ("python", 1, "launch/train.py", "python launch/train.py"),
        ("python", 1, "/usr/bin/dstrain", "python -m dstrain.train"),
    ],
)
def test_the_command_is_one_that_can_be_typed(launcher: str, world_size: int, script: str, shown: str) -> None:
    process = build_process(launcher, world_size=world_size)
    for local_rank in (["--local_rank=1"], ["--local-rank=1"], []):
        arguments = [*local_rank, "--config", "my recipe.yaml", "a=[1, 2]"]
        command = command_words(process, script=script, arguments=arguments)
        assert command_to_copy(command) == f"{shown} --config 'my recipe.yaml' 'a=[1, 2]'"


def test_odd_arguments_come_back_unchanged_from_the_command_on_the_card() -> None:
    arguments = ["--config", "debug", "task.source_prefix=a  b\t\u00a0\n$(id) ", "name=it's"]
    line = command_to_copy(command_words(build_process("python"), script=str(LAUNCH), arguments=arguments))
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[2:-1] == arguments


def test_the_command_names_no_folder_above_the_working_directory_and_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home of me", tmp_path / "home of me" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    arguments = {
        f"{home}/my recipe.yaml": "~/my recipe.yaml",
        f"output_dir={work}/runs/a": "output_dir=runs/a",
        f"output_dir={work}": "output_dir=.",
        f"data.train=[{{path: {work}/x.tsv}}, {{path: '{home}/y.tsv'}}]": "data.train=[{path: x.tsv}, {path: '~/y.tsv'}]",
        f"machine.cache_dir={work}-other/c": "machine.cache_dir=~/work-other/c",
        f"machine.cache_dir=/mnt{work}/c": f"machine.cache_dir=/mnt{work}/c",
        "training.max_steps=5": "training.max_steps=5",
    }
    words = command_words(build_process(), script="x", arguments=["--config", *arguments])
    assert list(words[4:]) == list(arguments.values())
    token = "hf_" + "a" * 34
    assert token not in "".join(command_words(build_process(), script="x", arguments=[f"model.name={token}"]))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What dstrain.run.run was called with; it is not imported, and gives exit code 85."""
    calls: list[dict[str, Any]] = []

    def run(config: RunConfig, **given: Any) -> int:
        calls.append({"config": config, **given})
        return 85

    monkeypatch.setitem(sys.modules, "dstrain.run.training", Namespace(run=run))
    monkeypatch.setattr(train, "quiet_libraries", lambda process: None)
    monkeypatch.setattr(train, "_await_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", [str(LAUNCH)])
    return calls


def test_a_run_gets_its_configuration_place_and_command_and_its_exit_code_is_kept(
    started: list[dict[str, Any]],
) -> None:
    assert main(["--config", "debug", "seed=7"]) == 85
    (call,) = started
    assert (call["config"].seed, call["config"].name, call["launch"].whole) == (7, "debug", None)
    assert (call["launch"].process.launcher, call["launch"].command) == (
        "python",
        ("python", "launch/train.py", "--config", "debug", "seed=7"),
    )


@pytest.mark.parametrize(("options", "name"), [(["--debug"], "debug-debug"), (["--overfit", "4"], "debug-overfit4")])
def test_debugging_runs_a_small_recipe_in_a_folder_of_its_own(
    options: list[str], name: str, started: list[dict[str, Any]]
) -> None:
    main(["--config", "debug", *options])
    (call,) = started
    assert (call["config"].name, call["launch"].whole.name) == (name, "debug")
    assert call["launch"].whole.data.train[0].max_rows == 256


def test_debugging_on_several_ranks_is_refused(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in build_process(world_size=2).as_environment().items():
        monkeypatch.setenv(key, value)
    assert main(["--config", "debug", "--debug"]) == 2
    assert "one process" in capsys.readouterr().err
    assert started == []


def test_an_error_of_the_run_is_reported_and_ends_the_process_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: RunConfig, **given: Any) -> int:
        load_config("no-such-recipe")
        return 0

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setitem(sys.modules, "dstrain.run.training", Namespace(run=fail))
    monkeypatch.setattr(train, "quiet_libraries", lambda process: None)
    monkeypatch.setattr(train, "_await_signals", lambda: None)
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as ended:
        main(["--config", "debug", f"output_dir={tmp_path}"])
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert "no-such-recipe" in printed
    assert "Traceback" not in printed


def test_a_value_error_of_the_program_is_never_taken_for_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slip(path: str, **given: Any) -> RunConfig:
        first, second = [path]
        raise AssertionError(first + second)

    monkeypatch.setattr(train, "load_run_config", slip)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        main(["--config", "debug"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("restarts", "code"),
    [({}, 1), ({"SLURM_RESTART_COUNT": "1"}, EXIT_PREEMPTED), ({"DSTRAIN_LAUNCH": "1"}, EXIT_PREEMPTED)],
)
def test_slurm_tells_a_restart_from_a_first_start(
    restarts: dict[str, str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(config: RunConfig, **given: Any) -> int:
        raise LeaseHeld("held by process 7")

    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setitem(sys.modules, "dstrain.run.training", Namespace(run=refuse))
    monkeypatch.setattr(train, "quiet_libraries", lambda process: None)
    monkeypatch.setattr(train, "_await_signals", lambda: None)
    monkeypatch.setattr(os, "_exit", end)
    for name, value in ({"SLURM_JOB_ID": "7"} | restarts).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["--config", "debug", f"output_dir={tmp_path}"])
    assert ended.value.code == code


def test_a_tracker_that_nobody_knows_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    done = run_launch("--config", "debug", "logging.trackers.wanbd={}", cwd=tmp_path)
    assert done.returncode == 2
    assert "logging.trackers.wanbd: there is no tracker `wanbd`" in done.stderr
    assert done.stdout.split() == ["imported:"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("local_rank", "prints"), [(0, True), (1, False)])
def test_options_of_another_tool_are_answered_once_with_those_of_ours(
    local_rank: int, prints: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launched = {"RANK": local_rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": 2, "MASTER_ADDR": "n", "MASTER_PORT": 29500}
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(sys, "argv", [str(LAUNCH)])
    assert main(["debug", "--num_train_epochs", "3", "--per_device_train_batch_size", "8", "--local_rank=1"]) == 2
    printed = capsys.readouterr().err
    assert bool(printed) is prints
    if prints:
        assert "  --num_train_epochs 3 " in printed
        last = printed.splitlines()[-1]
        assert "launch/train.py --config debug training.epochs=3 training.batch_size=16" in last


def test_options_of_another_tool_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    done = run_launch("my_recipe.yaml", "--training.max_steps", "5", cwd=tmp_path)
    assert done.returncode == 2
    assert "all together: python launch/train.py --config my_recipe.yaml training.max_steps=5" in done.stderr
    assert done.stdout.split() == ["imported:"]
