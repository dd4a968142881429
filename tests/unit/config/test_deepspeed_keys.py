"""DeepSpeed's key lists, held against the keys the installed DeepSpeed asks for."""

import math
from typing import Any

import pytest

from dstrain.config.deepspeed_keys import (
    ALLOWED_KEYS,
    NESTED_KEYS,
    RANGES,
    REFUSED_KEYS,
    REMOVED_KEYS,
    SWITCHES,
    TOP_LEVEL_KEYS,
    deepspeed_problems,
)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"zero_optimization": {"reduce_bucket_size": 0}}, "must be a whole number ≥ 1, or auto; found 0"),
        ({"zero_optimization": {"sub_group_size": -1}}, "must be a whole number ≥ 0, or auto; found -1"),
        ({"zero_optimization": {"stage3_prefetch_bucket_size": 0.9}}, "found 0.9"),
        ({"zero_optimization": {"reduce_bucket_size": "many"}}, "found 'many'"),
        ({"zero_optimization": {"reduce_bucket_size": True}}, "found True"),
        ({"zero_optimization": {"reduce_bucket_size": float("inf")}}, "found inf"),
        ({"zero_optimization": {"offload_optimizer": {"ratio": 1.5}}}, "must be a number from 0 to 1"),
        ({"steps_per_print": 0}, "must be a whole number ≥ 1, or auto; found 0"),
        ({"gradient_predivide_factor": 0.0}, "must be a number > 0"),
        ({"aio": {"block_size": "x"}}, "found 'x'"),
        ({"wall_clock_breakdown": "maybe"}, "must be true or false; found 'maybe'"),
        ({"zero_optimization": {"overlap_comm": 1}}, "must be true or false; found 1"),
        ({"timers": {"throughput": {"enabled": "no"}}}, "must be true or false; found 'no'"),
        ({"communication_data_type": "fp16"}, "`fp16` would change what is learned; set it to fp32"),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, "summed over micro-batches in it: `bf16`"),
    ],
)
def test_values_that_deepspeed_refuses_later_or_that_lose_digits_are_refused(
    settings: dict[str, Any], problem: str
) -> None:
    ((_, found),) = deepspeed_problems(settings)
    assert problem in found


@pytest.mark.parametrize("value", [1, 5e8, "auto", None])
def test_a_value_in_its_range_is_passed_on(value: Any) -> None:
    zero = {"reduce_bucket_size": value, "offload_optimizer": {"ratio": 0.3}}
    assert deepspeed_problems({"zero_optimization": zero, "communication_data_type": "fp32"}) == []


def test_the_ranges_are_those_of_deepspeeds_own_models() -> None:
    zero = pytest.importorskip("deepspeed.runtime.zero.config")
    offload = pytest.importorskip("deepspeed.runtime.zero.offload_config")
    models = {
        "zero_optimization": zero.DeepSpeedZeroConfig,
        "zero_optimization.offload_param": offload.DeepSpeedZeroOffloadParamConfig,
        "zero_optimization.offload_optimizer": offload.DeepSpeedZeroOffloadOptimizerConfig,
    }
    bounded = {
        f"{section}.{field.alias or name}": field.metadata
        for section, model in models.items()
        for name, field in model.model_fields.items()
        if field.metadata and field.annotation in (int, float)
    }
    assert set(bounded) <= set(RANGES)
    switches = {
        f"{section}.{spelling}"
        for section, model in models.items()
        for name, field in model.model_fields.items()
        for spelling in (name, field.alias or name)
        if field.annotation in (bool, bool | None)
    }
    assert switches - set(REFUSED_KEYS) <= SWITCHES
    for name, limits in bounded.items():
        smallest, largest, rule = RANGES[name]
        lower = next(
            getattr(limit, "ge", None) if hasattr(limit, "ge") else limit.gt + 1
            for limit in limits
            if hasattr(limit, "ge") or hasattr(limit, "gt")
        )
        assert (smallest, "whole" in rule) == (lower, largest == math.inf)


class AskedKeys(dict[str, Any]):
    """A configuration that notes which keys are looked up, as DeepSpeed reads by `get`, `in` and `[]`."""

    def __init__(self, values: dict[str, Any], asked: set[str]) -> None:
        super().__init__(values)
        self.asked = asked

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def keys(self) -> Any:
        return self

    def __copy__(self) -> "AskedKeys":
        return AskedKeys(dict(self.items()), self.asked)


@pytest.fixture(scope="module")
def asked() -> dict[str, set[str]]:
    """Section ("" is the top level) to the keys that DeepSpeedConfig looked up in it."""
    config = pytest.importorskip("deepspeed.runtime.config")
    sections = ("activation_checkpointing", "flops_profiler", "data_types", "aio")
    found: dict[str, set[str]] = {section: set() for section in ("", *sections)}
    values = {section: AskedKeys({"": None}, found[section]) for section in sections}
    config.DeepSpeedConfig(AskedKeys({"train_batch_size": 1, **values}, found[""]))
    return found


