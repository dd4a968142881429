"""How sure a score is: its 95 % interval, and the difference of two scores on the same rows with its interval and p. No torch.

Everything is computed from row statistics, by sacreBLEU's paired bootstrap (Koehn 2004): rows are drawn with replacement, as
many as there are, 1,000 times. Seed, draws and rounding are those of sacreBLEU's program, and so are the intervals and p of BLEU,
chrF and TER, to the last digit. Every other score is the mean of its rows; its p is that of flipped signs (Fisher 1935).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF, TER

from dstrain.config.metrics import is_of_set
from dstrain.errors import UserError

SEED, NUM_SAMPLES, NUM_FLIPS = 12345, 1000, 10_000
"""sacreBLEU's own, whatever SACREBLEU_SEED says; and how often the signs of the differences are flipped."""
ALPHA = 0.05
"""What a p lies below, and a 95 % interval leaves out."""

_NUMBERS_AT_ONCE = 1 << 22
_WHOLE_IN_FLOAT32 = 1 << 24

Numbers = NDArray[Any]
Rows = Sequence[Sequence[float]]

# `force` only silences a warning; the tokenizer plays no part once the n-grams are counted
_SACREBLEU: Mapping[str, Any] = {"bleu": BLEU(tokenize="none", force=True), "chrf": CHRF(), "ter": TER()}
_WIDTHS = {"bleu": 10, "chrf": 18, "ter": 2}


@dataclass(frozen=True, slots=True)
class Difference:
    """The score of one system less that of another, over the same rows."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    p: float
    """How likely a difference as large is if both are equally good, from 0 to 1."""
    test: str
    """How `p` was found."""

    @property
    def is_tie(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0.0 <= self.high


def find_intervals(statistics: Mapping[str, Rows]) -> dict[str, float]:
    """Half the 95 % interval of each score; `39.5 ± 0.9` has 0.9.

    Raises:
        UserError: the numbers of a score are not those that it is computed from.
    """
    return {metric: _half_width(scores) for metric, scores in _resample(statistics).items()}


def find_difference(metric: str, *, first: Rows, second: Rows) -> Difference:
    """`second` less `first` in a score of the same rows.

    Raises:
        UserError: the numbers are not those that the score is computed from.
        ValueError: there are not as many rows on both sides.
    """
    if len(first) != len(second):
        raise ValueError(f"rows must be the same: found {len(first)} and {len(second)}")
    base = _base(metric)
    sampled = [_resample({metric: rows})[metric] for rows in (first, second)]
    differences = np.sort(sampled[1] - sampled[0])
    low, high = (float(differences[place]) for place in _ends(len(differences)))
    if base in _SACREBLEU:
        value = _corpus_score(base, second) - _corpus_score(base, first)
        return Difference(value, low, high, _bootstrap_p(*sampled, difference=value), f"bs:{NUM_SAMPLES}|seed:{SEED}")
    by_row = (_matrix(metric, second) - _matrix(metric, first))[:, 0]
    p, test = flip_p(by_row)
    return Difference(float(by_row.mean()), low, high, p, test)


def flip_p(differences: Numbers) -> tuple[float, str]:
    """How likely a mean as far from 0 is if each difference might as well have the other sign; and how that was found.

    It is exact where every row wins, loses or ties alike, as exact matches do: McNemar's test with binomial probabilities.
    """
    signs = np.sign(differences)
    size = np.abs(differences).max(initial=0.0)
    if np.array_equal(signs * size, differences):
        return _binomial_p(int((signs > 0).sum()), int((signs < 0).sum())), "McNemar, exact"
    generator, observed = np.random.default_rng(SEED), abs(float(differences.sum()))
    block = max(1, _NUMBERS_AT_ONCE // len(differences))
    reached, rounding = 0, 1e-9 * float(np.abs(differences).sum())
    for start in range(0, NUM_FLIPS, block):
        keep = generator.integers(2, size=(min(block, NUM_FLIPS - start), len(differences)), dtype=bool)
        sums = 2.0 * (keep @ differences) - differences.sum()
        reached += int((np.abs(sums) >= observed - rounding).sum())
    return (reached + 1) / (NUM_FLIPS + 1), f"flips:{NUM_FLIPS}|seed:{SEED}"


def _binomial_p(wins: int, losses: int) -> float:
    num = wins + losses
    logs = (math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(min(wins, losses) + 1))
    return min(1.0, 2.0 * math.fsum(math.exp(log - num * math.log(2.0)) for log in logs))


def _bootstrap_p(first: Numbers, second: Numbers, *, difference: float) -> float:
    """sacreBLEU's, operation by operation, because chrF and TER are computed in float32."""
    distances = np.abs(second - first)
    reached = int(np.sum(distances - distances.mean() > abs(difference)))
    return (reached + 1) / (len(distances) + 1)


