"""A two-rank run killed at every stage, or at random moments, ends as an undisturbed one."""

import random
from pathlib import Path

import pytest

from dstrain.config.schema import RunConfig
from dstrain.run_folder.outcome import read_ends
from dstrain.run_folder.record import load_record
from tests.system import torture
from tests.system.runs import build_run
from tests.system.soak import Cost, Moment, describe, soak
from tests.system.torture import STAGES, Kill, Tally


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, object]:
    """The result of an undisturbed run."""
    config = torture.build_tortured(tmp_path_factory.mktemp("straight"), cache=cache)
    assert torture.launch(config) == [0, 0], torture.printed(config)
    return torture.fingerprint(config)


def test_a_run_killed_at_every_stage_is_bit_equal_to_the_straight_run(
    straight: dict[str, object], tmp_path: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    tally = Tally()
    torture.torture(config, torture.chosen_kills(), tally=tally)
    assert tally.kills == len(torture.chosen_kills())
    assert tally.phases.keys() >= set(STAGES)
    assert torture.fingerprint(config) == straight


def test_a_run_resumes_in_the_middle_of_an_epoch_at_its_end_and_just_after_it(
    straight: dict[str, object], tmp_path: Path, cache: Path
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every_steps": 1})})
    # each start counts its own saves: of steps 1 to 5, then 6 to 8, then 9
    torture.torture(config, [Kill(drill=f"renamed:{number}", rank=0) for number in (5, 3, 1)], tally=Tally())
    resumed = [event.step for event in load_record(Path(config.run_dir)).events if event.event == "resume"]
    assert resumed == [5, 8, 9]
    assert torture.fingerprint(config) | {"kept": None} == straight | {"kept": None}


NUM_KILLS = 12
SOAKED = {"training__max_steps": 80, "evaluation__every_steps": 20}


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[RunConfig, RunConfig, list[Cost]]:
    """An undisturbed run without saves by time; a run with them, killed at random moments; what the kills cost."""
    folder, source = tmp_path_factory.mktemp("soaked"), random.Random(1)
    straight, killed = (
        build_run(folder / name, machine__cache_dir=str(cache), checkpoint=checkpoint, **SOAKED)
        for name, checkpoint in (("a", {"every_minutes": 0}), ("b", {"every_minutes": 0.002}))
    )
    assert torture.launch(straight) == [0, 0], torture.printed(straight)
    moments = [
        Moment(source.randint(1, 4), source.uniform(0.0, 0.01), source.choice([None, 0, 1])) for _ in range(NUM_KILLS)
    ]
    costs = soak(killed, moments)
    assert torture.launch(killed) == [0, 0], torture.printed(killed)
    return straight, killed, costs


def test_a_run_saved_by_time_and_killed_at_random_moments_is_bit_equal_to_one_without_either(
    soaked: tuple[RunConfig, RunConfig, list[Cost]],
) -> None:
    straight, killed, costs = soaked
    assert torture.fingerprint(killed) | {"kept": None} == torture.fingerprint(straight) | {"kept": None}
    result = describe(killed, costs=costs, minutes=1.0)
    assert (result["kills"], result["differing_steps"]) == (NUM_KILLS, [])
    assert result["replayed_steps"] > 0
    ends = read_ends(Path(killed.run_dir))
    assert [ends[number].outcome for number in sorted(ends)][-1] == "finished"
    assert len(ends) == NUM_KILLS + 1, "every start keeps how it ended"
    assert all(ends[number].message for number in range(1, NUM_KILLS + 1))


VARYING = ("- Speed: ", "- Time: ", "- Training time: ", "- Peak memory: ")
"""Lines of a card that differ between any two runs."""


def test_the_card_of_a_killed_run_says_so_in_one_section_and_nowhere_else(
    soaked: tuple[RunConfig, RunConfig, list[Cost]],
) -> None:
    folders = [Path(config.run_dir).parent for config in soaked[:2]]
    cards = [(folder / "run" / "README.md").read_text().replace(str(folder), "FOLDER") for folder in folders]
    restarts = [section_of(card, title="Attempts") for card in cards]
    assert "- Resumed: never" in restarts[0]
    assert "- Resumed: " in restarts[1]
    lines = restarts[1].splitlines()
    assert sum(line.startswith(("- lost", "- killed")) for line in lines) == NUM_KILLS
    assert any(line.startswith("- lost (") and ": lost rank " in line for line in lines)
    assert any(line.startswith("- killed at step ") and "no rank recorded a reason" in line for line in lines)
    rest = [
        [line for line in card.replace(section, "").splitlines() if not line.startswith(VARYING)]
        for card, section in zip(cards, restarts, strict=True)
    ]
    assert [line.replace("b/", "a/") for line in rest[1]] == [line.replace("b/", "a/") for line in rest[0]]


def section_of(card: str, *, title: str) -> str:
    """The text from a heading to the next."""
    start = card.index(f"### {title}\n")
    return card[start : card.index("\n### ", start + 1)]
