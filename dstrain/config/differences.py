"""The leaves in which two configurations differ. Knows trees of mappings and lists, and none of their keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(old: Any, new: Any, *, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of every leaf in which two trees of mappings and lists differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), at=f"{at}.{key}" if at else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, at=f"{at}.{index}")
    elif old != new:
        yield at, old, new
