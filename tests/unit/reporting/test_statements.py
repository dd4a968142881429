"""The licence and the intended use on the card: as the recipe states them, or that it does not."""

import pytest

from dstrain.reporting.card import build_card
from dstrain.reporting.statements import describe_license, describe_use
from dstrain.run_folder.record import RunRecord
from tests.unit.reporting.card_cases import listed
from tests.unit.reporting.reporting_cases import translation_config, translation_record


def record(**card: object) -> RunRecord:
    return translation_record(config=translation_config(card=card))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (
            {},
            "not stated in the recipe, so the front matter has none; check the licences of the base model and the data",
        ),
        ({"license": "mit"}, "`mit`"),
        (
            {"license": "other", "license_name": "ours-1.0", "license_link": "https://example.org/licence"},
            "`other`, ours-1.0 (https://example.org/licence)",
        ),
    ],
)
def test_the_licence_is_that_of_the_recipe_or_none(card: dict[str, object], said: str) -> None:
    assert describe_license(record(**card)).startswith(said)
    assert listed(build_card(record(**card)), under="Model description")["License"].startswith(said)


def test_the_intended_use_stands_in_its_section_by_paragraphs_and_is_no_markup() -> None:
    text = "For *research* on roads.\nNot for safety.\n\n\n# No heading <b>"
    assert describe_use(record(intended_use=text)) == [
        "For \\*research\\* on roads. Not for safety.",
        "\\# No heading &lt;b&gt;",
    ]
    section = build_card(record(intended_use=text)).split("## Intended uses & limitations\n")[1].split("\n- ")[0]
    assert section.strip() == "\n\n".join(describe_use(record(intended_use=text)))


def test_without_one_the_card_says_so() -> None:
    assert "The recipe states no intended use." in build_card(record())
