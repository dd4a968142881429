"""docs/recipes.md: up to date, and complete."""

from pathlib import Path

from dstrain.config.metrics import METRICS
from dstrain.config.reference import build_reference
from dstrain.config.vocabulary import all_keys

PAGE = Path(__file__).resolve().parents[3] / "docs" / "recipes.md"


def test_the_page_is_what_the_schema_says_today() -> None:
    stale = "docs/recipes.md is stale: python -m dstrain.config.reference > docs/recipes.md"
    assert PAGE.read_text(encoding="utf-8") == build_reference(), stale


def rows_of_sections() -> dict[str, list[list[str]]]:
    """Heading to the rows of its table, cell by cell."""
    found: dict[str, list[list[str]]] = {}
    for part in build_reference().split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
        found[heading] = table[2:]
    return found


def test_every_key_has_a_row_with_type_default_and_meaning() -> None:
    sections = rows_of_sections()
    for *section, key in all_keys():
        heading = ".".join(section) or "Top level"
        if heading in ("data.train", "data.eval"):
            heading = "data.train.N and data.eval.N"
        elif heading == "card.published.steps":
            heading = "card.published.steps.N"
        (row,) = [row for row in sections[heading] if row[0] == f"`{key}`"]
        assert len(row) == 4, row
        assert all(row), row


def test_types_units_and_defaults_are_written_in_words() -> None:
    sections = rows_of_sections()
    rows = {f"{heading}.{row[0]}": row[1:3] for heading, table in sections.items() for row in table}
    assert rows["training.`batch_size`"] == ["whole number ≥ 1", "required"]
    assert rows["training.`epsilon`"] == ["number > 0 and ≤ 1", "`1e-08`"]
    assert rows["training.`betas`"] == ["list of 2 numbers", "`[0.9, 0.999]`"]
    assert rows["model.`dropout`"] == ["number ≥ 0 and < 1, or null", "`null`"]
    assert rows["data.`train`"] == ["list of sections", "required"]
    assert rows["machine.`compile`"] == ["true or false, or null", "`false`"]
    assert rows["machine.`watchdog`"] == ["section", "its defaults"]
    assert rows["machine.`evaluation_job`"] == ["list of text, or null", "`null`"]
    assert rows["machine.`deepspeed`"] == ["mapping", "`{}`"]


def test_every_link_leads_to_a_heading() -> None:
    anchors = {heading.replace(".", "").replace(" ", "-").lower() for heading in rows_of_sections()}
    links = [part.partition(")")[0] for part in build_reference().split("](#")[1:]]
    assert links
    assert set(links) <= anchors


def test_every_metric_has_a_row() -> None:
    assert [row[0] for row in rows_of_sections()["Metrics"]] == [f"`{metric.name}`" for metric in METRICS]
