"""The command line of `launch/train.py`."""

import os
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from dstrain.config.arguments import find_given_twice, parse_arguments, shell_command, split_arguments


def parse(*arguments: str) -> Namespace:
    return parse_arguments(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "x.yaml", "a=1", "b=2"),
        ("a=1", "--config", "x.yaml", "b=2"),
        ("a=1", "b=2", "--config", "x.yaml"),
        ("--local_rank=1", "--config", "x.yaml", "a=1", "b=2"),
        ("--local-rank=1", "a=1", "--config=x.yaml", "b=2"),
        ("--local_rank", "1", "a=1", "--config=x.yaml", "b=2"),
    ],
)
def test_overrides_stand_before_and_after_options(arguments: tuple[str, ...]) -> None:
    options = parse(*arguments)
    assert (options.config, options.overrides, options.debug, options.overfit) == (
        "x.yaml",
        ["a=1", "b=2"],
        False,
        None,
    )


def test_debug_and_overfit_are_read() -> None:
    options = parse("--config", "x", "--debug", "--overfit", "8", "a=1")
    assert (options.debug, options.overfit, options.overrides) == (True, 8, ["a=1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--config"),
        (("--config", "x", "--overfit", "0"), "must be a number of rows, at least 1; found '0'"),
        (("--config", "x", "--overfit=-3"), "found '-3'"),
        (("--config", "x", "--overfit", "many"), "found 'many'"),
        (("--config", "x", "--resume"), "--resume"),
        (
            ("--config", "a.yaml", "--config", "b.yaml"),
            '--config is given twice, "a.yaml" and "b.yaml": leave one of them out',
        ),
        (("--conf=a.yaml", "seed=1", "--config", "b.yaml"), '--config is given twice, "a.yaml" and "b.yaml"'),
        (("--config", "x", "--overfit", "8", "--overfit", "8"), '--overfit is given twice, "8" and "8"'),
    ],
)
def test_wrong_options_are_refused(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(*arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "own", "training"),
    [
        ((), [], []),
        (("a", "b"), ["a", "b"], []),
        (("a", "--", "b"), ["a"], ["b"]),
        (("--", "b", "--", "c"), [], ["b", "--", "c"]),
        (("a", "--"), ["a"], []),
    ],
)
def test_the_first_double_dash_separates_ones_own_arguments_from_those_of_training(
    arguments: tuple[str, ...], own: list[str], training: list[str]
) -> None:
    assert split_arguments(arguments) == (own, training)


ODD_ARGUMENTS = [
    "task.source_prefix=a  b",
    "a\tb",
    "a\u00a0b",
    "a\u2028b\x0bc",
    "a\u202eb",
    "two\nlines",
    "$(touch PW);x `id` $HOME",
    'it\'s "quoted" \\ !',
    "안녕 世界",
    "",
    "*?[a]~",
    "\x1b[31mred\x00".rstrip("\x00"),
    "a\udcffb",  # not UTF-8
    "\x0a1",  # a digit after an escape
]


def test_a_command_is_one_printable_line_that_a_shell_reads_as_the_same_words() -> None:
    command = shell_command(["printf", "%s\\0", *ODD_ARGUMENTS])
    assert command.isprintable()
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, env={"LC_ALL": locale})
        assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in ODD_ARGUMENTS]


def test_ordinary_words_are_quoted_as_usual() -> None:
    assert shell_command(["dstrain", "card", Path("my run"), 3]) == "dstrain card 'my run' 3"


def test_a_list_and_what_the_launcher_gives_may_come_again() -> None:
    options = parse(
        "--config", "x", "--allow-changed", "seed", "--allow-changed", "model", "--local_rank=0", "--local-rank=0"
    )
    assert options.allow_changed == ["seed", "model"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--to", "a", "--to=b"], '--to is given twice, "a" and "b": leave one of them out'),
        (["--to", "--to", "--to", "b"], '--to is given twice, "--to" and "b": leave one of them out'),
        (["--to", "a", "--quiet", "--quiet", "--many", "1", "--many", "2", "--unknown", "--unknown"], None),
        (["--to", "a", "--", "--to", "b"], None),
        (["--to"], None),
        (["--to=http://ann:hunter2@x", "--to=b"], '--to is given twice, "http://***@x" and "b": leave one of them out'),
    ],
)
def test_an_option_of_one_value_with_two_is_found(arguments: list[str], found: str | None) -> None:
    options = {"--to": True, "--quiet": False, "--many": True}
    assert find_given_twice(arguments, options=options, repeatable={"--many"}) == found
