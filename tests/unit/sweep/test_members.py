"""Sweeps: their members in order, each as if its overrides were typed, and everything that is refused before submitting."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from dstrain.cli import app
from dstrain.config.arguments import parse_arguments
from dstrain.config.load import ConfigError, dump_config, load_config
from dstrain.config.yaml_source import Document, Where, apply_override, write_value
from dstrain.run_folder.outcome import RunOutcome, write_outcome
from dstrain.slurm.requeue import JobEnd, append_entry
from dstrain.sweep.members import SIZE, Member, check_members, main, plan_members, read_sweep, write_indices

ROOT = Path(__file__).resolve().parents[3]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
GRID = "grid:\n  training.learning_rate: [1e-4, 3e-4]\n  seed: [1, 2]\n"


def write(folder: Path, text: str, *, head: str = "config: debug\n") -> str:
    """A sweep whose folder is `folder/runs`."""
    path = folder / "sweep.yaml"
    path.write_text(f"{head}output_dir: {folder / 'runs'}\n{text}")
    return str(path)


def plan(folder: Path, text: str, *typed: str) -> list[Member]:
    return plan_members(read_sweep(write(folder, text), typed=typed))


def refusal(folder: Path, text: str, *typed: str, head: str = "config: debug\n") -> str:
    """Why a sweep is refused; its file is called FILE."""
    path = write(folder, text, head=head)
    try:
        sweep = read_sweep(path, typed=typed)
        check_members(sweep, plan_members(sweep))
    except ValueError as error:
        return str(error).replace(path, "FILE")
    pytest.fail("the sweep is taken")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", *arguments])


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


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from(
            ["3e-4", "no", "1:30", "null", "~", "007", "$HOME", "a: b", "a #b", " a", "", "2020-01-01", "\x85"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("abc.", min_size=1), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values)
def test_any_value_comes_back_as_it_was_written(value: Any) -> None:
    document = Document({}, {(): Where("x", 1)})
    text = write_value(value)
    apply_override(document, text=f"key={text}")
    assert document.problems == []
    assert document.value == {"key": value}
    assert type(document.value["key"]) is type(value)
    assert "\0" not in text


@pytest.mark.parametrize("text", ["0.0001", "linear", "true", "null", "two words; $HOME", "runs/a=b"])
def test_a_plain_value_stays_plain(text: str) -> None:
    assert write_value(yaml.safe_load(text)) == text


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {seed: [1]}\n", 'FILE:3: gird: unknown key; found {"seed": [1]}; did you mean `grid`?'),
        ("", "FILE:1: give exactly one of `grid` and `list`; found none"),
        (f"{GRID}list: [{{seed: 1}}]\n", "FILE:6: give exactly one of `grid` and `list`; found grid and list"),
        ("grid: {}\n", "FILE:3: grid: must be a mapping of keys to values; found {}"),
        ("grid:\n  seed: 1\n", "FILE:4: grid.seed: must be a list of values; found 1; write `seed: […]`"),
        ("grid:\n  seed: []\n", "FILE:4: grid.seed: must be a list of values; found []"),
        ("list: []\n", "FILE:3: list: must be one mapping of keys to values a member; found []"),
        ("list:\n  - {seed: 1}\n  - 5\n", "FILE:5: list.1: must be a mapping of keys to values; found 5"),
        ("overrides: 3\nlist: [{}]\n", "FILE:3: overrides: must be a mapping of keys to values; found 3"),
        ("grid:\n  output_dir: [a, b]\n", "FILE:4: grid.output_dir: every member gets a folder of its own"),
        ("overrides: {output_dir: a}\nlist: [{}]\n", "FILE:3: overrides.output_dir: every member gets a folder"),
        ("list: [{name: a}]\n", "FILE:3: list.0.name: names the model card, and cannot be varied"),
        ("list: [{seed: no}]\n", "FILE:3: list.0.seed: YAML reads a plain `no` as false"),
        ("grid: {seed: [1, 1:30]}\n", "FILE:3: grid.seed.1: YAML reads this as a number to base 60"),
        ("list: [{--debug: 1}]\n", "FILE:3: list.0.--debug: is no key of a recipe"),
        ("list: [{'seed=1 name': 1}]\n", "FILE:3: list.0.seed=1 name: is no key of a recipe"),
        ("list: [", "not valid YAML"),
        ("grid: {seed: [1, 2], name: [a]}\nlits: 4\n", "FILE:4: lits: unknown key"),
    ],
)
def test_what_is_no_sweep_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", "FILE:1: config: must be text; found nothing; a recipe file, or the name of a shipped recipe"),
        ("config: [debug]\n", 'FILE:1: config: must be text; found ["debug"]'),
        (
            "config: nowhere\n",
            'FILE:1: config: neither a file nor a shipped recipe; found "nowhere"; shipped recipes: ',
        ),
    ],
)
def test_a_sweep_needs_a_recipe(head: str, message: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, GRID, head=head).startswith(message)


def test_a_file_that_is_missing_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    for content, message in (
        (None, "cannot be read; found No such file or directory"),
        (b"", "a configuration is a mapping of keys to values; found nothing"),
        (b"{}", "give exactly one of `grid` and `list`"),
        (b"config: \xff", "not UTF-8"),
        (b"#" * (1 << 20) + b"#", "no sweep"),
    ):
        if content is not None:
            (tmp_path / "sweep.yaml").write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(message)):
            read_sweep(str(tmp_path / "sweep.yaml"))


def test_a_grid_beyond_what_an_array_can_hold_is_refused_before_it_is_made(tmp_path: Path) -> None:
    grid = {f"training.key_{number}": list(range(100)) for number in range(20)}
    assert "makes more than 1,001 members" in refusal(tmp_path, yaml.dump({"grid": grid}))


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
        "FILE:4: overrides.--debug: is no key of a recipe",
        "FILE:4: training.warmup_steps: must be at least 0",
        "FILE:6: grid.training.schedule.2: YAML reads a plain `no` as false",
        "FILE:6: training.schedule: must be 'linear', 'cosine', 'constant' or 'inverse_sqrt'",
        "FILE:7: grid.seed: must be a list of values",
        "FILE:8: model.dropout: must be less than 1",
        "FILE:9: lits: unknown key",
        "override `model.dropout=0.1`: is for all members, and would undo `model.dropout`, which the sweep varies",
        "override `seed`: an override is written `dotted.key=value`",
        "override `training.max_steps=no`: training.max_steps: YAML reads a plain `no` as false",
    ]


def test_without_a_recipe_only_the_form_is_told(tmp_path: Path) -> None:
    message = refusal(tmp_path, "list: [{seed: x}, 5]\n", "seed", head="config: nowhere\n")
    assert [line.partition(";")[0] for line in message.splitlines()] == [
        "FILE:1: config: neither a file nor a shipped recipe",
        "FILE:3: list.1: must be a mapping of keys to values",
        "override `seed`: an override is written `dotted.key=value`",
    ]


@pytest.mark.parametrize(
    "name", ["debug", str(ROOT / "configs" / "debug.yaml"), str(ROOT / "configs" / "ko_en_m2m.yaml")]
)
def test_a_recipe_is_no_sweep_and_is_told_what_takes_it(name: str) -> None:
    result = invoke(name)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "this is a recipe, no sweep" in line
    assert f"`dstrain check {name}`" in line
    assert f"`config: {name}`" in line


def test_a_member_whose_data_are_missing_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "list: [{seed: 1}, {data.train.0: {path: nowhere.tsv}}]\n")
    assert re.match(r"member 1: FILE:3: data\.train\.0\.path: no such file; found \"nowhere\.tsv\"", message)


@pytest.mark.parametrize(
    "text",
    [
        "list: [{seed: 1}, {seed: 2}, {seed: 1}]\n",
        "list: [{training.learning_rate: 1e-4}, {seed: 2}, {training.learning_rate: 0.00010}]\n",
        f"list: [{{}}, {{seed: 2}}, {{seed: {load_config('debug').seed}}}]\n",
    ],
)
def test_two_members_that_are_equal_are_refused(text: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == "members 0 and 2 are equal: they would train the same; remove one"


@pytest.mark.parametrize("typed", ["training.learning_rate=1e-5", "training={max_steps: 3}", "seed=1"])
def test_what_is_typed_may_not_undo_what_the_sweep_varies(typed: str, tmp_path: Path) -> None:
    assert "which the sweep varies" in refusal(tmp_path, GRID, typed)


@pytest.mark.parametrize(
    ("typed", "message"), [("seed", "`dotted.key=value`"), ("output_dir=x", "a folder of its own")]
)
def test_what_is_typed_must_be_an_override(typed: str, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, GRID, typed)


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
    message = f"{path} has members 0 to 3, and none {number}: submit it with --array=0-3"
    assert printed.err.decode().splitlines()[-1] == message


def test_the_command_shows_every_member_and_what_to_type(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    result = invoke(path, "training.max_steps=7")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["member", "overrides", "run", "folder", "status"]
    run = tmp_path / "runs" / "002-learning_rate=0.0003-seed=1"
    assert lines[3].split() == ["2", "training.learning_rate=0.0003", "seed=1", str(run), "-"]
    size = "--nodes=1 --gpus-per-node=1"
    assert lines[-3] == f"submit   sbatch --array=0-3 {size} slurm/sweep.sbatch {path} training.max_steps=7"
    assert lines[-2].startswith(f"size     of one member: {size}")
    assert lines[-1] == f"compare  dstrain compare {tmp_path}/runs/*"


def test_members_that_have_finished_are_not_submitted_again(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    members = plan_members(read_sweep(path))
    for member, outcome in zip(members, ("finished", "failed", "finished"), strict=False):
        Path(member.run_dir).mkdir(parents=True)
        write_outcome(Path(member.run_dir), RunOutcome(outcome, 0, ""))
    found = json.loads(invoke(path, "--json").stdout)
    assert [member["state"] for member in found["members"]] == ["finished", "failed", "finished", None]
    assert shlex.split(found["submit"]) == ["sbatch", "--array=1,3", *SIZE, "slurm/sweep.sbatch", path]
    for member in members:
        Path(member.run_dir).mkdir(exist_ok=True)
        write_outcome(Path(member.run_dir), RunOutcome("finished", 0, ""))
    assert json.loads(invoke(path, "--json").stdout)["submit"] is None
    assert "submit   nothing: every member runs, has finished" in invoke(path).stdout


def test_a_member_whose_folder_holds_another_run_is_not_taken_for_it(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    sweep = read_sweep(path)
    members = plan_members(sweep)
    for member, config in zip(members[:2], check_members(sweep, members), strict=False):
        run = Path(member.run_dir)
        run.mkdir(parents=True)
        training = config.training.model_copy(update={"max_steps": 3, "epochs": None} if member.number == 1 else {})
        (run / "config.yaml").write_text(dump_config(config.model_copy(update={"training": training})))
        write_outcome(run, RunOutcome("finished", 0, ""))
    printed = invoke(path).stdout
    assert "--array=2-3 " in printed
    assert "changed  member 1: the run in its folder learned otherwise (training." in printed
    assert "give the sweep another output_dir, or remove that folder" in printed
    found = json.loads(invoke(path, "--json").stdout)["members"]
    assert [bool(member["changed"]) for member in found] == [False, True, False, False]


def test_a_member_that_slurm_starts_again_is_offered_apart(tmp_path: Path) -> None:
    path = write(tmp_path, GRID)
    requeued, ended, *_ = (Path(member.run_dir) for member in plan_members(read_sweep(path)))
    for run, job, again in ((requeued, "12", True), (ended, "13", False)):
        run.mkdir(parents=True)
        write_outcome(run, RunOutcome("preempted", 85, ""))
        append_entry(run, JobEnd(job, 0, "time limit", "the signal before it", again))
    found = json.loads(invoke(path, "--json").stdout)
    assert [member["comes_again"] for member in found["members"]] == ["12", None, None, None]
    assert shlex.split(found["submit"])[1] == "--array=1-3"
    lines = invoke(path).stdout.splitlines()
    assert lines[1].endswith(", Slurm starts job 12 again")
    assert "again" not in lines[2]
    (waiting,) = (line for line in lines if line.startswith("waiting"))
    assert waiting.startswith("waiting  squeue --jobs 12; ")
    assert waiting.endswith(f"sbatch --array=0 {shlex.join(SIZE)} slurm/sweep.sbatch {path}")


def test_what_no_member_names_is_told_with_the_command_that_does() -> None:
    command = ["bash", str(ROOT / "slurm" / "sweep.sbatch"), "my.yaml", "seed=1"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "not a job array" in line
    assert line.endswith("dstrain sweep my.yaml seed=1")


def test_a_wrong_sweep_prints_no_command_and_no_traceback(tmp_path: Path) -> None:
    result = invoke(write(tmp_path, "list: [{seed: x}]\n"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("member 0: ")


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
