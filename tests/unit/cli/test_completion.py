"""What a shell completes: the words that are offered, a real bash, the protocols of the others, and what a start imports."""

import json
import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from dstrain.cli import completion
from dstrain.cli.app import app
from dstrain.cli.completion import (
    MAX_ENTRIES,
    complete_choice,
    complete_key,
    complete_recipe,
    complete_run,
    list_keys,
    offer_keys,
    offer_override,
    silent,
)
from dstrain.config.load import load_config
from dstrain.config.shipped import shipped_recipes
from dstrain.tracking.backends import BUILT_IN
from tests.unit.tracking.tracking_cases import install_package


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with recipes, run folders, members of a sweep and what is neither; the current one."""
    for run in ("runs/first", "runs/second", "runs/sweep/000-a", "runs/sweep/001-b"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").touch()
        (tmp_path / run / "checkpoints").mkdir()
    for file in ("mine.yaml", "own/other.yml", "own/deep/third.yaml", ".hidden/fourth.yaml", "data.tsv"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_are_shipped_ones_and_files(home: Path) -> None:
    assert complete_recipe("") == [*shipped_recipes(), "mine.yaml", "own/other.yml"]
    assert complete_recipe("m") == [*(name for name in shipped_recipes() if name.startswith("m")), "mine.yaml"]
    assert complete_recipe("own/") == ["own/other.yml", "own/deep/third.yaml"]
    assert complete_recipe(f"{home}/mi") == [f"{home}/mine.yaml"]
    assert complete_recipe(".hidden/") == [".hidden/fourth.yaml"]
    assert complete_recipe("nowhere/") == complete_recipe("zzz") == []


def test_runs_are_run_folders_and_nothing_in_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = ["runs/first", "runs/second", "runs/sweep/000-a", "runs/sweep/001-b"]
    assert complete_run("") == complete_run("runs/") == runs
    assert complete_run("runs/s") == runs[1:]
    assert complete_run("./runs/f") == ["./runs/first"]
    monkeypatch.setenv("HOME", str(home))
    assert complete_run("~/runs/f") == ["~/runs/first"]


def test_a_folder_with_very_many_names_is_not_searched_to_its_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(completion, "_is_run", lambda entry: bool(looked.append(entry.name)))
    (home / "many").mkdir()
    for number in range(MAX_ENTRIES + 50):
        (home / "many" / f"{number:05}").touch()
    assert complete_run("many/") == []
    assert len(looked) == MAX_ENTRIES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_left_out(home: Path) -> None:
    (home / "runs" / "sweep").chmod(0)
    try:
        assert complete_run("runs/") == ["runs/first", "runs/second"]
    finally:
        (home / "runs" / "sweep").chmod(0o755)


def test_keys_come_section_by_section() -> None:
    top = complete_key("")
    assert {"name", "seed", "model.", "training.", "data."} <= set(top)
    assert complete_key("training.learning_r") == ["training.learning_rate"]
    assert "training.early_stopping." in complete_key("training.")
    assert set(complete_key("train")) == set(complete_key("training."))
    assert complete_key("training.early") == [
        key for key in list_keys("") if key.startswith("training.early_stopping.")
    ]
    assert complete_key("nothing.such") == []


def test_a_section_that_is_left_alone_is_opened() -> None:
    assert offer_keys("", keys=["a.b.c", "a.b.d"]) == ["a.b.c", "a.b.d"]
    assert offer_keys("a.b.c", keys=["a.b.c", "a.b.cd.e"]) == ["a.b.c", "a.b.cd."]


def test_every_key_can_be_an_override() -> None:
    keys = list_keys("data.train.0.max_rows")
    assert "data.train.0.max_rows" in keys
    assert "data.eval.3.name" in list_keys("data.eval.3.")
    values = {"training.learning_rate": "1e-4", "data.train.0.max_rows": "8", "seed": "7"}
    assert set(values) <= set(keys)
    load_config("debug", overrides=[f"{key}={value}" for key, value in values.items()])


def test_a_key_comes_with_an_example_of_its_value_so_that_no_space_follows() -> None:
    assert offer_override("training.warmup", given=[]) == ["training.warmup_steps=", "training.warmup_steps=0"]
    assert offer_override("training.learning_r", given=[]) == [
        "training.learning_rate=",
        "training.learning_rate=VALUE",
    ]
    assert offer_override("training.le", given=["seed=1"])[0] == "training.learning_rate="
    assert offer_override("zzz", given=[]) == []
    for typed in ("", "tr", "training.", "model.scratch"):
        assert len(offer_override(typed, given=[])) > 1


def test_a_key_with_choices_comes_with_each_of_them() -> None:
    precisions = ["fp32", "bf16", "fp16"]
    assert offer_override("precision", given=[]) == ["precision=", *(f"precision={each}" for each in precisions)]
    assert offer_override("precision=b", given=[]) == ["precision=", *(f"precision={each}" for each in precisions)]
    assert {"logging.tensorboard=true", "logging.tensorboard=false"} <= set(offer_override("logging.tensorb", given=[]))


@pytest.mark.parametrize(
    ("typed", "given"), [("", ["seed=1", "precision"]), ("", ["precision", "="]), ("fp", ["precision", "="])]
)
def test_bash_asks_for_the_value_alone(typed: str, given: list[str]) -> None:
    expected = ["fp32", "fp16"] if typed else ["fp32", "bf16", "fp16"]
    assert offer_override(typed, given=given) == expected


def test_a_choice_is_completed_from_words_that_are_looked_for_only_then() -> None:
    asked: list[str] = []

    def find() -> list[str]:
        asked.append("now")
        return ["one", "other", "two"]

    complete = complete_choice(find)
    assert asked == []
    assert complete("o") == ["one", "other"]
    assert complete("x") == []


def offered(*words: str) -> list[str]:
    """What the app offers for the last of the words after `dstrain`, which a shell has begun."""
    name, *given, option, incomplete = words
    command = typer.main.get_group(app).commands[name]
    context = command.make_context(name, given, resilient_parsing=True)
    (param,) = (param for param in command.params if option in param.opts)
    return [item.value for item in param.shell_complete(context, incomplete)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("track", "runs/first", "--to", ""), list(BUILT_IN)),
        (("track", "runs/first", "--to", "w"), ["wandb"]),
        (("export", "runs/first", "x", "--to", ""), ["ctranslate2"]),
        (("export", "runs/first", "x", "--quantization", "int8_f"), ["int8_float32", "int8_float16"]),
        (("predict", "x", "--format", ""), ["lines", "tsv", "jsonl"]),
        (("predict", "x", "--device", "c"), ["cpu", "cuda"]),
        (("predict", "x", "--config", "demo_te"), ["demo_text"]),
        (("evaluate", "x", "--config", "demo_te"), ["demo_text"]),
        (("plan", "debug", "--gpu", "a100"), ["a100-80", "a100-40"]),
        (("plan", "debug", "--gpu", "c"), ["cpu"]),
        (("train", "--allow-changed", "training.learning_r"), ["training.learning_rate"]),
        (("check", "debug", "--set", "precision=b"), ["precision=bf16"]),
        (("init", "x", "--task", ""), ["translation", "parsing", "text"]),
        (("init", "x", "--device", ""), ["cpu", "cuda"]),
    ],
)
def test_an_option_with_some_values_offers_them(words: tuple[str, ...], expected: list[str], home: Path) -> None:
    assert offered(*words) == expected


def test_trackers_of_installed_packages_are_offered_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(install_package(tmp_path)))
    assert offered("track", "x", "--to", "o") == ["own"]
    assert {*BUILT_IN, "own", "absent", "broken"} <= {*offered("track", "x", "--to", "")}
    assert "own_trackers" not in sys.modules


def test_what_fails_offers_nothing() -> None:
    @silent
    def fail(incomplete: str) -> list[str]:
        raise OSError(incomplete)

    assert fail("x") == []


def on_path(folder: Path) -> dict[str, str]:
    """The environment of a shell that finds this dstrain."""
    program = folder / "bin" / "dstrain"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m dstrain "$@"\n')
    program.chmod(0o755)
    paths = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": paths, "TERM": "dumb"}


def complete_in_bash(lines: Sequence[Sequence[str]], *, folder: Path) -> list[list[str]]:
    """The words that bash offers for the last word of each line."""
    script = ['eval "$(dstrain --show-completion)"']
    for words in lines:
        script += [f"COMP_WORDS=({shlex.join(words)})", f"COMP_CWORD={len(words) - 1}", "_dstrain_completion dstrain"]
        script += ["printf '%s\\n' \"${COMPREPLY[@]}\" --"]
    command = ["bash", "--norc", "--noprofile", "-c", "\n".join(script)]
    done = subprocess.run(command, cwd=folder, env=on_path(folder), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [part.split() for part in done.stdout.split("--\n")[:-1]]


@pytest.mark.slow
def test_a_real_bash_gets_these_words_and_no_message(home: Path) -> None:
    offered = complete_in_bash(
        [
            ["dstrain", "check", "demo_tr"],
            ["dstrain", "check", "debug", "training.warmup"],
            ["dstrain", "train", "--config", "deb"],
            ["dstrain", "train", "--config", "debug", "precision", "="],
            ["dstrain", "train", "--config", "debug", "precision", "=", "b"],
            ["dstrain", "status", "runs/f"],
            ["dstrain", "status", "nowhere/"],
            ["dstrain", "track", "runs/first", "--to", "wan"],
        ],
        folder=home,
    )
    assert offered == [
        ["demo_translation"],
        ["training.warmup_steps=", "training.warmup_steps=0"],
        ["debug"],
        ["fp32", "bf16", "fp16"],
        ["bf16"],
        ["runs/first"],
        [],
        ["wandb"],
    ]


def type_in_bash(keys: str, *, until: bytes, folder: Path) -> bytes:
    """What a terminal shows while keys are typed into an interactive bash that completes dstrain."""
    (folder / "rc").write_text(
        'PS1="ready> "\nbind "set enable-bracketed-paste off"\neval "$(dstrain --show-completion)"\n'
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "--noprofile", "--rcfile", str(folder / "rc"), "-i"], on_path(folder))
    shown, deadline, typed = b"", time.monotonic() + 60, False
    try:
        while until not in shown and time.monotonic() < deadline:
            if not typed and b"ready> " in shown:
                os.write(terminal, keys.encode())
                typed = True
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 4096)
    finally:
        os.close(terminal)  # hangs the terminal up, which ends bash
        os.waitpid(pid, 0)
    return shown


@pytest.mark.slow
def test_keys_that_are_typed_complete_a_name_and_a_key_without_a_space_behind_it(home: Path) -> None:
    # Ctrl-A and Ctrl-E go to the ends of the line; the quotes keep the echo of what is typed from looking like the result
    typed = "dstrain train --config demo_tr\ttraining.warm\t9\x01printf '<%s>' \x05 '(end'')'\n"
    shown = type_in_bash(typed, until=b"<(end)>", folder=home)
    assert b"<dstrain><train><--config><demo_translation><training.warmup_steps=9><(end)>" in shown


@pytest.mark.parametrize(("shell", "words"), [("zsh", '"demo_translation"'), ("fish", "demo_translation")])
def test_other_shells_are_answered_in_their_own_form(shell: str, words: str, home: Path) -> None:
    environment = on_path(home) | {
        "_DSTRAIN_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "dstrain check demo_tr",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(["dstrain"], cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert (words in done.stdout, done.stderr) == (True, "")


def test_a_completion_imports_nothing_heavy(home: Path) -> None:
    code = (
        "import json, sys\nfrom dstrain.cli.app import app\n"
        "try: app(prog_name='dstrain')\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'deepspeed', 'transformers', 'datasets', 'numpy', 'sacrebleu', 'matplotlib', 'rich', 'jinja2')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    environment = {
        **os.environ,
        "_DSTRAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": "dstrain\ncheck\ndemo_tr",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    offered, imported = done.stdout.splitlines()
    assert offered == "demo_translation"
    assert json.loads(imported) == []
