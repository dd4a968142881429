"""The record beside a converted model."""

import json
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.run_folder.converted import Conversion, Cost, find_converted, read_conversion, write_conversion

COST = Cost("exact_match", plain=0.604, quantized=0.6022, num_rows=2235, num_beams=4, computed_in="int8_float32")


@pytest.mark.parametrize("cost", [None, COST])
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, cost: Cost | None) -> None:
    written = Conversion("4.8.5", "int8", num_proved=64, cost=cost)
    write_conversion(tmp_path, written)
    assert read_conversion(tmp_path) == written
    assert json.loads((tmp_path / "dstrain.json").read_text())["num_proved"] == 64


def test_a_model_is_converted_if_the_folder_has_the_weights(tmp_path: Path) -> None:
    assert find_converted(tmp_path) is None
    (tmp_path / "ctranslate2").mkdir()
    assert find_converted(tmp_path) is None
    (tmp_path / "ctranslate2" / "model.bin").touch()
    assert find_converted(tmp_path) == tmp_path / "ctranslate2"


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "not JSON"), (b'{"version": "4"}', "quantization: Field required")]
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "dstrain.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"dstrain\.json: {message}"):
        read_conversion(tmp_path)
