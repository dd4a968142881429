"""A forecast as JSON."""

import json
from pathlib import Path

from dstrain.forecast.values import as_json
from tests.unit.forecast.forecast_cases import ask, build_recipe, on_gpus
from tests.unit.forecast.test_plan import tell


def test_every_number_is_there_for_scripts(tmp_path: Path) -> None:
    found = tell(build_recipe(tmp_path), ask(on_gpus(2), capacity=int(80e9), hours=1.0))
    values = json.loads(json.dumps(as_json(found)))
    parameters = values["parameters"]
    assert parameters["trained"] + parameters["frozen"] == parameters["all"] == sum(parameters["parts"].values())
    assert values["memory"].keys() == {"0", "1", "2", "3"}
    assert all(each["verdict"] == "fits" for each in values["memory"].values())
    assert values["work"]["steps"] == 100
    low, likely, high = values["time"]["total"]
    assert low < likely < high
    assert values["allocations"] == [1, 1, 1]
    assert values["recommended_zero_stage"] == 0


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    values = as_json(tell(build_recipe(tmp_path), ask(num_parameters=5)))
    assert values["time"] is None
    assert values["allocations"] == [None, None, None]
    assert values["memory"]["1"]["verdict"] is None
