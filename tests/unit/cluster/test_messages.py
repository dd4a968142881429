"""Everything that ranks exchange comes back from JSON as it was; what is no such JSON is refused with the rank that sent it."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.manifest import FileEntry
from dstrain.checkpoint.pending import PendingEvaluation
from dstrain.checkpoint.resume import Change, Resume
from dstrain.checkpoint.saver import SaveOutcome
from dstrain.checkpoint.state import RunState
from dstrain.cluster.messages import decode, encode
from dstrain.config.machine import Machine
from dstrain.engine.faults import FaultCause
from dstrain.errors import UserError
from dstrain.evaluation.generate import BatchResult, Hypothesis
from dstrain.run_folder.record import QuarantinedRow
from dstrain.training.hooks.deferred import ScoredElsewhere

STATE = RunState(7, 1, 2, {"tokens": 8192}, {"train": "abc"}, hooks={"quarantine": {"losses": [1.5, math.inf]}})
SENT: list[tuple[Any, Any]] = [
    (None, list[BatchResult] | None),
    ([BatchResult(3, 1.25, 9, (Hypothesis(4, (5, 6), 2, False),))], list[BatchResult] | None),
    ([FileEntry("weights-00000.safetensors", 12, "0" * 64)], list[FileEntry] | str),
    ("rank 1: no space", list[FileEntry] | str),
    ((Path("runs/한국어/checkpoints"), None), tuple[Path | None, str | None]),
    (SaveOutcome(7, Path("runs/x")), SaveOutcome),
    (Resume(Path("runs/x"), STATE, 2, (Change("seed", 1, None),)), Resume | None),
    (Machine(micro_batch_tokens=64, deepspeed={"zero_optimization": {"reduce_bucket_size": 5e8}}), Machine | str),
    (FaultCause({3: math.inf, 4: 2.5}, (1, 2), (0,), ("shared.weight",)), FaultCause),
    (
        ([QuarantinedRow(3, 7, "not finite", "a.tsv:4", "x\n\u2028", "\x1b[31m")], None),
        tuple[list[QuarantinedRow], str | None],
    ),
    (ScoredElsewhere({"step": 7, "scores": {"bleu": 0.1}}, [8]), ScoredElsewhere),
    (PendingEvaluation(7, 1), PendingEvaluation | None),
    ({"bleu": 1 / 3, "flores/bleu": 5e-324}, dict[str, float] | None),
]


@pytest.mark.parametrize(("value", "form"), SENT)
def test_what_ranks_exchange_comes_back_as_it_was(value: Any, form: Any) -> None:
    received = decode(encode(value, form) + b"  ", form, sender=0)
    assert received == value
    assert type(received) is type(value)


def test_a_loss_that_is_no_number_arrives_as_one() -> None:
    received = decode(encode(FaultCause({3: math.nan}), FaultCause), FaultCause, sender=0)
    assert math.isnan(received.rows[3])


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self._path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"rank 3 sent something else than was expected here \(as a whole: Invalid JSON"
    ):
        decode(pickle.dumps(Bomb(tmp_path / "ran")), SaveOutcome, sender=3)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (b'[{"step": "7", "directory": null}]', "step: Input should be a valid integer"),
        (b'[{"step": 7, "directory": 5}]', "directory: Input "),
        (b'[{"step": 7}]', "directory: Field required"),
        (b"[7]", "as a whole: Input should be an object"),
        (b"7", "as a whole: Input should be a valid array"),
        (b"[" * 100_000, "as a whole: Invalid JSON: recursion limit"),
        (b"", "as a whole: Invalid JSON: EOF"),
    ],
)
def test_a_message_of_another_form_is_refused_by_its_place_and_sender(message: bytes, place: str) -> None:
    with pytest.raises(UserError) as caught:
        decode(message, SaveOutcome, sender=2)
    assert str(caught.value).startswith("rank 2 sent something else than was expected here (")
    assert place in str(caught.value)


@pytest.mark.parametrize(("value", "form"), [(3, str), ([1, "x"], tuple[int, str])])
def test_a_value_that_is_not_of_the_form_is_not_sent(value: Any, form: Any) -> None:
    with pytest.raises(ValueError, match="Unexpected"):
        encode(value, form)
