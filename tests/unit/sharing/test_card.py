"""Whether a card can stand on the Hub."""

import pytest

from dstrain.reporting.card import build_card
from dstrain.run_folder.record import RunRecord
from dstrain.sharing.card import check_card, states_license
from tests.unit.reporting.reporting_cases import parsing_record, translation_config, translation_record

PLOTS = {"plots/loss.png", "plots/score.png"}


def written(text: str, *, matter: str = "license: mit") -> str:
    return f"---\n{matter}\n---\n\n# x\n\n{text}\n"


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_the_cards_that_dstrain_writes_can(record: RunRecord) -> None:
    assert list(check_card(build_card(record), names=PLOTS)) == []


def test_a_link_must_lead_to_a_file_that_goes_up() -> None:
    card = written("![a](plots/loss.png) and [b](../README.md)\n\n[c](plots/other.png#x)")
    assert list(check_card(card, names=PLOTS)) == [
        (7, "the link `../README.md` leads to nothing that goes up: remove it, or put the file into the folder"),
        (9, "the link `plots/other.png` leads to nothing that goes up: remove it, or put the file into the folder"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "[x](https://example.org/a) [y](#usage) [z](mailto:a@example.org) <https://example.org>",
        "`[x](nowhere)`",
        "```python\nprint([1](2))\n[x](nowhere)\n```",
        "\\[x\\](nowhere)",
        "[x](./plots/loss.png)",
    ],
)
def test_addresses_headings_and_code_are_no_such_links(text: str) -> None:
    assert list(check_card(written(text), names=PLOTS)) == []


@pytest.mark.parametrize(
    ("card", "problem"),
    [
        ("# x\n", "has no metadata"),
        (written("", matter="license: [mit"), "its metadata cannot be read"),
        (
            written("", matter="license: MIT"),
            "license must be a licence identifier of the Hub: did you mean `mit`?; found `MIT`",
        ),
        (written("", matter="model-index: 3"), "its metadata cannot be read"),
    ],
)
def test_metadata_that_the_hub_would_refuse_are_refused_here(card: str, problem: str) -> None:
    ((line, found),) = check_card(card, names=PLOTS)
    assert line == 1
    assert found.startswith(problem)


def test_links_are_checked_although_the_metadata_cannot_be_read() -> None:
    (_, metadata), (line, link) = check_card(written("[x](nowhere)", matter="license: [mit"), names=PLOTS)
    assert metadata.startswith("its metadata cannot be read")
    assert (line, link.partition(" leads")[0]) == (7, "the link `nowhere`")


def test_the_text_of_a_licence_lies_in_the_folder_or_has_an_address() -> None:
    card = written("", matter="license: other\nlicense_name: ours\nlicense_link: LICENSE")
    assert list(check_card(card, names=PLOTS)) == [
        (1, "license_link `LICENSE` is no file that goes up: put it into the folder")
    ]
    assert list(check_card(card, names={*PLOTS, "LICENSE"})) == []
    assert list(check_card(card.replace("LICENSE", "https://example.org/x"), names=PLOTS)) == []


@pytest.mark.parametrize(("card", "states"), [({}, False), ({"license": "mit"}, True)])
def test_a_card_states_a_licence_if_the_recipe_does(card: dict[str, str], states: bool) -> None:
    assert states_license(build_card(translation_record(translation_config(card=card)))) == states
