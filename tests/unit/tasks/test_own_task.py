"""A task of the user's own: its class is checked before training, and what it refuses is told from what is wrong with it."""

from pathlib import Path

import pytest

from dstrain.config.recipe import Task
from dstrain.errors import UserError
from dstrain.tasks.own_task import OwnTask, UnusableText, code_fingerprint, load_task
from tests.unit.tasks.own_module import TASK, write_module


def load(folder: Path, text: str, *, monkeypatch: pytest.MonkeyPatch, name: str = "Shout") -> OwnTask:
    module = write_module(folder, text, monkeypatch=monkeypatch)
    found = load_task(Task(kind=f"{module}:{name}"))
    assert found is not None
    return found


def test_texts_go_to_the_model_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load(tmp_path, TASK, monkeypatch=monkeypatch)
    assert own.source("Good Day", where="x.tsv:3") == "good day"
    learned = own.target("guten tag", source="Good Day", where="x.tsv:3")
    assert learned == "GUTEN TAG <- Good Day"
    assert own.answer(learned, source="Good Day", where="x.tsv:3") == "guten tag"


def test_the_other_kinds_have_no_class() -> None:
    assert load_task(Task(kind="text")) is None
    assert code_fingerprint(Task(kind="translation")) == []


def test_a_value_error_refuses_one_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = load(tmp_path, TASK, monkeypatch=monkeypatch)
    with pytest.raises(UnusableText, match=r"task\.kind `.*:Shout`: `target` refuses it \(not ASCII\)"):
        own.target("schön", source="x", where="x.tsv:3")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "return {}[text]",
            r"failed on 'a', of the row x\.tsv:3 \(KeyError: 'a', at own_\w+\.py:\d+\): correct it; it must return a text, or",
        ),
        ("return None", r"returned None for 'a', of the row x\.tsv:3, at own_\w+\.py:\d+: it must return a text"),
    ],
)
def test_any_other_error_is_the_fault_of_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    own = load(tmp_path, TASK.replace("return text.lower()", body, 1), monkeypatch=monkeypatch)
    with pytest.raises(UserError, match=why):
        own.source("a", where="x.tsv:3")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TASK.replace("def answer", "def reply"), "it has no method `answer`: a task has source, target, answer"),
        (
            TASK.replace("class Shout:", "class Shout:\n    def __init__(self, x): ..."),
            "cannot be made without arguments",
        ),
    ],
)
def test_a_class_that_is_no_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    with pytest.raises(UserError, match=why):
        load(tmp_path, text, monkeypatch=monkeypatch)


def test_another_file_is_another_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, same, other = (
        code_fingerprint(Task(kind=load(tmp_path, text, monkeypatch=monkeypatch).item))
        for text in (TASK, TASK, TASK + "#")
    )
    assert first == same != other
