"""Findings as lines of text, or as JSON values for scripts. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dstrain.doctor.finding import Finding, prevents_training

MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}


def describe(findings: Sequence[Finding]) -> str:
    """A line for each finding, below it the way out; at the end how many there are of each kind."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.level]:<7}  {finding.topic:<{width}}  {finding.text}")
        if finding.way_out:
            lines.append(f"{'':<7}  {'':<{width}}  → {finding.way_out}")
    counts = {level: sum(finding.level == level for finding in findings) for level in MARKS}
    verdict = "a run would fail here" if prevents_training(findings) else "nothing prevents training"
    problems = f"{counts['problem']} problem{'' if counts['problem'] == 1 else 's'}"
    notes = f"{counts['note']} note{'' if counts['note'] == 1 else 's'}"
    return "\n".join([*lines, "", f"{verdict}: {problems}, {notes}"])


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as JSON values."""
    return {"can_train": not prevents_training(findings), "findings": [asdict(finding) for finding in findings]}
