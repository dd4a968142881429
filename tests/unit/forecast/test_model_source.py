"""What is known of a model before it is built: by the recipe, by files here, and what is said where nothing is."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.forecast.model_source import find_model
from tests.unit.models.stock_families import BUILDERS

ROWS = 480


def saved(folder: Path, family: str, **options: Any) -> Any:
    """A model folder as transformers writes it, and the model."""
    model = BUILDERS[family](ROWS)
    model.save_pretrained(folder, **options)
    return model


def count(model: Any) -> int:
    return sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize(
    "family", ["bart", "pegasus", "umt5", "byt5", "plbart", "blenderbot", "longt5", "led", "t5gemma"]
)
def test_a_folder_says_how_many_parameters_its_model_has(family: str, tmp_path: Path) -> None:
    model = saved(tmp_path, family)
    facts = find_model(Model(name=str(tmp_path)), vocabulary_size=10)
    assert sum(weight.numel for weight in facts.weights) == count(model)
    assert facts.is_exact
    assert (facts.architecture is None) == (family in ("longt5", "led", "t5gemma"))


def test_a_model_in_several_files_is_read_by_its_index(tmp_path: Path) -> None:
    model = saved(tmp_path, "t5gemma", max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    facts = find_model(Model(name=str(tmp_path)))
    assert sum(weight.numel for weight in facts.weights) == count(model)


def test_embeddings_grow_to_what_the_tokenizer_needs_and_never_shrink(tmp_path: Path) -> None:
    saved(tmp_path, "bart")
    rows = [
        find_model(Model(name=str(tmp_path)), vocabulary_size=size).architecture.vocabulary  # type: ignore[union-attr]
        for size in (ROWS - 9, ROWS + 9)
    ]
    assert rows == [ROWS, ROWS + 9]
    seen = find_model(Model(name=str(tmp_path)), vocabulary_size=ROWS, num_kept=77).architecture
    assert seen is not None
    assert seen.vocabulary == 77


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    asked = []

    class Broken(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from dstrain.config.recipe import Model; from dstrain.forecast.model_source import find_model; "
        "find_model(Model(name='owner/name'))"
    )
    places = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **places}, check=False)
    server.shutdown()
    server.server_close()
    assert "UserError: model.name: the config.json of `owner/name` is neither here nor can it be had" in found.stderr
    assert "Retrying" not in found.stderr
    assert len(asked) == 1


def test_a_scratch_model_without_a_tokenizer_yet_is_about_as_large() -> None:
    model = Model.model_validate({"scratch": {"architecture": "m2m100", "vocabulary_size": 1000}})
    facts = find_model(model)
    assert not facts.is_exact
    assert "with about 1,100 token ids: `dstrain prepare`" in facts.origin
    assert find_model(model, vocabulary_size=1111).is_exact


def test_a_model_that_is_nowhere_is_refused_with_the_ways_out() -> None:
    with pytest.raises(UserError, match=r"config.json of `nobody/nothing` is neither here .*--parameters N"):
        find_model(Model(name="nobody/nothing"))
    facts = find_model(Model(name="nobody/nothing"), num_parameters=10**9)
    assert sum(weight.numel for weight in facts.weights) == 10**9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 20), "not a readable safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "not a readable safetensors file"),
    ],
)
def test_damaged_files_are_named(change: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    saved(tmp_path, "led")
    change(tmp_path)
    with pytest.raises(UserError, match=message):
        find_model(Model(name=str(tmp_path)))


def test_a_header_that_lies_about_shapes_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "led")
    header = json.dumps({"x": {"dtype": "F32", "shape": ["wide"], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="not a readable safetensors file"):
        find_model(Model(name=str(tmp_path)))


def test_an_unknown_family_without_weights_needs_a_number(tmp_path: Path) -> None:
    model = saved(tmp_path, "led")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"the sizes of .* \(`led`\) are not known.*--parameters N"):
        find_model(Model(name=str(tmp_path)))
    save_file({"encoder.fc1.weight": model.get_encoder().layers[0].fc1.weight.data}, tmp_path / "model.safetensors")
    assert find_model(Model(name=str(tmp_path))).kind == "led"
