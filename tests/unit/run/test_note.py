"""What is noted of a recipe's tokens, for `dstrain plan`."""

from pathlib import Path

import pytest

from dstrain.forecast.prepared import find_prepared
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run.prepare import prepare
from tests.unit.forecast.forecast_cases import build_recipe
from tests.unit.run.run_cases import CPU


@pytest.mark.parametrize("vocabulary", ["full", "seen"])
def test_a_run_notes_what_it_reads(vocabulary: str, tmp_path: Path) -> None:
    config = build_recipe(tmp_path, model__vocabulary=vocabulary)
    prepared = prepare(config, ranks=CPU)
    found = find_prepared(config, cache=tmp_path / "cache")
    assert found is not None
    assert found.note.vocabulary_size == prepared.tokenizer.vocabulary_size
    assert found.note.num_kept == (None if prepared.vocabulary.is_whole else len(prepared.vocabulary))
    assert found.note.num_new == 0
    tokenizer = load_tokenizer(str(tmp_path / "runs" / "test" / "tokenizer"))
    assert tokenizer.pad_token_id in found.note.special_ids
