"""Sweeps: their members in order, each as if its overrides were typed, and everything that is refused before submitting."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dstrain.config.arguments import parse_arguments
from dstrain.config.load import dump_config, load_config
from dstrain.sweep.members import check_members, find_change, main, plan_members, read_sweep, write_indices
from tests.unit.sweep.sweep_cases import GRID, ROOT, plan, refusal, write

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def test_a_grid_is_every_combination_the_last_key_fastest(tmp_path: Path) -> None:
    members = plan(tmp_path, GRID)
    assert [member.number for member in members] == [0, 1, 2, 3]
    assert [member.overrides for member in members] == [
        ("training.learning_rate=0.0001", "seed=1"),
        ("training.learning_rate=0.0001", "seed=2"),
        ("training.learning_rate=0.0003", "seed=1"),
        ("training.learning_rate=0.0003", "seed=2"),
    ]
    assert [Path(member.run_dir).name for member in members] == [
        "000-learning_rate=0.0001-seed=1",
        "001-learning_rate=0.0001-seed=2",
        "002-learning_rate=0.0003-seed=1",
        "003-learning_rate=0.0003-seed=2",
    ]
    assert {Path(member.run_dir).parent for member in members} == {tmp_path / "runs"}


def test_a_list_is_one_member_an_item_and_the_recipe_itself_may_be_one(tmp_path: Path) -> None:
    members = plan(tmp_path, "list:\n  - {}\n  - {seed: 7, model.dropout: 0.1}\n")
    assert [member.overrides for member in members] == [(), ("seed=7", "model.dropout=0.1")]
    assert [Path(member.run_dir).name for member in members] == ["000-unchanged", "001-seed=7-dropout=0.1"]


def test_what_all_share_comes_first_and_what_is_typed_last(tmp_path: Path) -> None:
    (member,) = plan(tmp_path, "overrides: {training.max_steps: 9}\nlist: [{seed: 3}]\n", "training.max_steps=5")
    assert member.overrides == ("training.max_steps=9", "seed=3", "training.max_steps=5")
    assert "max_steps" not in member.run_dir
    _, config, *overrides = member.arguments("debug")
    assert load_config(config, overrides=overrides).training.max_steps == 5


def test_a_folder_is_named_as_one_would_type_the_value(tmp_path: Path) -> None:
    (member,) = plan(
        tmp_path, "list: [{evaluation.rehearsal: false, model.dropout: null, training.betas: [0.8, 0.9]}]\n"
    )
    assert Path(member.run_dir).name == "000-rehearsal=false-dropout=null-betas=0.8_0.9"


def test_an_override_of_all_may_be_varied_by_some(tmp_path: Path) -> None:
    members = plan(tmp_path, "overrides: {seed: 1}\nlist: [{}, {seed: 2}]\n")
    seeds = [load_config("debug", overrides=member.overrides).seed for member in members]
    assert seeds == [1, 2]


def test_a_member_trains_what_its_overrides_say_as_if_they_were_typed(tmp_path: Path) -> None:
    text = """
list:
  - training.learning_rate: 3e-4
    training.betas: [0.8, 0.95]
    evaluation.rehearsal: false
    model.dropout: null
    task.source_prefix: 'two words; $HOME "1e-4": '
    data.train.0: {demo: translation, split: train, max_rows: 20}
