"""Overlap: evaluation rows found in training in six ways, with both places; the known figures of MTOP."""

from pathlib import Path

import pytest

from dstrain.data.identity import identify
from dstrain.data.overlap import Places, find_shared
from dstrain.run_folder.audit import Shared
from tests.unit.data.word_encoder import make_example

TRAIN = [("Call Mom", "x"), ("call  mom", "x"), ("wake me", "Y"), ("sing", "z"), ("sing", "z")]
EVALUATION = [("sleep", "x"), ("call mom", "x"), ("Sing", "other"), ("sing", "z")]


def shared(train: list[tuple[str, str]], evaluation: list[tuple[str, str]]) -> tuple[dict[str, Shared], list[int]]:
    sides = [
        identify([make_example(*row, where=f"{name}:{line}") for line, row in enumerate(rows, start=1)])
        for name, rows in (("train.tsv", train), ("eval.tsv", evaluation))
    ]
    places = (Places(["one.tsv", "two.tsv"], [2, len(train) - 2]), Places(["eval.tsv"], [len(evaluation)]))
    return find_shared(sides[1], [sides[0][:3], sides[0][3:]], places=places)


def test_rows_are_counted_on_both_sides_in_every_way() -> None:
    ways, held = shared(TRAIN, EVALUATION)
    counts = {way: (found.eval_rows, found.train_rows) for way, found in ways.items()}
    assert counts == {
        "equal source": (1, 2),
        "equal target": (3, 4),
        "equal pair": (1, 2),
        "normalised source": (3, 4),
        "normalised target": (3, 4),
        "normalised pair": (2, 4),
    }
    assert held == [1, 2, 3]


def test_the_first_rows_are_named_with_the_file_of_their_data_source() -> None:
    ways, _ = shared(TRAIN, EVALUATION)
    assert ways["normalised pair"].rows == (("eval.tsv:2", "one.tsv:1"), ("eval.tsv:4", "two.tsv:4"))


@pytest.mark.real_data
def test_the_known_overlap_of_real_data_is_found(real_data: Path) -> None:
    def read(name: str) -> list[tuple[str, str]]:
        lines = (real_data / name).read_text(encoding="utf-8").splitlines()
        return [(source, target) for source, target in (line.split("\t") for line in lines)]

    ways, held = shared(read("mtop/train.tsv"), read("mtop/eval.tsv"))
    assert [ways[f"equal {view}"].eval_rows for view in ("source", "target", "pair")] == [7, 553, 7]
    assert [ways[f"normalised {view}"].eval_rows for view in ("source", "target", "pair")] == [22, 598, 22]
    assert len(held) == 22
    ways, _ = shared(read("ko_en/python_docs.train.tsv"), read("ko_en/python_docs.dev.tsv"))
    assert [ways[f"normalised {view}"].eval_rows for view in ("source", "target", "pair")] == [0, 22, 0]
