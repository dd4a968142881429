"""Metrics of the user's own, from files outside the package."""

import math
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.evaluation.own_metrics import MetricFailed, load_metric, own_score
from dstrain.tasks.own_code import code_signature

MODULE = """
def share(hypotheses, references, sources):
    return sum(text in texts for text, texts in zip(hypotheses, references)) / len(hypotheses)
def by_row(hypotheses, references, sources):
    return [len(text) - len(source) for text, source in zip(hypotheses, sources)]
def too_few(hypotheses, references, sources):
    return [1.0]
def endless(hypotheses, references, sources):
    return float("nan")
def text(hypotheses, references, sources):
    return "good"
def broken(hypotheses, references, sources):
    return {}[len(hypotheses)]
def bad_row(hypotheses, references, sources):
    return [1.0, float("nan")]
def nothing(hypotheses, references, sources):
    return None
def other_arguments(hypotheses):
    return 1.0
constant = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_scores.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_module_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("own_scores", "own_broken"):
        sys.modules.pop(name, None)


def compute(name: str) -> float:
    return own_score(
        f"own_scores:{name}", ["a", "bc"], [["a"], ["b", "c"]], sources=["x", "y"], places=["e:1", "e:2"]
    ).value


def test_a_function_in_the_current_folder_scores_all_rows_or_each_of_them() -> None:
    assert compute("share") == 0.5
    assert compute("by_row") == 0.5


def test_the_signature_names_the_distribution_or_the_content_of_the_file() -> None:
    found = own_score("own_scores:share", ["a"], [["a"]], sources=["x"], places=["e:1"])
    assert found.name == "share"
    assert str(found.signature).startswith("own_scores:share|sha256:")
    version = metadata.version("regex")
    with pytest.raises(MetricFailed):  # its arguments are others
        own_score("regex:match", ["a"], [["a"]], sources=["x"], places=["e:1"])
    assert code_signature("regex:match") == f"regex:match|regex:{version}"


def test_a_metric_may_have_nothing_to_measure() -> None:
    assert math.isnan(compute("nothing"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("too_few", "returned 1 numbers for 2 rows"),
        (
            "endless",
            r"must be finite, or None where there is nothing to measure, at own_scores\.py:8: correct it, or leave it out",
        ),
        ("text", "could not convert"),
        ("broken", r"KeyError: 2, at own_scores\.py:13: correct it, or leave it out of evaluation\.metrics"),
        ("bad_row", r"it returned nan for row 1 \(e:2\): the number of a row must be finite, at own_scores\.py:14"),
        ("other_arguments", r"takes 1 positional argument but 3 were given, at own_scores\.py:18"),
    ],
)
def test_a_metric_that_fails_is_named_with_its_error(name: str, why: str) -> None:
    with pytest.raises(
        MetricFailed, match=rf"evaluation\.metrics `own_scores:{name}` failed on 2 rows \(e:1 to e:2\): .*{why}"
    ):
        compute(name)


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("own_nowhere:score", "cannot be imported .*start from the folder that holds it"),
        ("own_broken:score", "cannot be imported .*no_such_module_anywhere"),
        ("own_scores:scor", "has no function or class `scor`"),
        ("own_scores:constant", "has no function or class `constant`"),
    ],
)
def test_a_function_that_is_not_there_is_refused_with_the_way_out(item: str, why: str) -> None:
    with pytest.raises(UserError, match=rf"evaluation\.metrics `{item}`: .*{why}"):
        load_metric(item)
