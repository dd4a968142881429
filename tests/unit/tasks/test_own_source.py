"""Code of the user's own is looked up in its text, and never run."""

from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.tasks.own_source import check_source
from dstrain.tasks.own_task import METHODS
from tests.unit.tasks.own_module import TASK, write_module

RAISES = "raise SystemExit('it was run')\n"


def check(item: str) -> None:
    check_source(item, key="task.kind", methods=METHODS)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TASK, "Shout"),
        ("class Base: ...\nclass Own(Base): ...", "Own"),
        ("try:\n    from a import Own\nexcept ImportError:\n    Own = None", "Own"),
        ("if True:\n    def own(): ...", "own"),
        ("from elsewhere import *", "Own"),
        ("def __getattr__(name): ...", "Own"),
        ("first, (own, last) = make()", "own"),
    ],
)
def test_what_may_be_there_passes_and_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str
) -> None:
    check(f"{write_module(tmp_path, RAISES + text, monkeypatch=monkeypatch)}:{name}")


@pytest.mark.parametrize(
    ("text", "item", "why"),
    [
        (TASK, "{name}:Nope", r"{name}\.py has no function or class `Nope`: correct the name"),
        (
            TASK,
            "no_such{name}:Nope",
            "there is no module `no_such{name}`: install it, or start from the folder that holds it",
        ),
        (TASK, "{name}.below:Nope", r"there is no module `{name}\.below`"),
        (
            TASK.replace("def answer", "def reply"),
            "{name}:Shout",
            r"no method `answer` \(.*{name}\.py:2\): a task has source",
        ),
        ("def broken(:", "{name}:broken", r"{name}\.py:1: no Python \(.*\): correct it"),
        ("def outer():\n    class Inner: ...", "{name}:Inner", "has no function or class `Inner`"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, item: str, why: str
) -> None:
    name = write_module(tmp_path, text, monkeypatch=monkeypatch)
    with pytest.raises(UserError, match=r"task\.kind `.*`: .*" + why.format(name=name)):
        check(item.format(name=name))


def test_a_module_in_a_package_is_found_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_module(tmp_path, "", monkeypatch=monkeypatch)
    package = tmp_path / f"{name}_package"
    package.mkdir()
    (package / "__init__.py").write_text(RAISES)
    (package / "inner.py").write_text("def score(): ...")
    check(f"{package.name}.inner:score")
    check("regex:match")
