"""Which recorded commands the card shows to be copied, and how they are quoted."""

import json
import subprocess
from pathlib import Path

import pytest

from dstrain.reporting.card import build_card
from dstrain.reporting.command import command_overrides, command_to_copy
from dstrain.run_folder.record import RunInfo, read_run_info
from dstrain.train import command_words
from tests.unit.cluster.process_cases import build_process
from tests.unit.reporting.reporting_cases import run_info, translation_config, translation_record

TRAIN = ["python", "launch/train.py", "--config", "debug"]
TEXT = "python launch/train.py --config debug"


def test_overrides_are_found_in_a_command_even_with_an_unclosed_quote() -> None:
    assert command_overrides("HF_HOME=/x python launch/train.py --config a.yaml training.batch_size=8 'name=a b'") == [
        "training.batch_size=8",
        "name=a b",
    ]
    assert command_overrides("python train.py seed=7 'name=a") == ["seed=7"]
    assert command_overrides(None) == []


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun", "srun", "python"])
@pytest.mark.parametrize("script", ["/clone/launch/train.py", "/site/dstrain/train.py"])
def test_every_command_that_a_run_records_is_shown(launcher: str, script: str) -> None:
    process = build_process(launcher, world_size=4)
    words = command_words(process, script=script, arguments=["--config", "~/my recipe.yaml", "a=[1, 2]"])
    shown = command_to_copy(words)
    assert shown is not None
    assert shown.endswith(" --config ~/'my recipe.yaml' 'a=[1, 2]'")
    assert command_to_copy(shown) == shown  # as earlier versions have written it


@pytest.mark.parametrize(
    "word",
    [
        "; touch X #",
        "$(touch X)",
        "`touch X`",
        "| touch X",
        "&& touch X",
        "> X",
        "\ntouch X\n",
        "'; touch X; '",
        "~/$(touch X)",
    ],
)
def test_a_word_of_a_command_runs_nothing_where_it_is_pasted(word: str, tmp_path: Path) -> None:
    shown = command_to_copy([*TRAIN, word])
    assert shown is not None
    assert "\n" not in shown
    assert paste(shown, folder=tmp_path)[3] == word.replace("~", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        f"{TEXT}; touch X #",
        f"{TEXT} $(touch X)",
        f"{TEXT} `touch X`",
        f"{TEXT} | touch X",
        f"{TEXT} & touch X",
        f"{TEXT} && touch X",
        f"{TEXT} > X",
        f"{TEXT} <(touch X)",
        f"{TEXT}\ntouch X",
        f"{TEXT} $'\\x3b' touch X",
        f"{TEXT} 'a",
        f"touch X; {TEXT}",
        f"A=$(touch X) {TEXT}",
    ],
)
def test_a_text_in_the_place_of_a_command_runs_nothing_where_it_is_pasted(text: str, tmp_path: Path) -> None:
    shown = command_to_copy(text)
    assert shown is None or "`" in text  # which is quoted
    paste(shown or ":", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["rm", "-rf", "~/"],
        ["bash", "-c", "touch X"],
        ["python", "evil.py"],
        ["python", "-c", "x", "launch/train.py"],
        ["python", "/tmp/launch/train.py"],
        ["deepspeed", "--num_gpus", "x", "launch/train.py"],
        ["deepspeed", "--hostfile", "2", "launch/train.py"],
        ["srun", "--ntasks", "2", "bash", "launch/train.py"],
        ["srun", "launch/train.py"],
        [],
        ["", ""],
    ],
)
def test_a_command_that_starts_something_else_is_left_out(words: list[str]) -> None:
    assert command_to_copy(words) is None
    assert command_to_copy(" ".join(words)) is None


def test_the_card_says_that_it_leaves_a_command_out() -> None:
    hostile = f"{TEXT}; touch /tmp/X #"
    card = build_card(translation_record(translation_config(), info=run_info(command=hostile)))
    assert "touch" not in card
    assert "The command in `run.json` is left out here: it is not one that dstrain records." in card
    card = build_card(translation_record(translation_config(), info=run_info(command=(*TRAIN, "; touch X"))))
    assert f"```bash\n{TEXT} '; touch X'\n```" in card


@pytest.mark.parametrize("command", [TEXT, TRAIN, None])
def test_the_command_of_run_json_is_a_list_of_words_or_a_text_of_earlier_versions(
    command: str | list[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"command": command}))
    info: RunInfo = read_run_info(tmp_path)
    assert command_to_copy(info.command) == (None if command is None else TEXT)


def paste(shown: str, *, folder: Path) -> list[str]:
    """The arguments that `python` gets where the command is typed in a folder, which is the home too."""
    script = f"function python {{ printf '%s\\0' \"$@\"; }}; {shown}"
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout.split("\0")