"""
    (member,) = plan(tmp_path, text)
    given_to_train = parse_arguments(member.arguments("debug"))
    config = load_config(given_to_train.config, overrides=given_to_train.overrides)
    assert config.training.learning_rate == 3e-4
    assert config.training.betas == (0.8, 0.95)
    assert config.evaluation.rehearsal is False
    assert config.model.dropout is None
    assert config.task.source_prefix == 'two words; $HOME "1e-4": '
    assert config.data.train[0].max_rows == 20
    assert config.run_dir == member.run_dir


def test_folders_are_named_of_safe_letters_only_bounded_and_distinct(tmp_path: Path) -> None:
    long = {f"training.key_{letter}": "x" * 50 for letter in "abcdef"}
    members = plan(tmp_path, yaml.dump({"list": [long, {"name_of": "../번역 $(rm)/"}, {"name_of": "../비밀 $(rm)/"}]}))
    names = [member.run_dir.removeprefix(f"{tmp_path}/runs/") for member in members]
    assert len(set(names)) == 3
    assert max(map(len, names)) <= 80
    assert all(re.fullmatch(r"[0-9]{3}-[A-Za-z0-9.+_=-]*[A-Za-z0-9_]", name) for name in names)


def test_keys_with_the_same_last_part_are_named_in_full(tmp_path: Path) -> None:
    (member,) = plan(tmp_path, "list: [{training.batch_size: 8, evaluation.batch_size: 4, seed: 1}]\n")
    assert Path(member.run_dir).name == "000-training.batch_size=8-evaluation.batch_size=4-seed=1"


def test_all_that_is_wrong_with_all_members_is_told_once_with_its_line(tmp_path: Path) -> None:
    text = """
overrides: {training.warmup_steps: -1}
grid:
  training.schedule: [linear, curved]
  training.lerning_rate: [1]
  seed:
    - 1
    - one
    - 2
"""
    lines = refusal(tmp_path, text).splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "all members: FILE:4: training.warmup_steps: must be at least 0",
        "members 3-5: FILE:6: training.schedule: must be 'linear', 'cosine', 'constant' or 'inverse_sqrt'",
        "all members: FILE:7: training.lerning_rate: unknown key",
        "members 1,4: FILE:10: seed: must be a whole number",
    ]
    assert "did you mean `learning_rate`?" in lines[2]


def test_a_wrong_form_hides_no_wrong_value_and_no_wrong_override_hides_either(tmp_path: Path) -> None:
    text = """
overrides: {training.warmup_steps: -1, --debug: 1}
grid:
  training.schedule: [linear, curved, no]
  seed: 5
  model.dropout: [0.0, 2.0]
