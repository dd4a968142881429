"""What is said of a recipe that was drafted: what is in it by origin, and what is left to the user. Pure."""

from collections import Counter
from pathlib import Path

from dstrain.config.arguments import shell_command
from dstrain.config.yaml_source import write_value
from dstrain.draft.from_card import Draft
from dstrain.draft.from_data import DataDraft
from dstrain.draft.recipe_text import QUESTION, Origin, all_lines
from dstrain.draft.sizes import count

ORIGINS: dict[Origin, str] = {
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


def report_on_data(draft: DataDraft, *, path: Path) -> str:
    """What was looked at, every guess with what it was taken from, and the questions."""
    rows, evaluation = draft.train_rows, draft.evaluation_rows
    apart = (
        f" and {count(evaluation.num_rows, 'evaluation row')}"
        if evaluation
        else ", of which some are set apart for evaluation"
    )
    guessed = [(key, line) for key, line in all_lines(draft.lines) if line.origin == "guess"]
    guesses = [f"  {key}: {write_value(line.value)} ({line.why})" for key, line in guessed]
    asked = [f"  {path}:{number}: {question}" for number, question in questions(draft.text)]
    return "\n".join(
        [
            f"{count(rows.num_rows, 'training row')}{apart}; {draft.machine}",
            *draft.notes,
            "guesses, each to be changed in the recipe:",
            *guesses,
            *(["open questions:", *asked] if asked else []),
        ]
    )


def next_commands(path: Path) -> str:
    """The three commands that follow a first recipe, with what each does."""
    commands = {
        "what is wrong with it": ["dstrain", "check", path],
        "a trial of 20 steps on 64 rows, where everything happens": ["dstrain", "train", "--debug", "--config", path],
        "the run; the same command resumes it": ["deepspeed", "--quiet", "--module", "dstrain.train", "--config", path],
    }
    return "\n".join(["next:", *(f"  {shell_command(command)}  # {what}" for what, command in commands.items())])


def questions(text: str) -> list[tuple[int, str]]:
    """(line, question) of everything in a recipe's text that nothing answers."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        _, mark, question = line.partition(f"# {QUESTION}")
        if mark:
            found.append((number, question))
    return found
