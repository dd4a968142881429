"""Writes a module of a user's own into a folder, and starts there."""

import sys
import uuid
from pathlib import Path

import pytest

TASK = """
class Shout:
    def source(self, text):
        return text.lower()

    def target(self, text, source):
        if not text.isascii():
            raise ValueError("not ASCII")
        return f"{text.upper()} <- {source}"

    def answer(self, text, source):
        if "<-" not in text:
            raise ValueError("no arrow")
        return text.split(" <- ")[0].lower()
"""


def write_module(folder: Path, text: str, *, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the module, which no other test has imported."""
    name = f"own_{uuid.uuid4().hex}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name
