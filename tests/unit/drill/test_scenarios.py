"""How a recipe is shortened for a drill, and which scenarios are planned."""

from pathlib import Path

import pytest

from dstrain.attempt.rank_records import DRILL_VARIABLE, TRACKS, Drill, read_drill
from dstrain.config.load import load_config
from dstrain.config.shipped import recipes_folder
from dstrain.drill.scenarios import (
    MIN_STEPS,
    announce,
    drill_value,
    evaluate_every,
    plan_scenarios,
    shorten,
)
from tests.unit.drill.drill_cases import CONFIG, STEPS, plan


@pytest.mark.parametrize("name", sorted(path.stem for path in recipes_folder().glob("*.yaml")))
def test_a_short_recipe_differs_in_its_length_and_cadences_alone(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    short = shorten(config, steps=STEPS, folder=tmp_path)
    before, after = config.model_dump(), short.model_dump()
    changed = {
        "training": ("epochs", "max_steps", "warmup_steps", "early_stopping"),
        "evaluation": ("every_steps", "every_epochs", "max_rows"),
        "checkpoint": ("every_steps", "every_minutes", "keep_last"),
        "logging": ("every_steps",),
    }
    for section, keys in changed.items():
        for key in keys:
            del before[section][key], after[section][key]
    assert {key for key in before if before[key] != after[key]} == {"name", "output_dir"}
    assert (short.training.max_steps, short.training.epochs) == (STEPS, None)
    assert short.training.early_stopping is None
    assert (short.checkpoint.every_steps, short.checkpoint.keep_last, short.logging.every_steps) == (2, 2, 1)
    assert (short.name, short.run_dir) == (f"{config.name}-drill", str(tmp_path))


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("training.warmup_steps=100", ("warmup_steps", 3)),
        ("training.warmup_steps=1", ("warmup_steps", 1)),
        ("evaluation.max_rows=5", ("max_rows", 5)),
        ("evaluation.max_rows=500", ("max_rows", 32)),
        ("evaluation.max_rows=null", ("max_rows", 32)),
    ],
)
def test_values_that_are_already_smaller_stay(override: str, found: tuple[str, int], tmp_path: Path) -> None:
    short = shorten(load_config("debug", overrides=[override]), steps=STEPS, folder=tmp_path)
    key, value = found
    assert (short.training.model_dump() | short.evaluation.model_dump())[key] == value


def test_a_recipe_in_epochs_that_stops_early_is_counted_in_steps(tmp_path: Path) -> None:
    overrides = ["training.max_steps=null", "training.epochs=3", "training.early_stopping.patience=2"]
    overrides += ["evaluation.every_steps=null", "evaluation.every_epochs=1"]
    short = shorten(load_config("debug", overrides=overrides), steps=7, folder=tmp_path)
    assert (short.training.epochs, short.training.max_steps, short.training.early_stopping) == (None, 7, None)
    assert (short.evaluation.every_epochs, short.evaluation.every_steps) == (None, 3)


def test_a_drill_has_all_scenarios_that_the_number_of_ranks_allows() -> None:
    kills = ["step", "evaluation", "part", "manifest", "rename", "renamed", "prune", "finish"]
    assert list(plan(2)) == ["straight", "control", *kills, "sigterm", "fewer-ranks"]
    assert list(plan(1)) == ["straight", "control", *kills, "sigterm"]
    assert [launch.num_ranks for launch in plan(5)["fewer-ranks"].launches] == [5, 2]
    assert plan()["step"].folder == "killed-step"
    assert len({scenario.folder for scenario in plan().values()}) == len(plan())


def test_the_last_launch_of_every_scenario_is_undisturbed() -> None:
    for scenario in plan().values():
        *disturbed, last = scenario.launches
        assert (last.drill, last.sigterm_after) == (None, None)
        assert all(launch.drill or launch.sigterm_after for launch in disturbed)
        assert (len(scenario.launches) == 1) == (scenario.name in ("straight", "control"))


