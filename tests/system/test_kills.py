"""A two-rank run killed at every stage of its work loses nothing; and the same check fails where a safeguard is taken out."""

from pathlib import Path

import pytest

from tests.system import torture
from tests.system.torture import STAGES, Tally


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, object]:
    """What a run gives that nobody disturbs."""
    config = torture.build_tortured(tmp_path_factory.mktemp("straight"), cache=cache)
    assert torture.live(config) == [0, 0], torture.printed(config)
    return torture.fingerprint(config)


def test_killed_at_every_stage_a_run_ends_bit_equal_to_the_straight_run(
    straight: dict[str, object], tmp_path: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    tally = Tally()
    torture.torture(config, torture.chosen_kills(), tally=tally)
    assert tally.phases.keys() >= set(STAGES)
    assert torture.fingerprint(config) == straight
