"""What a recipe meant before a key existed whose default changes what is learned. Pure.

A run folder keeps the meaning that it began with: its configuration and its checkpoints lack the key.
"""

from collections.abc import Mapping
from typing import Any

EARLIER: Mapping[str, Mapping[str, Any]] = {"task": {"segmentation": "published"}}
"""The value that runs without the key were trained with, by section and key."""


def lacks_keys(recipe: Mapping[str, Any]) -> bool:
    """Whether a resolved configuration, which writes out every key of its version, was written before one of EARLIER."""
    return fill_earlier(recipe) != recipe


def fill_earlier(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with the missing keys of EARLIER written out; a section that it does not have is left out."""
    filled = {name: recipe[name] for name in EARLIER if isinstance(recipe.get(name), Mapping)}
    return {**recipe, **{name: {**EARLIER[name], **section} for name, section in filled.items()}}
