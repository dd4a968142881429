"""Evaluation rows set apart: no source on both sides, all rows kept, the same choice again."""

import json
import random
from pathlib import Path

import pytest

from dstrain.config.data import Source
from dstrain.draft.split import MOST_ROWS, Split, choose_apart, key_of, num_apart, split_rows
from dstrain.errors import UserError


def split_of(
    tmp_path: Path, rows: list[tuple[str, str]], name: str = "x"
) -> tuple[Split, list[tuple[str, str]], list[tuple[str, str]]]:
    path = tmp_path / f"{name}.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
    split = split_rows(
        [Source(path=str(path))],
        num_rows=len(rows),
        train=tmp_path / f"{name}.train.jsonl",
        evaluation=tmp_path / f"{name}.eval.jsonl",
    )
    read = [
        [(line["source"], line["target"]) for line in map(json.loads, file.read_text().splitlines())]
        for file in (split.train, split.evaluation)
    ]
    return split, read[0], read[1]


def test_all_rows_are_kept_and_no_source_is_on_both_sides(tmp_path: Path) -> None:
    rows = [(f"satz {n % 300}", f"target {n}") for n in range(1000)] + [("SATZ  7", "again")]
    split, train, evaluation = split_of(tmp_path, rows)
    assert sorted(train + evaluation) == sorted(rows)
    assert (split.num_train, split.num_evaluation) == (len(train), len(evaluation))
    assert {key_of(source) for source, _ in train}.isdisjoint(key_of(source) for source, _ in evaluation)
    assert len({key_of(source) for source, _ in evaluation}) == num_apart(1001) == 100


def test_the_choice_does_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [(f"source {n}", "t") for n in range(500)]
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert sorted(split_of(tmp_path, rows, "a")[2]) == sorted(split_of(tmp_path, shuffled, "b")[2])


@pytest.mark.parametrize(
    ("rows", "apart"), [(1, 1), (4, 1), (50, 10), (500, 100), (1000, 100), (10_000, 500), (10**7, MOST_ROWS)]
)
def test_how_many_are_set_apart(rows: int, apart: int) -> None:
    assert num_apart(rows) == apart


def test_the_lowest_keys_are_chosen_each_once() -> None:
    keys = [5, 3, 9, 3, 1, 7, 1, 2, 9, 5]
    assert choose_apart(keys, num=3) == {1, 2, 3}
    assert choose_apart(keys, num=100) == {*keys}
    many = [random.Random(n).getrandbits(64) for n in range(3000)]
    assert choose_apart(many * 2, num=50) == {*sorted(many)[:50]}


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.eval.jsonl").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        split_of(tmp_path, [("a", "b"), ("c", "d")])
    assert (tmp_path / "x.eval.jsonl").read_text() == "mine"
    with pytest.raises(UserError, match="all rows have the same source"):
        split_of(tmp_path, [("a", "b"), ("a", "c")], "y")
    assert not list(tmp_path.glob("y.*jsonl*"))


def test_a_row_and_its_mirror_are_on_one_side_and_no_text_of_evaluation_is_in_training(tmp_path: Path) -> None:
    pairs = [(f"글 {n % 290}", f"text {n}") for n in range(300)]  # ten sources have two translations
    lines = [f"{ko}\t{en}\tko\ten\n{en}\t{ko}\ten\tko\n" for ko, en in pairs]
    path = tmp_path / "both.tsv"
    path.write_text("text\ttranslation\tfrom\tto\n" + "".join(lines))
    columns = {"source_column": "text", "target_column": "translation"}
    of_languages = {"source_language_column": "from", "target_language_column": "to"}
    source = Source.model_validate({"path": str(path)} | columns | of_languages)
    files = {"train": tmp_path / "a.jsonl", "evaluation": tmp_path / "b.jsonl"}
    split = split_rows([source], num_rows=600, **files)
    train, evaluation = ([json.loads(line) for line in file.read_text().splitlines()] for file in files.values())
    assert len(train) + len(evaluation) + split.num_left_out == 600
    assert split.num_left_out <= 20
    texts = [{row[side] for row in rows for side in ("source", "target")} for rows in (train, evaluation)]
    assert texts[0].isdisjoint(texts[1])
    assert evaluation
    assert {(row["target"], row["source"], row["target_language"]) for row in evaluation} == {
        (row["source"], row["target"], row["source_language"]) for row in evaluation
    }
