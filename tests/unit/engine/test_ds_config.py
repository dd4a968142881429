"""DeepSpeed's configuration of every stage, precision and offload; and that DeepSpeed itself takes it."""

from typing import Any

import pytest
from deepspeed.runtime.config import DeepSpeedConfig

from dstrain.engine.ds_config import build_ds_config, effective_zero_stage, merge
from tests.distributed.steps import build_config


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_sixteen_bits_run_at_least_on_stage_1(stage: int, precision: str) -> None:
    config = build_config(machine__zero_stage=stage, precision=precision)
    expected = stage if precision == "fp32" else max(1, stage)
    assert effective_zero_stage(config) == expected
    assert build_ds_config(config, world_size=1, num_trained=10**9)["zero_optimization"]["stage"] == expected


def test_fp32_switches_no_16_bit_arithmetic_on() -> None:
    settings = build_ds_config(build_config(), world_size=1, num_trained=10**9)
    assert not {"fp16", "bf16", "data_types"} & settings.keys()


@pytest.mark.parametrize(("precision", "other"), [("bf16", "fp16"), ("fp16", "bf16")])
def test_a_16_bit_precision_is_switched_on_alone_and_takes_the_buffers_along(precision: str, other: str) -> None:
    settings = build_ds_config(build_config(precision=precision), world_size=1, num_trained=10**9)
    assert settings[precision]["enabled"] is True
    assert other not in settings
    assert settings["data_types"] == {"buffer_dtype": precision, "grad_accum_dtype": "fp32"}


def test_fp16_scales_its_loss_dynamically() -> None:
    settings = build_ds_config(build_config(precision="fp16"), world_size=1, num_trained=10**9)
    assert settings["fp16"]["loss_scale"] == 0  # DeepSpeed's word for dynamic


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({}, set()),
        ({"machine__offload_optimizer": True}, {"offload_optimizer"}),
        ({"machine__zero_stage": 3, "machine__offload_parameters": True}, {"offload_param"}),
        (
            {"machine__zero_stage": 3, "machine__offload_parameters": True, "machine__offload_optimizer": True},
            {"offload_optimizer", "offload_param"},
        ),
    ],
)
def test_what_is_offloaded_goes_to_the_cpu(changes: dict[str, Any], sections: set[str]) -> None:
    zero = build_ds_config(build_config(**changes), world_size=1, num_trained=10**9)["zero_optimization"]
    assert {key for key in zero if key.startswith("offload")} == sections
    assert all(zero[section]["device"] == "cpu" for section in sections)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_batch_sizes_are_formalities_that_fit_each_other(world_size: int) -> None:
    settings = build_ds_config(build_config(), world_size=world_size, num_trained=10**9)
    product = settings["train_micro_batch_size_per_gpu"] * settings["gradient_accumulation_steps"] * world_size
    assert settings["train_batch_size"] == product == world_size


@pytest.mark.parametrize("norm", [0.0, 0.5])
def test_the_recipe_decides_clipping(norm: float) -> None:
    settings = build_ds_config(build_config(training__max_grad_norm=norm), world_size=1, num_trained=10**9)
    assert settings["gradient_clipping"] == norm


def test_the_users_own_keys_are_laid_over_without_removing_others() -> None:
    mine = {
        "zero_optimization": {"reduce_bucket_size": 7, "offload_optimizer": {"pin_memory": False}},
        "dump_state": True,
    }
    config = build_config(machine__deepspeed=mine, machine__offload_optimizer=True)
    settings = build_ds_config(config, world_size=1, num_trained=10**9)
    assert settings["dump_state"] is True
    assert settings["zero_optimization"]["reduce_bucket_size"] == 7
    assert settings["zero_optimization"]["stage"] == 1
    assert settings["zero_optimization"]["offload_optimizer"] == {"device": "cpu", "pin_memory": False}


@pytest.mark.parametrize("section", ["zero_optimization", "bf16", "data_types"])
def test_an_empty_section_of_the_users_does_not_switch_ours_off(section: str) -> None:
    config = build_config(machine__deepspeed={section: None}, precision="bf16")
    plain = build_ds_config(build_config(precision="bf16"), world_size=1, num_trained=10**9)
    assert build_ds_config(config, world_size=1, num_trained=10**9) == plain


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1, "y": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"x": {"z": 1}}}, {"a": {"x": {"w": 2}}}, {"a": {"x": {"z": 1, "w": 2}}}),
        ({"a": {"x": 1}}, {"a": 3}, {"a": 3}),
        ({"a": {"x": 1}}, {"a": None}, {"a": {"x": 1}}),
        ({"a": 3}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": 3}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_mappings_are_merged_and_everything_else_is_replaced(
    base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]
) -> None:
    before = repr((base, over))
    assert merge(base, over) == merged
    assert repr((base, over)) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_reads_what_is_meant(stage: int, precision: str) -> None:
    offload = {"machine__offload_optimizer": stage > 0, "machine__offload_parameters": stage == 3}
    config = build_config(machine__zero_stage=stage, precision=precision, **offload)
    read = DeepSpeedConfig(build_ds_config(config, world_size=1, num_trained=10**9))
    assert read.zero_config.stage == effective_zero_stage(config)
    assert read.gradient_clipping == 1.0
    assert (read.float16_config.enabled, read.bfloat16_config.enabled) == (precision == "fp16", precision == "bf16")
    assert read.zero_force_ds_cpu_optimizer is False
    assert read.zero_allow_untested_optimizer is True
    assert (read.zero_config.offload_optimizer is not None) == (stage > 0)
    assert (read.zero_config.offload_param is not None) == (stage == 3)


def test_the_buffer_of_the_reduction_is_no_larger_than_the_model_and_a_users_own_wins() -> None:
    def bucket(num_trained: int, **changes: Any) -> Any:
        settings = build_ds_config(build_config(**changes), world_size=2, num_trained=num_trained)
        return settings["zero_optimization"].get("reduce_bucket_size")

    assert bucket(300) == 300
    assert bucket(10**10) == 500_000_000
    assert bucket(300, machine__zero_stage=0) is None
    own = {"zero_optimization": {"reduce_bucket_size": 7}}
    assert bucket(300, machine__deepspeed=own) == 7
