"""Exported models: what is refused before anything is loaded, and the generation settings that they get."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dstrain.errors import UserError
from dstrain.run.export import export_checkpoint, generation_settings, load_run_tokenizer
from tests.unit.evaluation.evaluation_cases import END, LANGUAGES, WordTokenizer, build_model
from tests.unit.run.run_cases import build_config, write_run


def test_a_folder_that_exists_is_never_written_over(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="model exists already: give another folder, or remove it"):
        export_checkpoint(folder, directory=folder.checkpoints / "step-00000001.lease-1", to=tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def test_a_missing_tokenizer_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokenizer is missing: restore it, or start the run again"):
        load_run_tokenizer(write_run(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_new_tokens": 12}, {"num_beams": 1, "max_new_tokens": 12}),
        ({"max_new_tokens": None}, {"num_beams": 1, "max_new_tokens": 9 + 8}),  # the longest reference and a margin
        (
            {"max_new_tokens": 12, "num_beams": 3, "length_penalty": 2.0},
            {"num_beams": 3, "max_new_tokens": 12, "length_penalty": 2.0},
        ),
    ],
)
def test_an_exported_model_generates_as_it_was_scored(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    config = build_config(**{f"evaluation__{key}": value for key, value in changes.items()})
    tokenizer: Any = WordTokenizer()
    tokens: Any = SimpleNamespace(target_lengths=np.array([4, 9, 7], dtype=np.int32))
    found = dict(generation_settings(build_model("m2m100"), config=config, tokenizer=tokenizer, tokens=tokens))
    assert found == expected | {"decoder_start_token_id": END, "forced_bos_token_id": LANGUAGES["en"]}
