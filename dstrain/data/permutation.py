"""A keyed permutation of row numbers, any part of which is computed on its own. Knows nothing of what a row is.

A generalised Feistel network with cycle walking (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA
2002): the row in place i of an epoch costs some arithmetic and no memory, however many rows there are.
"""

import hashlib
import json
import math

import numpy as np
import numpy.typing as npt

NUM_ROUNDS = 6
"""Four rounds make a Feistel network look random (Luby & Rackoff 1988); two more for small domains."""

CHUNK = 1 << 14
"""Numbers permuted together: the intermediate arrays stay in the processor's cache."""

UInt64Array = npt.NDArray[np.uint64]


def permutation_keys(fingerprint: str, *, seed: int, epoch: int, window: int | None = None) -> UInt64Array:
    """The round keys `[NUM_ROUNDS]` of the permutation that belongs to (fingerprint, seed, epoch), or to a window of it."""
    named = [fingerprint, seed, epoch] if window is None else [fingerprint, seed, epoch, window]
    digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=8 * NUM_ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(positions: npt.NDArray[np.int64], *, num_rows: int, keys: UInt64Array) -> npt.NDArray[np.int64]:
    """The row numbers `[n]`, below num_rows, that the permutation puts into the given places `[n]`."""
    permuted = np.empty(len(positions), dtype=np.uint64)
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        permuted[part] = _walk(positions[part].astype(np.uint64), num_rows=num_rows, keys=keys)
    return permuted.astype(np.int64)


def _walk(places: UInt64Array, *, num_rows: int, keys: UInt64Array) -> UInt64Array:
    # The network permutes a rectangle a little larger than num_rows: who lands outside goes round again. Every cycle
    # leads back inside, because it started there.
    width = math.isqrt(num_rows - 1) + 1
    height = -(-num_rows // width)
    permuted = _feistel(places, width=width, height=height, keys=keys)
    outside = np.flatnonzero(permuted >= num_rows)
    while len(outside):
        permuted[outside] = _feistel(permuted[outside], width=width, height=height, keys=keys)
        outside = outside[permuted[outside] >= num_rows]
    return permuted


def _feistel(places: UInt64Array, *, width: int, height: int, keys: UInt64Array) -> UInt64Array:
    columns, rows = np.divmod(places, np.uint64(height))
    for index, key in enumerate(keys):
        if index % 2 == 0:
            columns = _add(columns, _hash(rows, key=key), size=width)
        else:
            rows = _add(rows, _hash(columns, key=key), size=height)
    return columns * np.uint64(height) + rows


def _add(values: UInt64Array, noise: UInt64Array, *, size: int) -> UInt64Array:
    # Noise of 32 bits is brought below size by a multiplication, which is much faster than a remainder (Lemire 2019).
    total = values + ((noise * np.uint64(size)) >> np.uint64(32))
    return total - np.uint64(size) * (total >= size)


def _hash(values: UInt64Array, *, key: np.uint64) -> UInt64Array:
    # The finaliser of splitmix64 (Steele, Lea & Flood 2014); the upper 32 bits are the well mixed ones.
    mixed = values ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed >> np.uint64(32)
