"""The lengths of rows: those of the token sets, or an estimate from the texts."""

from pathlib import Path

import numpy as np
import pytest

from dstrain.errors import UserError
from dstrain.forecast.lengths import SPECIAL_TOKENS, estimate_lengths, exact_lengths
from dstrain.forecast.prepared import find_prepared
from dstrain.run.prepare import prepare_ahead
from tests.unit.forecast.forecast_cases import build_recipe


def test_token_sets_are_taken_as_they_are(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    prepare_ahead(config, beat=lambda _: None)
    found = find_prepared(config, cache=tmp_path / "cache")
    assert found is not None
    lengths = exact_lengths(config, found=found)
    assert lengths.is_exact
    assert lengths.fingerprint == found.train.fingerprint
    assert np.array_equal(lengths.source, found.train.source_lengths)
    assert np.array_equal(lengths.eval_target, found.eval.target_lengths)


def test_an_estimate_has_all_rows_and_lengths_of_about_the_texts(tmp_path: Path) -> None:
    lengths = estimate_lengths(build_recipe(tmp_path, num_rows=5000))
    assert not lengths.is_exact
    assert (len(lengths.source), len(lengths.target), len(lengths.eval_source)) == (5000, 5000, 40)
    assert lengths.source[0] == round(len("row number 0 ") / 3) + SPECIAL_TOKENS
    assert lengths.source[4] > lengths.source[0]


def test_limits_and_repeats_count(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, task__max_source_tokens=7)
    assert estimate_lengths(config).source.max() == 7
    path = str(tmp_path / "train.tsv")
    twice = build_recipe(tmp_path, data__train=[{"path": path, "repeat": 2}])
    assert len(estimate_lengths(twice).source) == 600


def test_sources_are_mixed_as_the_recipe_says(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{name}.tsv") for name in ("train", "eval")]
    config = build_recipe(tmp_path, data__train=[{"path": path, "weight": 1.0} for path in paths])
    mixture = estimate_lengths(config).mixture
    assert mixture is not None
    assert mixture.counts == (170, 170)


def test_pointers_are_a_token_each(tmp_path: Path) -> None:
    parse = "[IN:CALL [SL:WHO mom ] ]"
    for name in ("train", "eval"):
        (tmp_path / f"{name}.tsv").write_text(f"call mom\t{parse}\n")
    config = build_recipe(tmp_path)
    for name in ("train", "eval"):
        (tmp_path / f"{name}.tsv").write_text(f"call mom\t{parse}\n")
    parsing = config.model_copy(update={"task": config.task.model_copy(update={"kind": "parsing"})})
    assert estimate_lengths(parsing).target.tolist() == [5 + SPECIAL_TOKENS]


def test_what_cannot_be_counted_is_said_with_the_way_out(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    source = config.data.train[0].model_copy(update={"path": None, "hub": "owner/name"})
    hub = config.model_copy(update={"data": config.data.model_copy(update={"train": (source,)})})
    with pytest.raises(UserError, match="`owner/name` lie on the Hub: run `dstrain prepare`"):
        estimate_lengths(hub)
    (tmp_path / "train.tsv").write_text("\n\n")
    with pytest.raises(UserError, match="no usable row among its first"):
        estimate_lengths(config)
