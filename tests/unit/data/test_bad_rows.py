"""Bad rows: a rule refuses, skips, cuts or keeps a row, and every bad row is counted and listed."""

import json
from pathlib import Path

import pytest

from dstrain.data.bad_rows import MAX_SHOWN, BadRow, BadRowLog, UnusableRowError, apply_rule


def apply(rule: str, *, text: str = "a b") -> list[BadRow]:
    bad: list[BadRow] = []
    apply_rule(rule, where="f:7", reason="too_long", problem="9 tokens", text=text, on_bad=bad.append)  # type: ignore[arg-type]
    return bad


@pytest.mark.parametrize("rule", ["skip", "truncate", "keep"])
def test_a_rule_reports_the_row_with_its_action(rule: str) -> None:
    assert apply(rule) == [BadRow("f:7", "too_long", "a b", rule)]  # type: ignore[arg-type]


def test_the_rule_error_names_place_problem_text_rule_and_way_out() -> None:
    with pytest.raises(UnusableRowError, match=r"f:7: 9 tokens; found 'a b'\. data\.rules\.too_long is `error`: raise"):
        apply("error")


def test_a_long_text_is_cut_in_the_message_and_whole_in_the_report() -> None:
    text = "x" * (MAX_SHOWN + 1)
    with pytest.raises(UnusableRowError) as caught:
        apply("error", text=text)
    assert f"'{text[:MAX_SHOWN]}…'" in str(caught.value)
    assert apply("skip", text=text)[0].text == text


def test_rows_are_counted_by_reason_and_action() -> None:
    log = BadRowLog()
    for reason, action in (("empty", "skip"), ("too_long", "skip"), ("empty", "skip"), ("too_long", "truncate")):
        log(BadRow("f:1", reason, "", action))  # type: ignore[arg-type]
    assert log.count("skip") == {"empty": 2, "too_long": 1}
    assert log.count("truncate") == {"too_long": 1}
    assert log.count("keep") == {}


def test_the_list_can_be_saved_while_rows_still_come(tmp_path: Path) -> None:
    log = BadRowLog()
    log(BadRow("f:1", "empty", "한\t", "skip"))
    log.save(tmp_path / "first")
    log(BadRow("f:2", "undecodable", "half \ud800", "skip"))
    log.save(tmp_path / "both")
    assert len((tmp_path / "first").read_text(encoding="utf-8").splitlines()) == 1
    rows = [json.loads(line) for line in (tmp_path / "both").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {"where": "f:1", "reason": "empty", "text": "한\t", "action": "skip"}
    assert rows[1]["text"] == "half \ud800"


def test_bytes_that_are_no_text_are_escaped_once() -> None:
    with pytest.raises(UnusableRowError, match=r"found 'caf\\xe9\\tb'"):
        apply("error", text="caf\\xe9\tb")


def test_the_first_hundred_rows_of_each_reason_are_kept_through_the_logs_of_shards(tmp_path: Path) -> None:
    whole = BadRowLog()
    for shard in range(3):
        log = BadRowLog()
        for line in range(40):
            log(BadRow(f"f:{40 * shard + line}", "empty", "", "skip", data_source=shard // 2))
        log(BadRow(f"f:{999 + shard}", "too_long", "", "truncate"))
        log.save(tmp_path / "listed")
        parts = [(*kind, number, log.places[kind]) for kind, number in log.counts.items()]
        whole.join(parts, path=tmp_path / "listed")
    assert whole.listed() == {
        "skip empty": [f"f:{line}" for line in range(100)],
        "truncate too_long": ["f:999", "f:1000", "f:1001"],
    }