def test_the_top_level_keys_are_those_deepspeed_asks_for(asked: dict[str, set[str]]) -> None:
    by_initialize = {"sequence_parallel_size", "data_parallel_size"}  # read by deepspeed.initialize, before the config
    assert asked[""] - REMOVED_KEYS == TOP_LEVEL_KEYS - by_initialize
    assert asked[""] >= REMOVED_KEYS


@pytest.mark.parametrize("section", ["activation_checkpointing", "flops_profiler", "data_types", "aio"])
def test_the_keys_of_plain_sections_are_those_deepspeed_asks_for(asked: dict[str, set[str]], section: str) -> None:
    assert asked[section] == NESTED_KEYS[section]


def deepspeed_models() -> dict[str, Any]:
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.compile.config import CompileConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.runtime.zero.leaf_module_config import DeepSpeedZeroLeafModuleConfig
    from deepspeed.runtime.zero.offload_config import (
        DeepSpeedZeroOffloadOptimizerConfig,
        DeepSpeedZeroOffloadParamConfig,
    )
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    return {
        "zero_optimization": DeepSpeedZeroConfig,
        "zero_optimization.offload_optimizer": DeepSpeedZeroOffloadOptimizerConfig,
        "zero_optimization.offload_param": DeepSpeedZeroOffloadParamConfig,
        "zero_optimization.leaf_module": DeepSpeedZeroLeafModuleConfig,
        "fp16": DeepSpeedFP16Config,
        "bf16": DeepSpeedBF16Config,
        "comms_logger": CommsLoggerConfig,
        "compile": CompileConfig,
        "timers.throughput": DeepSpeedThroughputTimerConfig,
    }


def test_the_keys_of_pydantic_sections_are_the_fields_of_deepspeeds_models() -> None:
    pytest.importorskip("deepspeed")
    for section, model in deepspeed_models().items():
        fields = model.model_fields
        assert set(fields) | {field.alias for field in fields.values() if field.alias} == NESTED_KEYS[section], section


def test_every_refused_nested_key_exists() -> None:
    for key in REFUSED_KEYS:
        section, _, name = key.rpartition(".")
        assert name in (NESTED_KEYS[section] if section else TOP_LEVEL_KEYS), key


def test_no_key_is_both_allowed_and_refused() -> None:
    assert not ALLOWED_KEYS & (REFUSED_KEYS.keys() | REMOVED_KEYS)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"wall_clock_breakdown": True, "comms_logger": {"enabled": True}},
        {"zero_optimization": {"overlap_comm": False, "reduce_bucket_size": 5e8, "stage3_max_live_parameters": 1}},
        {"zero_optimization": {"offload_optimizer": {"pin_memory": False}, "leaf_module": {"classes": ["A"]}}},
        {"fp16": {"initial_scale_power": 8}, "timers": {"throughput": {"enabled": False}}},
    ],
)
def test_settings_of_how_a_step_is_computed_pass(settings: dict[str, Any]) -> None:
    assert deepspeed_problems(settings) == []


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"gradient_cliping": 1.0}, "gradient_cliping", "did you mean `gradient_clipping`? It is refused here"),
        ({"wall_clock_brakdown": True}, "wall_clock_brakdown", "did you mean `wall_clock_breakdown`?"),
        ({"zzz": 1}, "zzz", "unknown to DeepSpeed 0.19.8; remove it"),
        ({"train_batch_size": 8}, "train_batch_size", "`training.batch_size`"),
        ({"gradient_clipping": 1.0}, "gradient_clipping", "`training.max_grad_norm`"),
        ({"optimizer": {"type": "Adam"}}, "optimizer", "`training.optimizer`"),
        ({"scheduler": {}}, "scheduler", "`training.schedule`"),
        ({"fp16": {"enabled": True}}, "fp16.enabled", "`precision`"),
        ({"bf16": {"enabled": True}}, "bf16.enabled", "`precision`"),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage", "`machine.zero_stage`"),
        ({"zero_optimization": {"stag": 3}}, "zero_optimization.stag", "It is refused here: set `machine.zero_stage`"),
        ({"zero_optimization": True}, "zero_optimization", "must be a section of keys"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            "zero_optimization.offload_optimizer.device",
            "`machine.offload_optimizer`",
        ),
        (
            {"zero_optimization": {"zero_quantized_gradients": True}},
            "zero_optimization.zero_quantized_gradients",
            "lossy",
        ),
        ({"sparse_gradients": True}, "sparse_gradients", "was removed from DeepSpeed"),
        ({"data_efficiency": {"enabled": True}}, "data_efficiency", "the recipe decides"),
        ({"comms_logger": {"enable": True}}, "comms_logger.enable", "did you mean `enabled`?"),
    ],
)
def test_typos_and_keys_that_change_what_is_learned_are_refused(
    settings: dict[str, Any], key: str, message: str
) -> None:
    ((found, text),) = deepspeed_problems(settings)
    assert found == key
    assert message in text


def test_every_problem_is_reported() -> None:
    settings = {"optimizer": {}, "zzz": 1, "fp16": {"enabled": True, "los_scale": 0}}
    assert [key for key, _ in deepspeed_problems(settings)] == ["optimizer", "zzz", "fp16.enabled", "fp16.los_scale"]
