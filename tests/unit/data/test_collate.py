"""Collating: padding, masks and the shifted decoder input, against the plainest loops."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dstrain.data.collate import MicroBatch, collate

PAD_ID = 1
SOURCES = [[5, 6, 7, 2], [8, 2]]
TARGETS = [[9, 2], [4, 3, 8, 2], [2]]


def _arrays(rows: list[list[int]]) -> list[npt.NDArray[np.int32]]:
    return [np.asarray(row, dtype=np.int32) for row in rows]


def _collate(targets: list[list[int]], *, decoder_start_id: int | None = 2) -> MicroBatch:
    sources = [SOURCES[row % 2] for row in range(len(targets))]
    return collate(_arrays(sources), _arrays(targets), pad_id=PAD_ID, decoder_start_id=decoder_start_id)


def test_both_sides_are_padded_to_their_own_longest() -> None:
    batch = _collate(TARGETS)
    assert batch.source_ids.tolist() == [[5, 6, 7, 2], [8, 2, 1, 1], [5, 6, 7, 2]]
    assert batch.source_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[9, 2, -100, -100], [4, 3, 8, 2], [2, -100, -100, -100]]
    assert (batch.weight, batch.index) == (1.0, 0)
    tensors = (batch.source_ids, batch.source_mask, batch.decoder_ids, batch.labels)
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


@pytest.mark.parametrize("decoder_start_id", [0, 2, None])
def test_the_decoder_reads_what_comes_before_each_label(decoder_start_id: int | None) -> None:
    decoder_ids = _collate(TARGETS, decoder_start_id=decoder_start_id).decoder_ids.tolist()
    for row, target in zip(decoder_ids, TARGETS, strict=True):
        front = target[-1] if decoder_start_id is None else decoder_start_id
        assert row == [front, *target[:-1], *[PAD_ID] * (4 - len(target))]


def test_the_mark_of_ignored_labels_never_reaches_the_decoder() -> None:
    assert (_collate(TARGETS).decoder_ids >= 0).all()


def test_a_padding_token_inside_the_text_stays_visible() -> None:
    batch = collate(_arrays([[5, PAD_ID, 2]]), _arrays([[PAD_ID, 2]]), pad_id=PAD_ID, decoder_start_id=2)
    assert batch.source_mask.tolist() == [[1, 1, 1]]
    assert batch.labels.tolist() == [[PAD_ID, 2]]


def test_a_moved_batch_is_the_same_batch() -> None:
    rows = np.asarray([7, 4], dtype=np.int64)
    batch = collate(
        _arrays(SOURCES), _arrays(TARGETS[:2]), pad_id=1, decoder_start_id=2, weight=0.0, index=3, rows=rows
    )
    moved = batch.to("meta")
    assert (moved.weight, moved.index, moved.rows.tolist()) == (0.0, 3, [7, 4])
    assert moved.source_ids.device.type == moved.labels.device.type == "meta"
    assert moved.decoder_ids.shape == batch.decoder_ids.shape


def test_a_part_has_some_rows_of_the_whole_as_wide_as_before() -> None:
    batch = _collate(TARGETS)
    part = batch.part(slice(1, 3))
    assert part.rows.tolist() == [1, 2]
    for name in ("source_ids", "source_mask", "decoder_ids", "labels"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[1:3])
