"""Configuration files end to end: every fault at once with its place, `extends`, overrides, missing files, names."""

import subprocess
import sys
from pathlib import Path

import pytest

from dstrain.config.load import ConfigError, find_config, load_config
from tests.unit.config.config_cases import GOOD, faults, write


def test_a_good_file_becomes_a_frozen_configuration(good: Path) -> None:
    config = load_config(str(good))
    assert config.training.learning_rate == 3e-4
    assert config.training.epochs == 6.0
    assert config.best_metric == "bleu"
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_a_child_overrides_single_keys_of_its_base(tmp_path: Path, good: Path) -> None:
    child = write(tmp_path, "extends: good.yaml\nname: child\ntraining:\n  batch_size: 32\n")
    config, base = load_config(str(child)), load_config(str(good))
    assert (config.name, config.training.batch_size) == ("child", 32)
    assert config.training.model_copy(update={"batch_size": 16}) == base.training


def test_a_child_takes_the_other_alternative_with_null(tmp_path: Path, good: Path) -> None:
    child = write(
        tmp_path,
        """\
extends: good.yaml
model: {name: null, scratch: {architecture: marian}}
training: {epochs: null, max_steps: 10}
""",
    )
    config = load_config(str(child))
    assert config.model.name is None
    assert (config.training.epochs, config.training.max_steps) == (None, 10)


def test_faults_of_base_and_child_keep_their_own_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("epochs: 6", "epochs: six"), name="base.yaml")
    child = write(tmp_path, "extends: base.yaml\n\ntraining:\n  batch_size: many\n")
    assert [line.split(": ")[:2] for line in faults(child)] == [
        [f"{tmp_path}/base.yaml:14", "training.epochs"],
        [f"{tmp_path}/run.yaml:4", "training.batch_size"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere.yaml\n", "run.yaml:1: extends: no such file"),
        ("extends: [good.yaml]\n", "must be the name of another file"),
        ("extends: run.yaml\n", "run.yaml:1: extends: files that extend each other in a ring"),
        ("extends: ring.yaml\n", "ring.yaml:1: extends: files that extend each other in a ring"),
        ("extends: base-9.yaml\n", "base-2.yaml:1: extends: builds on more than 8 files, one after the other"),
        ("extends: broken.yaml\n", "broken.yaml:3: not valid YAML"),
    ],
)
def test_a_base_that_cannot_be_used_is_one_fault(tmp_path: Path, good: Path, text: str, message: str) -> None:
    write(tmp_path, "extends: run.yaml\n", name="ring.yaml")
    for number in range(2, 10):
        write(tmp_path, f"extends: base-{number - 1}.yaml\n", name=f"base-{number}.yaml")
    write(tmp_path, f"extends: {good.name}\n", name="base-1.yaml")
    write(tmp_path, "name: x\nseed: [\n", name="broken.yaml")
    (line,) = faults(write(tmp_path, text))
    assert message in line


def test_a_base_may_have_a_base_and_the_nearest_file_wins(tmp_path: Path, good: Path) -> None:
    write(tmp_path, f"extends: {good.name}\nname: middle\ntraining:\n  batch_size: 32\n", name="middle.yaml")
    child = write(tmp_path, "extends: middle.yaml\nname: child\n")
    config, base = load_config(str(child)), load_config(str(good))
    assert (config.name, config.training.batch_size, config.seed) == ("child", 32, base.seed)
    write(tmp_path, f"extends: {good.name}\ntraining:\n  batch_size: many\n", name="middle.yaml")
    (line,) = faults(child)
    assert line.startswith(f"{tmp_path}/middle.yaml:3: training.batch_size")


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: x\n# caf\xe9\n")
    assert faults(path) == [f"{path}:2: not UTF-8; found 233"]


def test_missing_files_are_reported_only_when_asked_for(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    several = "data.eval.0={path: ~/x.ko, target_path: [a.ko, c.en]}"
    overrides = ["data.train.0={path: a.ko, target_path: b.en}", "model.name=./my/model", several]
    assert load_config(str(good), overrides=overrides).model.name == "./my/model"
    found = faults(good, *overrides, check_files=True)
    assert sorted(line.split(": ", maxsplit=1)[0].split("=")[0] for line in found) == [
        *["override `data.eval.0"] * 3,
        "override `data.train.0",
        "override `data.train.0",
        "override `model.name",
    ]
    assert any("`~` is not expanded" in line for line in found)
    for name in ("a.ko", "b.en"):
        (tmp_path / name).touch()
    (tmp_path / "my" / "model").mkdir(parents=True)
    assert load_config(str(good), overrides=overrides[:2], check_files=True).data.train[0].path == "a.ko"


def test_missing_files_are_reported_beside_other_faults(good: Path) -> None:
    found = faults(good, "data.train.0={path: nowhere.tsv}", "seed=x", check_files=True)
    assert len(found) == 2


def test_a_hub_name_is_no_missing_folder(good: Path) -> None:
    assert load_config(str(good), check_files=True).model.name == "some/model"


def test_a_shipped_recipe_is_found_by_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("demo_translation").name == "demo-translation"
    assert load_config("debug").name == "debug"


def test_a_file_comes_before_a_recipe_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("debug").write_text(GOOD)
    assert load_config("debug").name == "trial"


@pytest.mark.parametrize(
    ("name", "meant"), [("demo_translaton", True), ("configs/demo_translation.yaml", True), (".", False)]
)
def test_an_unknown_name_lists_what_exists_and_the_nearest(
    name: str, meant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match="neither a file nor a shipped recipe; shipped recipes: debug, demo_parsing"
    ) as error:
        find_config(name)
    assert ("did you mean `demo_translation`?" in str(error.value)) == meant


def test_a_recipe_may_build_on_a_shipped_one_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for base in ("demo_translation", "demo_translation.yaml"):
        path.write_text(f"extends: {base}\nname: mine\n")
        config = load_config(str(path))
        assert config == load_config("demo_translation", overrides=["name=mine"])
    path.write_text("extends: demo_translaton\nname: mine\n")
    with pytest.raises(ConfigError, match=r"extends: no such file: .*did you mean `demo_translation`"):
        load_config(str(path))


def test_a_base_beside_the_recipe_comes_before_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "debug.yaml").write_text(GOOD)
    (tmp_path / "mine.yaml").write_text("extends: debug\nseed: 7\n")
    config = load_config(str(tmp_path / "mine.yaml"))
    assert (config.name, config.seed) == ("trial", 7)


def test_loading_imports_nothing_heavy(good: Path) -> None:
    code = (
        "import sys; from dstrain.config.load import load_config, dump_config; "
        f"dump_config(load_config({str(good)!r}, check_files=True)); "
        "print([m for m in ('torch','deepspeed','transformers','datasets','numpy','sacrebleu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
