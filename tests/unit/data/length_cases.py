"""Rows as pairs of source and target length, and ways to cut them, for the tests of this room."""

import numpy as np
from hypothesis import strategies as st

from dstrain.data.arrays import Lengths
from dstrain.data.cuts import Cut

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=120)
CUTS = st.builds(
    Cut,
    micro_batch_tokens=st.integers(1, 600),
    micro_batch_size=st.none() | st.integers(1, 20),
    min_micro_batches=st.integers(1, 9),
    micro_batch_overhead=st.integers(0, 200),
)


def build_arrays(lengths: list[tuple[int, int]]) -> tuple[Lengths, Lengths]:
    """Source and target lengths as int32, the type that token sets have."""
    pairs = np.asarray(lengths, dtype=np.int32)
    return pairs[:, 0], pairs[:, 1]
