"""A finding of the doctor: what was looked at, what it is like, and the way out. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]
"""A note is something to know, which may be as it should be; a problem prevents training."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    topic: str
    level: Level
    text: str
    way_out: str | None = None
    """What to do, in one sentence; None if all is well."""


def ok(topic: str, text: str) -> Finding:
    """What is as it should be."""
    return Finding(topic, "ok", text)


def note(topic: str, text: str, *, way_out: str | None = None) -> Finding:
    """What changes training or may surprise."""
    return Finding(topic, "note", text, way_out)


def problem(topic: str, text: str, *, way_out: str) -> Finding:
    """What prevents training."""
    return Finding(topic, "problem", text, way_out)


def prevents_training(findings: Iterable[Finding]) -> bool:
    """Whether there is a problem among the findings."""
    return any(finding.level == "problem" for finding in findings)
