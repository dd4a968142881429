"""Ranks that were started with different recipes, options or packages are refused, by rank, host, key and values."""

from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.run.agreement import check_same_start, find_difference
from tests.unit.run.run_cases import build_config
from tests.unit.training.training_cases import alone


def build_start(host: str = "a", **changes: Any) -> dict[str, Any]:
    return {
        "host": host,
        "recipe": {"seed": 1, "training": {"learning_rate": 1e-3, "max_steps": 5}},
        "options": {"allow_changed": []},
        "versions": {"torch": "2.13.0"},
    } | changes


def test_ranks_that_were_started_alike_may_be_on_any_host() -> None:
    assert find_difference([build_start("a"), build_start("b")]) is None
    check_same_start(build_config(), options={"debug": False}, ranks=alone())


def test_the_first_rank_that_differs_is_named_with_its_values() -> None:
    other = {"seed": 7, "training": {"learning_rate": 5e-3, "max_steps": 5}}
    starts = [build_start(), build_start(), build_start("b", recipe=other), build_start("c", recipe={})]
    assert find_difference(starts) == (
        "rank 2 on b was started differently: seed is 7, and 1 on rank 0; training.learning_rate is 0.005, and 0.001 on "
        "rank 0. To go on, give every rank the same recipe and the same key=value"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"options": {"allow_changed": ["seed"]}},
            r"allow_changed is \[\"seed\"\], and \[\] on rank 0.*the same options",
        ),
        ({"versions": {"torch": "2.12.0"}}, 'torch is "2.12.0", and "2.13.0" on rank 0.*the same packages'),
        ({"recipe": dict.fromkeys("abcde", 1)}, "c is 1, and null on rank 0; 4 more differ"),
    ],
)
def test_options_and_packages_must_be_the_same_too(changes: dict[str, Any], message: str) -> None:
    class TwoRanks:
        def gather(self, value: Any, form: Any) -> list[Any]:
            return [build_start(), build_start("b", **changes)]

        def broadcast(self, value: Any, form: Any) -> Any:
            return value

    with pytest.raises(UserError, match=message):
        check_same_start(build_config(), options={}, ranks=TwoRanks())  # type: ignore[arg-type]