def _resample(statistics: Mapping[str, Rows]) -> dict[str, Numbers]:
    """The scores of the drawn samples, by score; the same rows are drawn for scores of as many rows."""
    matrices = {metric: _matrix(metric, rows) for metric, rows in statistics.items() if rows}
    found: dict[str, Numbers] = {}
    for num_rows in dict.fromkeys(map(len, matrices.values())):
        alike = {metric: matrix for metric, matrix in matrices.items() if len(matrix) == num_rows}
        sums = _sums(np.hstack(list(alike.values())))
        ends = np.cumsum([matrix.shape[1] for matrix in alike.values()])[:-1]
        for (metric, matrix), of_metric in zip(alike.items(), np.split(sums, ends, axis=1), strict=True):
            found[metric] = _scores(metric, matrix, of_metric)
    return {metric: found[metric] for metric in matrices}


def _scores(metric: str, matrix: Numbers, sums: Numbers) -> Numbers:
    base = _base(metric)
    if base not in _SACREBLEU:
        return sums[:, 0] / len(matrix)
    compute: Callable[[Numbers], Any] = _SACREBLEU[base]._compute_score_from_stats
    return np.array([compute(each).score for each in _as_float32(matrix, sums)])


def _as_float32(matrix: Numbers, sums: Numbers) -> Numbers:
    """The sums as sacreBLEU has them, which adds up row by row in float32."""
    if np.array_equal(matrix, np.rint(matrix)) and sums.max() <= _WHOLE_IN_FLOAT32:
        return sums.astype(np.float32)  # whole numbers of that size are exact in any order
    rows = matrix.astype(np.float32)
    return np.array([rows[drawn].sum(0) for block in _draws(len(rows)) for drawn in block])


def _sums(matrix: Numbers) -> Numbers:
    """The column sums of each sample, `[samples, columns]`, by how often it has each row."""
    num_rows = len(matrix)

    def count(block: Numbers) -> Numbers:
        numbered = block + num_rows * np.arange(len(block))[:, None]
        counts: Numbers = np.bincount(numbered.ravel(), minlength=len(block) * num_rows).reshape(len(block), num_rows)
        return counts.astype(np.float64)

    return np.vstack([count(block) @ matrix for block in _draws(num_rows)])


def _draws(num_rows: int) -> Iterator[Numbers]:
    """Row numbers of the samples, `[samples, rows]`, in blocks that fit into memory: those that sacreBLEU draws at once."""
    generator = np.random.default_rng(SEED)
    block = max(1, _NUMBERS_AT_ONCE // num_rows)
    for start in range(0, NUM_SAMPLES, block):
        yield generator.choice(num_rows, size=(min(block, NUM_SAMPLES - start), num_rows), replace=True)


def _half_width(scores: Numbers) -> float:
    ordered = np.sort(scores)
    low, high = _ends(len(ordered))
    return float(0.5 * (ordered[high] - ordered[low]))


def _ends(num_samples: int) -> tuple[int, int]:
    """Places of the ends of the 95 % interval among the samples in order."""
    return num_samples // 40, num_samples - num_samples // 40 - 1


def _corpus_score(base: str, rows: Rows) -> float:
    return float(_SACREBLEU[base]._aggregate_and_compute([list(row) for row in rows]).score)


def _matrix(metric: str, rows: Rows) -> Numbers:
    width = _WIDTHS.get(_base(metric), 1)
    if any(len(row) != width for row in rows):
        raise UserError(f"row statistics of `{metric}` must have {width} numbers a row: score the rows again")
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _base(metric: str) -> str:
    """The metric of a score, which may be that of an evaluation set."""
    return metric.rpartition("/")[2] if is_of_set(metric) else metric
