"""The document as JSON: every field under its name, no number that JSON does not have, any text."""

import json
import math

from dstrain.html_report.document import Column, Document, Mark, Run, Training, encode


def build_run(**changes: object) -> Run:
    values: dict[str, object] = {
        "name": "one",
        "folder": "one",
        "state": "running",
        "why": "",
        "advice": "",
        "summary": [("steps", "3")],
        "best": None,
        "train": Training([1, 2], [Column("loss", "loss", "", True, [1.5, math.nan])]),
        "metrics": [],
        "marks": [Mark(1, "save", "kept")],
        "attempts": [],
        "warnings": [],
        "settings": [],
        "audit": None,
        "sets": [],
    }
    return Run(**values | changes)  # type: ignore[arg-type]


def test_the_document_is_json_with_null_for_what_is_no_number() -> None:
    found = json.loads(encode(Document("2026-11-29T20:00:00Z", "0.1", ["torn"], ["a note"], [build_run()])))
    assert (found["version"], found["created"]) == (1, "2026-11-29T20:00:00Z")
    assert (found["damage"], found["notes"]) == (["torn"], ["a note"])
    (run,) = found["runs"]
    assert run["train"] == {
        "step": [1, 2],
        "columns": [{"name": "loss", "label": "loss", "unit": "", "log": True, "values": [1.5, None]}],
    }
    assert run["marks"] == [{"step": 1, "kind": "save", "text": "kept"}]
    assert run["summary"] == [["steps", "3"]]
    assert (run["best"], run["audit"]) == (None, None)


def test_any_text_can_be_in_it() -> None:
    texts = ["</script><img src=x onerror=alert(1)>", "한국어 \U0001f600", "\u2028", "half \ud83d"]
    found = json.loads(encode(Document("now", "0.1", [], texts, [])))
    assert found["notes"] == [*texts[:3], "half ?"]
