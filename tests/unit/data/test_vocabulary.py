"""Ids to the rows of a model that has not all of them, and back."""

import numpy as np
import pytest

from dstrain.data.collate import collate
from dstrain.data.vocabulary import IGNORED, WHOLE, Vocabulary

PAD, END, UNKNOWN = 1, 2, 3
KEPT = (0, PAD, END, UNKNOWN, 10, 20, 30)
VOCABULARY = Vocabulary(KEPT, unknown_id=UNKNOWN)


def ids(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def test_rows_are_in_the_order_of_ids_and_lead_back_to_them() -> None:
    rows = VOCABULARY.inputs(ids(30, 10, END))
    assert rows.tolist() == [6, 4, 2]
    assert VOCABULARY.ids(rows.astype(np.int64)).tolist() == [30, 10, END]
    assert [VOCABULARY.id(VOCABULARY.row(each)) for each in KEPT] == list(KEPT)
    assert len(VOCABULARY) == len(KEPT)


def test_a_model_with_all_rows_has_each_id_in_the_row_of_its_number() -> None:
    given = ids(30, 999)
    assert WHOLE.is_whole
    assert WHOLE.inputs(given) is given
    assert WHOLE.labels(given) is given
    assert WHOLE.row(999) == WHOLE.id(999) == 999
    assert WHOLE.reading(given) is WHOLE


@pytest.mark.parametrize("absent", [4, 11, 29, 31, 250_000])
def test_an_id_without_a_row_is_read_as_unknown_and_never_predicted(absent: int) -> None:
    given = ids(10, absent, END)
    assert VOCABULARY.inputs(given).tolist() == [4, UNKNOWN, 2]
    assert VOCABULARY.labels(given).tolist() == [4, IGNORED, 2]
    assert VOCABULARY.lacks(ids(absent, 10, absent)).tolist() == [absent]
    with pytest.raises(KeyError):
        VOCABULARY.row(absent)


def test_further_ids_are_read_from_the_last_rows_and_still_not_predicted() -> None:
    reading = VOCABULARY.reading(ids(25, 10, 25, 40))
    assert reading.read_only == (25, 40)
    assert reading.inputs(ids(40, 25, 10, 11)).tolist() == [8, 7, 4, UNKNOWN]
    assert reading.labels(ids(40, 25, 10)).tolist() == [IGNORED, IGNORED, 4]
    assert reading.fingerprint == VOCABULARY.fingerprint


def test_the_fingerprint_is_that_of_the_ids() -> None:
    assert VOCABULARY.fingerprint == Vocabulary(KEPT).fingerprint
    assert VOCABULARY.fingerprint != Vocabulary((*KEPT[:-1], 31)).fingerprint


@pytest.mark.parametrize("decoder_start_id", [END, None])
def test_a_micro_batch_holds_rows(decoder_start_id: int | None) -> None:
    batch = collate(
        [ids(10, 20, END), ids(30, END)],
        [ids(20, 99, END), ids(10, END)],
        pad_id=VOCABULARY.row(PAD),
        decoder_start_id=decoder_start_id,
        vocabulary=VOCABULARY,
    )
    assert batch.source_ids.tolist() == [[4, 5, END], [6, END, PAD]]
    assert batch.labels.tolist() == [[5, IGNORED, END], [4, END, IGNORED]]
    # after a reference's token without a row the model reads the unknown one; mBART-cc25 begins with the last label
    assert batch.decoder_ids.tolist() == [[END, 5, UNKNOWN], [END, 4, PAD]]