lits: 4
"""
    lines = refusal(tmp_path, text, "training.max_steps=no", "seed", "model.dropout=0.1").splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "FILE:4: overrides.--debug: is not a key of a recipe",
        "FILE:4: training.warmup_steps: must be at least 0",
        "FILE:6: grid.training.schedule.2: YAML reads a plain `no` as false",
        "FILE:6: training.schedule: must be 'linear', 'cosine', 'constant' or 'inverse_sqrt'",
        "FILE:7: grid.seed: must be a list of values",
        "FILE:8: model.dropout: must be less than 1",
        "FILE:9: lits: unknown key",
        "override `model.dropout=0.1`: applies to all members and would undo `model.dropout`, which the sweep varies",
        "override `seed`: an override is written `dotted.key=value`",
        "override `training.max_steps=no`: training.max_steps: YAML reads a plain `no` as false",
    ]


def test_a_member_whose_data_are_missing_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "list: [{seed: 1}, {data.train.0: {path: nowhere.tsv}}]\n")
    assert re.match(r"member 1: FILE:3: data\.train\.0\.path: no such file: \"nowhere\.tsv\"", message)


@pytest.mark.parametrize(
    "text",
    [
        "list: [{seed: 1}, {seed: 2}, {seed: 1}]\n",
        "list: [{training.learning_rate: 1e-4}, {seed: 2}, {training.learning_rate: 0.00010}]\n",
        f"list: [{{}}, {{seed: 2}}, {{seed: {load_config('debug').seed}}}]\n",
    ],
)
def test_two_members_that_are_equal_are_refused(text: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == "members 0 and 2 are equal and would train the same model: remove one"


def test_a_number_keeps_its_run_folder(tmp_path: Path) -> None:
    for member in plan(tmp_path, GRID):
        Path(member.run_dir).mkdir(parents=True)
    longer = GRID.replace("3e-4]", "3e-4, 1e-3]")
    sweep = read_sweep(write(tmp_path, longer))
    assert len(check_members(sweep, plan_members(sweep))) == 6
    changed = refusal(tmp_path, GRID.replace("1e-4, ", ""))
    assert changed.splitlines()[0].startswith(
        f"member 0 began as {tmp_path}/runs/000-learning_rate=0.0001-seed=1, and is "
    )
    assert len(changed.splitlines()) == 2


def test_a_changed_member_is_refused_at_its_next_start_and_the_others_are_not(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "runs" / "001-seed=5").mkdir(parents=True)
    (tmp_path / "runs" / "000-notes.txt").write_text("")
    path = write(tmp_path, "list: [{seed: 1}, {seed: 2}]\n")
    assert main([path, "--member", "1"]) == 2
    assert b"the sweep has changed" in capsysbinary.readouterr().err
    assert main([path, "--member", "0"]) == 0


@pytest.mark.parametrize(("metric", "changed"), [("bleu", None), ("chrf", "evaluation.best_metric was null, is chrf")])
def test_a_member_that_writes_a_default_out_is_not_another(metric: str, changed: str | None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(load_config("debug")))
    overrides = [f"output_dir={run}", f"evaluation.best_metric={metric}"]
    assert find_change(load_config("debug", overrides=overrides)) == changed


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1, 2, 3], "0-3"), ([5, 1, 2, 7], "1-2,5,7"), (range(1001), "0-1000")]
)
def test_indices_are_written_as_sbatch_takes_them(numbers: list[int], text: str) -> None:
    assert write_indices(numbers) == text


def test_the_batch_script_reads_a_members_arguments_whatever_they_hold(tmp_path: Path) -> None:
    prefix = "two words; $HOME '\"\n*번역"
    path = write(tmp_path, f"list: [{{seed: 1}}, {{task.source_prefix: {json.dumps(prefix)}}}]\n")
    read = 'mapfile -d "" -t found < <("$@"); wait "$!"; code=$?; printf "%s\\0" "${found[@]}"; exit "$code"'
    command = [sys.executable, "-m", "dstrain.sweep", "--member", "1", path, "task.source_language=k o"]
    done = subprocess.run(["bash", "-c", read, "bash", *command], capture_output=True, check=True)
    arguments = done.stdout.decode().split("\0")[:-1]
    assert arguments == plan_members(read_sweep(path, typed=["task.source_language=k o"]))[1].arguments("debug")
    options = parse_arguments(arguments)
    assert load_config(options.config, overrides=options.overrides).task.source_prefix == prefix


@pytest.mark.parametrize("number", ["4", "-1"])
def test_a_number_without_a_member_is_refused(
    number: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = write(tmp_path, GRID)
    assert main([path, f"--member={number}"]) == 2
    printed = capsysbinary.readouterr()
    assert printed.out == b""
    message = f"{path} has members 0 to 3, not {number}: submit it with --array=0-3"
    assert printed.err.decode().splitlines()[-1] == message


def test_what_no_member_names_is_told_with_the_command_that_does() -> None:
    command = ["bash", str(ROOT / "slurm" / "sweep.sbatch"), "my.yaml", "seed=1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "not a job array" in line
    assert line.endswith("dstrain sweep my.yaml seed=1")


def test_there_are_shipped_sweeps() -> None:
    assert SWEEPS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_shipped_sweep_explains_itself_and_can_be_submitted_as_it_is(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_text()
    assert text.splitlines()[0] == f"# dstrain sweep configs/sweeps/{path.name}"
    assert [line for line in text.splitlines() if line.strip() and not re.search(r"^#|  # \S", line)] == []
    monkeypatch.chdir(tmp_path)
    sweep = read_sweep(str(path))
    assert len(check_members(sweep, plan_members(sweep))) > 1
