"""What is said of a recipe that was drafted: what is in it by origin, and what is left to the user. Pure."""

from collections import Counter
from pathlib import Path

from dstrain.draft.from_card import Draft
from dstrain.draft.recipe_text import QUESTION, all_lines

ORIGINS = {
    "stated": "as in the card",
    "default": "defaults of its trainer",
    "guess": "guesses from names and scores",
    "question": "open questions",
}


def report_on_card(draft: Draft, *, path: Path) -> str:
    """The counts of values by origin, the questions with their lines, and the harm that the recipe avoids."""
    counts = Counter(line.origin for _, line in all_lines(draft.lines))
    found = ", ".join(f"{counts[origin]} {what}" for origin, what in ORIGINS.items() if counts[origin])
    asked = [f"  {path}:{number}: {question}" for number, question in questions(draft.text)]
    harm = [f"  {each}" for each in draft.harm]
    return "\n".join(
        [
            f"{path}: {found}",
            *(["open questions:", *asked] if asked else []),
            *(["known harm in the card's own settings:", *harm] if harm else []),
        ]
    )


def questions(text: str) -> list[tuple[int, str]]:
    """(line, question) of everything in a recipe's text that nothing answers."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        _, mark, question = line.partition(f"# {QUESTION}")
        if mark:
            found.append((number, question))
    return found
