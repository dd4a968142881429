"""What the recipe states for the card alone: the licence and the intended use. Pure functions of a RunRecord.

What it does not state is said to be not stated, and never guessed from the base model or the data.
"""

import re

from dstrain.reporting.markdown import Markdown, code, phrase, plain
from dstrain.run_folder.record import RunRecord


def describe_license(record: RunRecord) -> Markdown:
    """The licence with its name and text, or that none is stated and where to look."""
    card = record.config.card
    if card.license is None:
        origin = "the base model and the data" if record.config.model.name else "the data"
        return Markdown(
            "not stated in the recipe, so the front matter has none; check the licences of "
            f"{origin} before sharing the model"
        )
    name = phrase(", {}", card.license_name) if card.license_name else Markdown()
    text = phrase(" ({})", card.license_link) if card.license_link else Markdown()
    return phrase("{}{}{}", code(card.license), name, text)


def describe_use(record: RunRecord) -> list[Markdown]:
    """The paragraphs of the intended use as the recipe has them, or one that says that none is stated."""
    text = record.config.card.intended_use
    if text is None:
        return [Markdown("The recipe states no intended use. The model was trained for the task above only.")]
    return [plain(paragraph) for paragraph in re.split(r"\n\s*\n", text.strip())]
