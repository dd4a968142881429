"""Real positions over padded ones, on both sides: exact, by arithmetic on drawn lengths and on those of real data."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dstrain.data.cuts import Cut, padded_tokens
from dstrain.data.plan import WINDOW_ROWS, Plan, Position

DEFAULT = Cut(micro_batch_tokens=8192)
WHOLE = Cut(micro_batch_tokens=1 << 40)
MTOP_ROWS = 15_667

Sides = npt.NDArray[np.int32]


@cache
def _draw(kind: str, *, num_rows: int) -> Sides:
    """Source and target lengths `[2, rows]`, log-normal: medians, spreads and correlation of real data of both kinds."""
    medians, spreads, correlation = {
        "translation": ((22.0, 20.0), (0.6, 0.6), 0.8),
        "parsing": ((12.0, 22.0), (0.38, 0.45), 0.6),
    }[kind]
    drawn = np.random.default_rng(11).standard_normal((2, num_rows))
    drawn[1] = correlation * drawn[0] + np.sqrt(1 - correlation**2) * drawn[1]
    lengths = np.asarray(medians)[:, None] * np.exp(np.asarray(spreads)[:, None] * drawn)
    return np.clip(np.rint(lengths), 3, 256).astype(np.int32)


def _plan(sides: Sides, *, epoch_rows: int | None = None, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"batch_size": 4096, "batch_unit": "target_tokens", "cut": DEFAULT}
    return Plan(*sides[:, :epoch_rows], fingerprint="lengths", seed=1, **settings | changes)


def _efficiency(plan: Plan, *, epoch: int = 0, max_steps: int = 1 << 40) -> tuple[float, float]:
    """Of source and of target positions, over the steps of an epoch, or over so many spread evenly in it."""
    num_steps = plan.num_steps(epoch)
    real, padded = np.zeros(2), np.zeros(2)
    for step in np.linspace(0, num_steps - 1, min(num_steps, max_steps)).astype(int):
        for piece in plan.step(Position(epoch, int(step))).micro_batches:
            sides = np.stack([plan.source_lengths[piece], plan.target_lengths[piece]])
            real += sides.sum(axis=1)
            padded += len(piece) * sides.max(axis=1)
    source, target = (real / padded).tolist()
    return source, target


@pytest.mark.parametrize("cut", [DEFAULT, WHOLE], ids=["default budget", "one micro-batch a step"])
@pytest.mark.parametrize("kind", ["translation", "parsing"])
def test_of_4096_target_tokens_a_step_95_positions_in_100_are_real_on_both_sides(kind: str, cut: Cut) -> None:
    plan = _plan(_draw(kind, num_rows=WINDOW_ROWS), cut=cut)
    for epoch in (0, 1):
        assert min(_efficiency(plan, epoch=epoch)) >= 0.95


@pytest.mark.parametrize("batch_size", [1000, 16_384, 262_144])
@pytest.mark.parametrize("kind", ["translation", "parsing"])
def test_larger_and_smaller_steps_have_as_little_padding(kind: str, batch_size: int) -> None:
    plan = _plan(_draw(kind, num_rows=WINDOW_ROWS), batch_size=batch_size)
    assert min(_efficiency(plan, max_steps=300)) >= 0.95


@pytest.mark.parametrize(("kind", "floor"), [("translation", 0.86), ("parsing", 0.87)])
def test_few_rows_have_few_of_like_length_and_still_little_padding(kind: str, floor: float) -> None:
    sides = _draw(kind, num_rows=WINDOW_ROWS)
    for epoch in (0, 1, 2):
        assert min(_efficiency(_plan(sides, epoch_rows=MTOP_ROWS), epoch=epoch)) >= floor


@pytest.mark.parametrize("micro_batch_tokens", [2048, 8192, 32_768])
@pytest.mark.parametrize("batch_size", [256, 512])
@pytest.mark.parametrize("kind", ["translation", "parsing"])
def test_steps_of_sequences_have_less_padding_than_those_sorted_by_target(
    kind: str, batch_size: int, micro_batch_tokens: int
) -> None:
    sides = _draw(kind, num_rows=60_000)
    cut = Cut(micro_batch_tokens)
    plan = _plan(sides, batch_size=batch_size, batch_unit="sequences", cut=cut)
    found = sorted_by_target = 0
    for number in range(40):
        step = plan.step(Position(0, number))
        found += sum(padded_tokens(*sides[:, piece]) for piece in step.micro_batches)
        sorted_by_target += _padded_by_target(sides[:, step.rows], max_tokens=micro_batch_tokens)
    assert found < sorted_by_target


@pytest.mark.parametrize(("batch_size", "share"), [(16, 0.65), (128, 0.25), (512, 0.125)])
@pytest.mark.parametrize("kind", ["translation", "parsing"])
def test_cutting_a_step_of_sequences_where_it_pays_leaves_little_of_its_padding(
    kind: str, batch_size: int, share: float
) -> None:
    sides = _draw(kind, num_rows=60_000)
    plan = _plan(sides, batch_size=batch_size, batch_unit="sequences")
    found = whole = real = 0
    for number in range(100):
        step = plan.step(Position(0, number))
        found += sum(
            padded_tokens(*sides[:, piece]) + plan.cut.micro_batch_overhead for piece in step.micro_batches[1:]
        )
        found += padded_tokens(*sides[:, step.micro_batches[0]])
        whole += padded_tokens(*sides[:, step.rows])
        real += int(sides[:, step.rows].sum())
    assert found - real < share * (whole - real)


def _padded_by_target(sides: Sides, *, max_tokens: int) -> int:
    ordered = sides[:, np.lexsort((-sides[0], -sides[1]))]
    padded = start = 0
    for stop in range(1, ordered.shape[1] + 1):
        if stop == ordered.shape[1] or padded_tokens(*ordered[:, start : stop + 1]) > max_tokens:
            padded += padded_tokens(*ordered[:, start:stop])
            start = stop
    return padded


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "floor"), [("mtop/train.tsv", 0.88), ("ko_en/python_docs.train.tsv", 0.93)])
def test_real_rows_have_little_padding_on_both_sides(real_data: Path, name: str, floor: float) -> None:
    rows = [line.split("\t") for line in (real_data / name).read_text(encoding="utf-8").splitlines()]
    # four letters and a mark are about as long as the pieces of a subword vocabulary
    pieces = re.compile(r"\w{1,4}|\S")
    sides = np.asarray([[len(pieces.findall(row[side])) + 1 for row in rows] for side in (0, 1)], dtype=np.int32)
    plan = _plan(np.minimum(sides, 256))
    for epoch in (0, 1):
        assert min(_efficiency(plan, epoch=epoch)) >= floor
