"""A two-rank run killed at every stage loses nothing; and the same check fails if a safeguard is removed."""

from pathlib import Path

import pytest

from dstrain.run_folder.record import load_record
from tests.system import torture
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


@pytest.mark.parametrize("step", [5, 8, 9], ids=["mid-epoch", "an epoch's end", "just after it"])
def test_a_run_resumes_from_any_position_in_an_epoch(
    straight: dict[str, object], tmp_path: Path, cache: Path, step: int
) -> None:
    config = torture.build_tortured(tmp_path, cache=cache)
    config = config.model_copy(update={"checkpoint": config.checkpoint.model_copy(update={"every_steps": 1})})
    torture.torture(config, [Kill(drill=f"renamed:{step}", rank=0)], tally=Tally())
    resumed = [event.step for event in load_record(Path(config.run_dir)).events if event.event == "resume"]
    assert resumed == [step]
    assert torture.fingerprint(config) | {"kept": None} == straight | {"kept": None}


VARYING = ("- Speed: ", "- Time: ", "- Training time: ", "- Peak memory: ")
"""Lines of a card that differ between any two runs."""


def test_the_card_of_a_run_killed_five_times_says_so_in_one_section_and_nowhere_else(
    tmp_path: Path, cache: Path
) -> None:
    straight, killed = (torture.build_tortured(tmp_path / name, cache=cache) for name in ("a", "b"))
    assert torture.launch(straight) == [0, 0], torture.printed(straight)
    stages = ("renamed:1", "part half written:1", "export:1", "prune:1", "finish:1")
    torture.torture(killed, [Kill(drill=stage, rank=0) for stage in stages], tally=Tally())
    cards = [
        (tmp_path / name / "run" / "README.md").read_text().replace(f"{tmp_path}/{name}", "FOLDER")
        for name in ("a", "b")
    ]
    restarts = [section_of(card, title="Attempts") for card in cards]
    assert "- Resumed: never" in restarts[0]
    assert "- Resumed: 5 times" in restarts[1]
    rest = [
        [line for line in card.replace(section, "").splitlines() if not line.startswith(VARYING)]
        for card, section in zip(cards, restarts, strict=True)
    ]
    assert [line.replace("b/", "a/") for line in rest[1]] == [line.replace("b/", "a/") for line in rest[0]]


def section_of(card: str, *, title: str) -> str:
    """The text from a heading to the next."""
    start = card.index(f"### {title}\n")
    return card[start : card.index("\n### ", start + 1)]
