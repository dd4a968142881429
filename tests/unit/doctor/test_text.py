"""The report: a line for each finding with the way out below it, and JSON with the same."""

from dstrain.doctor.finding import note, ok, problem
from dstrain.doctor.text import as_json, describe

FINDINGS = [
    ok("torch", "2.13.0, built for CPU"),
    note("/dev/shm", "0.06 of 0.06 GB are free", way_out="--shm-size=8g"),
    problem("output", "/data cannot be written", way_out="choose another"),
]


def test_each_finding_has_a_line_and_its_way_out_below() -> None:
    assert describe(FINDINGS) == "\n".join(
        [
            "ok       torch     2.13.0, built for CPU",
            "note     /dev/shm  0.06 of 0.06 GB are free",
            "                   → --shm-size=8g",
            "PROBLEM  output    /data cannot be written",
            "                   → choose another",
            "",
            "a run would fail here: 1 problem, 1 note",
        ]
    )


def test_without_a_problem_nothing_prevents_training() -> None:
    assert describe(FINDINGS[:2]).endswith("\nnothing prevents training: 0 problems, 1 note")


def test_json_has_the_same() -> None:
    assert as_json(FINDINGS)["can_train"] is False
    assert as_json(FINDINGS[:2])["can_train"] is True
    assert as_json(FINDINGS)["findings"][2] == {
        "topic": "output", "level": "problem", "text": "/data cannot be written", "way_out": "choose another",
    }  # fmt: skip