@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_the_ranks_understand_every_kill(num_ranks: int) -> None:
    drills = [launch.drill for scenario in plan(num_ranks).values() for launch in scenario.launches if launch.drill]
    assert len(drills) == 8 + (num_ranks > 1)
    for drill in drills:
        assert read_drill({DRILL_VARIABLE: drill_value(drill)}) == drill
        assert drill.rank is None or drill.rank < num_ranks
        assert any(drill.phase in phases for phases in TRACKS.values())


def test_twelve_steps_must_resume_from_the_steps_that_counting_gives() -> None:
    kept = {name: scenario.kept_step for name, scenario in plan().items() if len(scenario.launches) > 1}
    # saves at 2, 4, 6, …; evaluations at 4, 8, 12; killed between steps after 7, when that of 6 may be under way
    assert kept == {
        "step": 4,
        "evaluation": 4,
        "part": 2,
        "manifest": 4,
        "rename": 4,
        "renamed": 6,
        "prune": 6,
        "finish": 12,
        "sigterm": 3,
        "fewer-ranks": 4,
    }


@pytest.mark.parametrize("best", ["none", "all", "every other"])
@pytest.mark.parametrize("steps", range(MIN_STEPS, 41))
def test_no_scenario_expects_more_to_be_saved_than_is(steps: int, best: str) -> None:
    """Counted out: which saves there are depends on which evaluations are the best so far."""
    evaluations = [step for step in range(1, steps + 1) if step % evaluate_every(steps) == 0 or step == steps]
    also = {"none": [], "all": evaluations, "every other": evaluations[::2]}[best]
    saves = [step for step in range(1, steps + 1) if step % 2 == 0 or step in also or step == steps]
    scenarios = plan(steps=steps)
    drill = scenarios["step"].launches[0].drill
    assert drill
    trained = drill.occurrence - 1  # the phase is entered once before step 1
    assert 0 < trained < steps
    assert trained % 2 == 1

    def complete_at(step: int) -> int:
        return ([0, *(save for save in saves if save <= step)])[-2]

    assert scenarios["step"].kept_step <= complete_at(trained)
    assert scenarios["evaluation"].kept_step <= complete_at(evaluations[1] - 1)
    assert scenarios["part"].kept_step <= saves[0]
    assert scenarios["manifest"].kept_step == scenarios["rename"].kept_step <= saves[1]
    assert scenarios["renamed"].kept_step == scenarios["prune"].kept_step <= saves[2]
    assert scenarios["finish"].kept_step == steps
    assert 0 < scenarios["sigterm"].kept_step < evaluations[0]
    assert min(scenarios[name].kept_step for name in ("step", "evaluation", "part", "manifest", "renamed")) >= (
        2 if steps > 7 else 0
    )


def test_an_evaluation_is_counted_after_the_rehearsal() -> None:
    drills = []
    for has_rehearsal in (False, True):
        scenarios = plan_scenarios(num_ranks=1, steps=STEPS, has_rehearsal=has_rehearsal, only=["evaluation"])
        drills.append(scenarios[-1].launches[0].drill)
    assert drills == [Drill("evaluation", 2, 0), Drill("evaluation", 3, 0)]


def test_chosen_scenarios_follow_the_straight_run() -> None:
    assert list(plan(only=["manifest", "step"])) == ["straight", "step", "manifest"]
    with pytest.raises(
        ValueError, match=r"--scenarios: unknown on 1 rank: sted, fewer-ranks; choose from straight, .*step"
    ):
        plan(1, only=["step", "sted", "fewer-ranks"])


def test_the_announcement_says_what_will_run(tmp_path: Path) -> None:
    scenarios = list(plan(only=["control", "step"]).values())
    text = announce(scenarios, config=CONFIG, steps=STEPS, folder=tmp_path, free_bytes=3_210_000_000)
    for part in (
        "drill of debug: 12 steps on 2 ranks, 3 scenarios, 4 launches",
        f"{tmp_path} holds",
        "3.2 GB are free",
    ):
        assert part in text


def test_a_drill_is_shown_in_no_tracker(tmp_path: Path) -> None:
    config = load_config("debug", overrides=["logging.trackers.wandb={}"])
    assert shorten(config, steps=STEPS, folder=tmp_path).logging.trackers == {}
