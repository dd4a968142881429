"""Builds the padded tensors of a micro-batch from token ids. Knows nothing of files, plans or ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dstrain.data.arrays import Ids, Rows
from dstrain.data.vocabulary import IGNORED, WHOLE, Vocabulary


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The tensors of one forward pass, all int64.

    source_ids and source_mask are `[batch, source]`, decoder_ids and labels `[batch, target]`; labels are IGNORED at
    padding. weight is 0.0 for a filler, which takes part in collective operations but adds nothing to the gradient. index
    is the number of the micro-batch in its step, which seeds its dropout; a filler has the index of the micro-batch that
    it copies. rows `[batch]` are row numbers in the token set, on the host.
    """

    source_ids: torch.Tensor
    source_mask: torch.Tensor
    decoder_ids: torch.Tensor
    labels: torch.Tensor
    weight: float
    index: int
    rows: Rows

    def to(self, device: torch.device | str) -> "MicroBatch":
        """The same micro-batch with its tensors on device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """The same micro-batch in page-locked memory, from which a GPU copies while the host continues."""
        return self._each(lambda tensor: tensor.pin_memory())

    def part(self, rows: slice) -> "MicroBatch":
        """Some of the rows, padded to the same width as all of them."""
        return replace(self._each(lambda tensor: tensor[rows]), rows=self.rows[rows])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "MicroBatch":
        return replace(
            self,
            source_ids=change(self.source_ids),
            source_mask=change(self.source_mask),
            decoder_ids=change(self.decoder_ids),
            labels=change(self.labels),
        )


def collate(
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    *,
    pad_id: int,
    decoder_start_id: int | None,
    weight: float = 1.0,
    index: int = 0,
    rows: Rows | None = None,
    vocabulary: Vocabulary = WHOLE,
) -> MicroBatch:
    """The micro-batch of these rows, padded on the right to the longest of each side.

    Decoder inputs are the labels shifted right by one, after decoder_start_id; if that is None, after each row's last
    label, as in mBART-cc25 (`shift_tokens_right` in transformers' modeling_mbart.py). Without `rows`, rows are numbered
    from 0. Tensors hold the rows that the ids have in `vocabulary`, as pad_id and decoder_start_id do; a label without a row is
    IGNORED.
    """
    source_ids, source_mask = pad_sources(sources, pad_id=pad_id, vocabulary=vocabulary)
    labels, target_mask = _pad(targets, value=IGNORED, convert=vocabulary.labels)
    read, _ = _pad(targets, value=pad_id, convert=vocabulary.inputs)
    decoder_ids = np.full_like(labels, pad_id)
    # only real labels are copied, so that a row's last one is not read
    decoder_ids[:, 1:][target_mask[:, 1:]] = read[:, :-1][target_mask[:, 1:]]
    last_labels = read[np.arange(len(read)), target_mask.sum(axis=1) - 1]
    decoder_ids[:, 0] = last_labels if decoder_start_id is None else decoder_start_id
    return MicroBatch(
        source_ids=source_ids,
        source_mask=source_mask,
        decoder_ids=torch.from_numpy(decoder_ids),
        labels=torch.from_numpy(labels),
        weight=weight,
        index=index,
        rows=np.arange(len(sources), dtype=np.int64) if rows is None else rows,
    )


def pad_sources(
    sources: Sequence[Ids], *, pad_id: int, vocabulary: Vocabulary = WHOLE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and their mask, int64 `[batch, source]`, padded on the right. Ids become rows, as in `collate`."""
    ids, mask = _pad(sources, value=pad_id, convert=vocabulary.inputs)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _pad(
    rows: Sequence[Ids], *, value: int, convert: Callable[[Ids], Ids]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    lengths = np.asarray([len(row) for row in rows])
    assert lengths.min() > 0, "a row without tokens has no end-of-sequence token either"
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full(mask.shape, value, dtype=np.int64)
    padded[mask] = convert(np.concatenate(rows))
    return padded, mask
