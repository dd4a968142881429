"""Whole sources that go the wrong way: beside their languages, beside each other; and data that mean several directions."""

from dataclasses import replace

import pytest

from dstrain.reporting.audit import find_alarms
from dstrain.reporting.directions import find_wrong_ways
from dstrain.run_folder.audit import Audit, Direction, SetAudit, SourceAudit
from tests.unit.run_folder.audit_cases import LENGTHS, build_audit

KO_EN = {"mixed > Latin": 2214, "Hangul > Latin": 783, "Latin > Latin": 3}
EN_KO = {"Latin > mixed": 756, "Latin > Hangul": 244}


def source(
    place: str, scripts: dict[str, int], *, languages: tuple[str | None, str | None] = (None, None), prefix: str = ""
) -> SourceAudit:
    rows = sum(scripts.values())
    return SourceAudit(place, rows, LENGTHS, LENGTHS, scripts, {}, (Direction(*languages, prefix, scripts),))


def audit_of(train: list[SourceAudit], evaluation: list[SourceAudit]) -> Audit:
    sets = [SetAudit(sum(each.rows for each in sources), tuple(sources)) for sources in (train, evaluation)]
    return replace(build_audit(), train=sets[0], eval=sets[1])


def said(audit: Audit, *, kind: str = "translation") -> list[tuple[str, str]]:
    return find_wrong_ways(audit, kind=kind, names={})


def test_a_file_is_swapped_beside_its_languages() -> None:
    languages = ("ko", "en")
    audit = audit_of([source("a", KO_EN, languages=languages), source("b", EN_KO, languages=languages)], [])
    ((place, sentence),) = said(audit)
    assert place == "b"
    assert sentence == (
        "the training rows of b: most sources are in Latin, and their language ko is written in Hangul; most targets are in "
        "Hangul, and their language en is written in Latin: swap its columns, or correct the languages"
    )
    assert find_alarms(audit, kind="translation")[0] == sentence


def test_one_side_may_be_wrong_alone() -> None:
    ((_, sentence),) = said(audit_of([source("a", KO_EN, languages=("ja", "en"))], []))
    assert "their language ja is written in Han or Kana" in sentence
    assert "targets" not in sentence


def test_the_smaller_file_is_swapped_where_no_language_is_known() -> None:
    ((place, sentence),) = said(audit_of([source("b", EN_KO), source("a", KO_EN)], [source("c", KO_EN)]))
    assert place == "b"
    assert sentence.startswith(
        "the sides of the training rows of b look swapped beside the training rows of a: Latin > Hangul"
    )


def test_evaluation_rows_are_swapped_beside_training_rows_however_many_they_are() -> None:
    found = said(audit_of([source("a", EN_KO)], [source("c", KO_EN)]))
    assert [place for place, _ in found] == ["c"]
    assert "the evaluation rows of c look swapped beside the training rows of a" in found[0][1]


@pytest.mark.parametrize(
    "sources",
    [
        [source("a", KO_EN, languages=("ko", "en")), source("b", EN_KO, languages=("en", "ko"))],
        [source("a", KO_EN, languages=("x", "y")), source("b", EN_KO, languages=("y", "x"))],
        [source("a", KO_EN, prefix=">>eng<< "), source("b", EN_KO, prefix=">>kor<< ")],
        [replace(source("a", KO_EN), tag="<2en>"), replace(source("b", EN_KO), tag="<2ko>")],
        [source("a", KO_EN), source("b", {"Latin > Hangul": 50, "Hangul > Latin": 50})],
        [source("a", KO_EN), source("b", {"Latin > Latin": 50})],
        [source("a", KO_EN), source("b", {"Latin > Hangul": 2, "mixed > mixed": 50})],
    ],
    ids=["languages", "unknown languages", "prefixes", "marks in the text", "both ways", "one script", "too few rows"],
)
def test_data_that_mean_several_directions_or_say_none_are_no_fault(sources: list[SourceAudit]) -> None:
    assert said(audit_of(sources, [])) == []


def test_other_tasks_have_no_direction() -> None:
    audit = audit_of([source("a", KO_EN, languages=("en", "ko"))], [source("b", EN_KO)])
    assert said(audit) != []
    assert said(audit, kind="parsing") == said(audit, kind="text") == []
