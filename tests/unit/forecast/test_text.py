"""What the terminal shows of a forecast."""

import re
from pathlib import Path

import pytest

from dstrain.forecast.text import HEAD, as_text
from tests.unit.forecast.forecast_cases import ask, build_recipe, on_gpus
from tests.unit.forecast.test_pace import trial
from tests.unit.forecast.test_plan import tell


def test_every_topic_has_its_block(tmp_path: Path) -> None:
    text = as_text(tell(build_recipe(tmp_path), ask(on_gpus(4), capacity=int(80e9), hours=1.0)))
    assert [block.split()[0] for block in text.split("\n\n")] == ["parameters", "work", "memory", "disk", "time"]
    for part in (
        "trained",
        "100 steps (19 an epoch of 300 rows)",
        "4 evaluations of 40 rows",
        "of each of 4 GPUs, MB by part",
        "fits",
        "take zero_stage 0",
        "the recipe has zero_stage 1; null takes the recommended one",
        "it ends within one allocation of 1 h",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 130


def test_idle_gpus_are_told_with_what_fewer_take(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, machine__micro_batch_overhead=10**6)
    text = as_text(tell(config, ask(on_gpus(16, nodes=2))))
    assert "warning: the first step is cut into 1 micro-batch for 16 ranks: 15 of them are idle. Set" in text
    assert "machine.min_micro_batches=16" in text
    assert "on 1 rank, without idle ones: a step " in text
    assert "on 16 ranks with machine.min_micro_batches=16: a step " in text
    assert max(map(len, text.splitlines())) <= 130
    assert "idle" not in as_text(tell(config, ask(on_gpus(1))))


def test_a_peak_is_the_sum_of_the_parts_that_it_names(tmp_path: Path) -> None:
    found = tell(build_recipe(tmp_path), ask(on_gpus(4)))
    lines = as_text(found).splitlines()
    head = next(number for number, line in enumerate(lines) if "gradients" in line)
    for line in lines[head + 1 : head + 5]:
        _, *cells, moment = line.split()
        parts = dict(zip(HEAD[1:], (float(cell.replace(",", "")) for cell in cells), strict=False))
        left_out = {"training": {"search"}, "evaluation": {"gradients", "buckets", "activations", "logits"}}[moment]
        assert sum(parts[name] for name in HEAD[1:-2] if name not in left_out) == pytest.approx(parts["peak"], abs=0.5)


def test_a_range_of_allocations_is_no_contradiction(tmp_path: Path) -> None:
    slow = trial(step_seconds=(30.0,) * 5, step_positions=(100,) * 5)
    hours = tell(build_recipe(tmp_path), trial=slow).times.total.likely / 3600 * 1.1  # type: ignore[union-attr]
    text = as_text(tell(build_recipe(tmp_path), ask(hours=hours), trial=slow))
    assert re.search(
        r"by the likely time it ends within one allocation of \S+ h; by the shortest and the longest 1 to \d", text
    )


def test_columns_stand_under_their_heads(tmp_path: Path) -> None:
    lines = as_text(tell(build_recipe(tmp_path))).splitlines()
    head = next(line for line in lines if "gradients" in line)
    first = lines.index(head) + 1
    rows = lines[first : first + 4]
    for name in ("weights", "optimizer", "peak"):
        end = head.index(name) + len(name)
        assert all(row[end - 1].isdigit() and (len(row) == end or row[end] == " ") for row in rows)


def test_restarts_are_told_with_their_cost(tmp_path: Path) -> None:
    slow = trial(step_seconds=(600.0,) * 5, step_positions=(100,) * 5)
    text = as_text(tell(build_recipe(tmp_path), ask(hours=10.0), trial=slow))
    assert "allocations of 10 h:" in text
    assert "restarts, each with a set-up" in text
    assert "a failure of a node costs at most 10 min of training" in text
    over = as_text(tell(build_recipe(tmp_path), ask(hours=0.01), trial=trial(around_seconds=3600.0)))
    assert "an allocation of 0.01 h is over before the first step" in over


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = as_text(tell(build_recipe(tmp_path), ask(num_parameters=10**6)))
    assert "activations and search of `given` are not known" in text
    assert "time        not known for this model: --measure 12" in text
    config = build_recipe(tmp_path)
    (tmp_path / "train.tsv").write_text("\n")
    assert "work        not known: data:" in as_text(tell(config))


def test_frozen_parameters_and_offloading_are_told(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, model__freeze=["encoder"], machine__offload_optimizer=True)
    text = as_text(tell(config, ask(on_gpus(1))))
    assert " frozen" in text
    assert "GB of host memory for each rank" in text
