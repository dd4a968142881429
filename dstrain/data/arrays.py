"""The types of the arrays that this room's modules pass to each other. Holds no code."""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
"""Token ids of one text `[tokens]`."""

Rows = npt.NDArray[np.int64]
"""Row numbers, or positions in an array of rows."""

Lengths = npt.NDArray[np.signedinteger]
"""Token counts by row `[rows]`; of both sides `[2, rows]`, source before target."""

UInt64Array = npt.NDArray[np.uint64]
"""Keys and intermediate values of the keyed permutation."""
