"""The array types: what the room's functions return has the type that their annotations say."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np

from dstrain.data.arrays import Ids, Lengths, Rows, UInt64Array
from dstrain.data.permutation import permutation_keys, permute
from dstrain.data.tokens import TokenSet


def dtype_of(alias: Any) -> type:
    (dtype,) = get_args(get_args(alias)[1])
    return dtype


def test_a_token_sets_arrays_have_the_declared_types(
    build_tokens: Callable[[Sequence[tuple[int, int]]], TokenSet],
) -> None:
    tokens = build_tokens([(3, 4), (2, 2)])
    assert tokens.source(0).dtype == tokens.target(1).dtype == dtype_of(Ids)
    assert issubclass(tokens.target_lengths.dtype.type, dtype_of(Lengths))


def test_a_permutation_has_the_declared_types() -> None:
    keys = permutation_keys("data", seed=1, epoch=0)
    assert keys.dtype == dtype_of(UInt64Array)
    assert permute(np.arange(5), num_rows=9, keys=keys).dtype == dtype_of(Rows)
