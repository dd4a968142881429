"""Settings of the machine half that cannot go together."""

from pathlib import Path

import pytest

from dstrain.config.load import load_config
from tests.unit.config.config_cases import GOOD, faults, write


def test_layers_are_not_compiled_under_zero_3_and_null_leaves_it_open(tmp_path: Path) -> None:
    text = GOOD + "machine: {zero_stage: 3, compile: true}\n"
    (line,) = faults(write(tmp_path, text))
    assert "machine.compile: compile needs zero_stage 0, 1 or 2" in line
    assert "found 3: set compile to false or null" in line
    path = str(write(tmp_path, text))
    assert load_config(path, overrides=["machine.compile=null"]).machine.compile is None
    assert load_config(path, overrides=["machine.zero_stage=2"]).machine.compile is True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["machine.zero_stage=0", "machine.offload_optimizer=true"], "needs zero_stage 1, 2 or 3; found 0"),
        (["machine.zero_stage=2", "machine.offload_parameters=true"], "needs zero_stage 3; found 2"),
        (["machine.deepspeed={fp16: {enabled: true}}"], "machine.deepspeed.fp16.enabled: set `precision` instead"),
    ],
)
def test_what_deepspeed_cannot_do_or_must_not_be_told_is_refused(
    good: Path, overrides: list[str], message: str
) -> None:
    (line,) = faults(good, *overrides)
    assert message in line


def test_offloading_fits_the_stages_that_shard(good: Path) -> None:
    overrides = ["machine.zero_stage=3", "machine.offload_parameters=true", "machine.offload_optimizer=true"]
    assert load_config(str(good), overrides=overrides).machine.offload_parameters


def test_no_limit_of_the_watchdog_is_longer_than_a_collective_waits(good: Path) -> None:
    (line,) = faults(good, "machine.collective_timeout_minutes=20", "machine.watchdog.set_up_minutes=0")
    assert "machine.watchdog.save_minutes" in line
    assert "save_minutes is 30, longer than collective_timeout_minutes, 20" in line
    assert (
        load_config(str(good), overrides=["machine.collective_timeout_minutes=180"]).machine.watchdog.set_up_minutes
        == 180
    )


def test_trackers_have_names_and_settings_and_null_removes_one(good: Path) -> None:
    overrides = ["logging.trackers.wandb.project=p", "logging.trackers.mlflow={}"]
    trackers = load_config(str(good), overrides=overrides).logging.trackers
    assert {name: tracker.project for name, tracker in trackers.items()} == {"wandb": "p", "mlflow": None}
    assert load_config(str(good)).logging.trackers == {}


@pytest.mark.parametrize(
    ("override", "messages"),
    [
        (
            "{tensorboard: {}}",
            ["logging.trackers.tensorboard: TensorBoard needs no settings: write `tensorboard: true`"],
        ),
        ("{wandb: {projct: p}}", ["logging.trackers.wandb.projct: unknown key", "did you mean `project`?"]),
        ("{wandb: {api_key: p}}", ["logging.trackers.wandb.api_key: is no place for a secret"]),
        ("{mlflow: {uri: 'http://me:secret@host'}}", ["logging.trackers.mlflow.uri: ", "***"]),
        ("{W B: {}}", ["logging.trackers"]),
        ("[wandb]", ["logging.trackers: must be a section of keys", "such as `wandb: {project: ko-en}`"]),
        ("{mlflow: {project: ''}}", ["logging.trackers.mlflow.project: "]),
    ],
)
def test_trackers_that_cannot_be_are_refused_with_their_key(good: Path, override: str, messages: list[str]) -> None:
    (line,) = faults(good, f"logging.trackers={override}")
    assert [message for message in messages if message not in line] == []
    assert "secret@" not in line
