"""A keyed permutation of row numbers of which any part can be computed alone. Knows nothing of what a row is.

A generalised Feistel network with cycle walking (Black & Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA
2002): finding the row at position i of an epoch takes some arithmetic and no memory, however many rows there are.
"""

import hashlib
import json
import math

import numpy as np

from dstrain.data.arrays import Rows, UInt64Array

NUM_ROUNDS = 6
"""Four rounds make a Feistel network pseudorandom (Luby & Rackoff 1988); two more serve small domains."""

CHUNK = 1 << 14
"""Numbers permuted together, so that the intermediate arrays stay in the processor's cache."""


def permutation_keys(fingerprint: str, *, seed: int, epoch: int, window: int | None = None) -> UInt64Array:
    """The round keys `[NUM_ROUNDS]` for (fingerprint, seed, epoch), or for one window of that epoch."""
    named = [fingerprint, seed, epoch] if window is None else [fingerprint, seed, epoch, window]
    digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=8 * NUM_ROUNDS).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def permute(positions: Rows, *, num_rows: int, keys: UInt64Array) -> Rows:
    """The row numbers `[n]`, all below num_rows, at these positions `[n]` of the permuted order."""
    permuted = np.empty(len(positions), dtype=np.uint64)
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        permuted[part] = _walk(positions[part].astype(np.uint64), num_rows=num_rows, keys=keys)
    return permuted.astype(np.int64)


def _walk(positions: UInt64Array, *, num_rows: int, keys: UInt64Array) -> UInt64Array:
    # The network permutes a rectangle slightly larger than num_rows; results outside are permuted again (cycle walking).
    # This ends, because a permutation's cycle leads back to its start, which is inside.
    width = math.isqrt(num_rows - 1) + 1
    height = -(-num_rows // width)
    permuted = _feistel(positions, width=width, height=height, keys=keys)
    outside = np.flatnonzero(permuted >= num_rows)
    while len(outside):
        permuted[outside] = _feistel(permuted[outside], width=width, height=height, keys=keys)
        outside = outside[permuted[outside] >= num_rows]
    return permuted


def _feistel(positions: UInt64Array, *, width: int, height: int, keys: UInt64Array) -> UInt64Array:
    columns, rows = np.divmod(positions, np.uint64(height))
    for index, key in enumerate(keys):
        if index % 2 == 0:
            columns = _add(columns, _hash(rows, key=key), size=width)
        else:
            rows = _add(rows, _hash(columns, key=key), size=height)
    return columns * np.uint64(height) + rows


def _add(values: UInt64Array, noise: UInt64Array, *, size: int) -> UInt64Array:
    # 32 bits of noise are scaled below size by a multiplication, which is much faster than a remainder (Lemire 2019)
    total = values + ((noise * np.uint64(size)) >> np.uint64(32))
    return total - np.uint64(size) * (total >= size)


def _hash(values: UInt64Array, *, key: np.uint64) -> UInt64Array:
    # the finaliser of splitmix64 (Steele, Lea & Flood 2014); its upper 32 bits are the best mixed
    mixed = values ^ key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed >> np.uint64(32)
