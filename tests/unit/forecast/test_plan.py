"""A forecast of a whole recipe: exact where the token ids are there, an estimate where they are not."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.config.schema import RunConfig
from dstrain.forecast.plan import MOMENTS, Forecast, find_layout, forecast, smallest, with_stage
from dstrain.forecast.request import Machines, Request
from dstrain.forecast.weights import list_weights
from dstrain.run.prepare import prepare_ahead
from tests.unit.forecast.forecast_cases import ask, build_recipe, on_gpus
from tests.unit.forecast.test_earlier import write_run
from tests.unit.forecast.test_pace import trial


def tell(config: RunConfig, request: Request | None = None, **options: Any) -> Forecast:
    assert config.machine.cache_dir is not None
    return forecast(config, request or ask(), cache=Path(config.machine.cache_dir), **options)


def test_it_is_exact_once_the_data_are_prepared(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    before = tell(config)
    assert before.workload is not None
    assert not before.workload.is_exact
    assert not before.facts.is_exact
    prepare_ahead(config, beat=lambda _: None)
    after = tell(config)
    assert after.workload is not None
    assert after.workload.is_exact
    assert after.facts.is_exact
    assert after.trained.num_all == sum(weight.numel for weight in list_weights(after.facts.architecture))  # type: ignore[arg-type]
    assert [memory.stage for memory in after.memories] == [0, 1, 2, 3]
    assert all(memory.activations and memory.logits and memory.search for memory in after.memories)


def test_stage_0_is_not_offered_in_16_bits_and_the_recipes_stage_is_kept(tmp_path: Path) -> None:
    found = tell(build_recipe(tmp_path, precision="bf16", machine__zero_stage=0))
    assert [memory.stage for memory in found.memories] == [1, 2, 3]
    assert found.stage == 1
    null = tell(build_recipe(tmp_path, machine__zero_stage=None), ask(on_gpus(8), capacity=int(80e9)))
    assert null.stage == null.recommended == 0


def test_the_time_is_that_of_a_trial_of_earlier_runs_or_of_a_peak(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    assert "a CPU's usual rate" in tell(config).times.pace.origin  # type: ignore[union-attr]
    assert "the peak of h100" in tell(config, ask(on_gpus(1))).times.pace.origin  # type: ignore[union-attr]
    run = write_run(tmp_path, name="one")
    assert "earlier runs" in tell(config).times.pace.origin  # type: ignore[union-attr]
    assert "one" in tell(config, ask(on_gpus(1), like=run)).times.pace.origin  # type: ignore[union-attr]
    measured = tell(config, trial=trial())
    assert measured.times is not None
    assert "measured on this machine" in measured.times.pace.origin
    assert measured.times.steps.likely == pytest.approx(100 * measured.times.pace.step.likely)
    assert measured.times.total.likely == pytest.approx(measured.times.work.likely + measured.times.pace.around.likely)


def test_idle_ranks_are_found_and_other_starts_are_timed(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, machine__micro_batch_overhead=10**6)
    idle = tell(config, ask(on_gpus(16, nodes=2))).idle
    assert idle is not None
    assert (idle.fewer.world_size, idle.fewer.num_nodes, idle.advised) == (1, 1, 16)
    one = tell(config, ask(on_gpus(1)))
    cut = build_recipe(tmp_path, machine__micro_batch_overhead=10**6, machine__min_micro_batches=16)
    all_busy = tell(cut, ask(on_gpus(16, nodes=2)))
    assert (one.idle, all_busy.idle) == (None, None)
    assert (idle.of_fewer, idle.of_advised) == (one.times, all_busy.times)
    measured = tell(config, ask(on_gpus(2)), trial=trial()).idle
    assert measured is not None
    assert (measured.of_fewer, measured.of_advised) == (None, None)  # nothing was measured there


def test_idle_ranks_do_not_make_an_earlier_runs_pace_faster(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, machine__micro_batch_overhead=10**6)
    run = write_run(tmp_path, name="one")
    few, many = (tell(config, ask(on_gpus(size), like=run)).times for size in (1, 8))
    assert few is not None
    assert many is not None
    assert few.pace.step == many.pace.step


def test_no_time_is_told_for_an_unknown_gpu_or_model(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    assert tell(config, ask(Machines("cuda", None, 1, 1, 1), capacity=10**10)).times is None
    counted = tell(config, ask(num_parameters=10**6))
    assert counted.times is None
    assert counted.trained.num_all == 10**6


def test_evaluations_of_another_job_take_no_time(tmp_path: Path) -> None:
    here, elsewhere = (
        tell(build_recipe(tmp_path, machine__evaluation_job=job), trial=trial()) for job in (None, ["--time=5"])
    )
    assert here.times is not None
    assert elsewhere.times is not None
    assert here.times.evaluations.likely > elsewhere.times.evaluations.likely == 0


def test_saves_by_the_clock_count_where_those_at_steps_are_rarer(tmp_path: Path) -> None:
    slow = trial(step_seconds=(60.0,) * 5, step_positions=(100,) * 5)
    config = build_recipe(tmp_path, evaluation__every_steps=None)
    often, never = (
        tell(build_recipe(tmp_path, evaluation__every_steps=None, checkpoint__every_minutes=minutes), trial=slow)
        for minutes in (10.0, 0.0)
    )
    assert config.checkpoint.every_minutes == 10.0
    assert often.times is not None
    assert never.times is not None
    assert often.times.num_saves > never.times.num_saves == 1


def test_allocations_are_counted_for_the_likely_time(tmp_path: Path) -> None:
    slow = trial(step_seconds=(600.0,) * 5, step_positions=(100,) * 5)
    found = tell(build_recipe(tmp_path), ask(hours=10.0), trial=slow)
    short, likely, long = found.allocations
    assert short is not None
    assert likely is not None
    assert long is not None
    assert 1 < short.num_allocations <= likely.num_allocations <= long.num_allocations
    assert tell(build_recipe(tmp_path), trial=slow).allocations == (None, None, None)


def test_data_that_cannot_be_read_cost_the_times_and_not_the_memory(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    (tmp_path / "train.tsv").write_bytes(b"\xff\xfe only\n")
    found = tell(config)
    assert found.workload is None
    assert found.no_workload
    assert found.memories[0].model.weights > 0


def test_what_machine_deepspeed_sets_is_followed(tmp_path: Path) -> None:
    zero = {"reduce_bucket_size": 1234, "stage3_param_persistence_threshold": 5}
    config = build_recipe(tmp_path, machine__deepspeed={"zero_optimization": zero})
    layout = find_layout(config, stage=3, world_size=2, num_trained=10**6)
    assert (layout.bucket_elements, layout.persistent_elements) == (1234, 5)


def test_moments_are_those_of_the_engine() -> None:
    from dstrain.engine.shards import MOMENTS as REAL

    assert {name: len(moments) for name, moments in REAL.items()} == MOMENTS


def test_a_stage_is_put_in_its_place(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, machine__zero_stage=None)
    assert with_stage(config, 2).machine.zero_stage == 2
    assert smallest(tell(config, ask(on_gpus(8))).memories).stage in (2, 3)
