"""Files as they are found: their format, their two sides, and what their rows hold."""

import gzip
import json
from pathlib import Path

import pytest

from dstrain.draft.look import SAMPLE_ROWS, Asked, find_format, find_sources, look_at
from dstrain.errors import UserError

PAIRS = "".join(f"source number {n}\ttarget number {n}\n" for n in range(30))


def write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "file_format"),
    [
        ("a.tsv", "a\tb\n", "tsv"),
        ("a.csv", "a,b\n", "csv"),
        ("a.jsonl", "{}\n", "jsonl"),
        ("a.txt", PAIRS, "tsv"),
        ("pairs", PAIRS, "tsv"),
        ("a.json", '{"a": "b"}\n{"a": "c"}\n', "jsonl"),
        ("train.de", "Ein Satz.\nNoch einer.\n", "text"),
        ("train.txt", "one\ttab\nno tab\nnone either\nnor here\n", "text"),
    ],
)
def test_a_format_is_in_the_suffix_or_in_the_first_lines(
    name: str, content: str, file_format: str, tmp_path: Path
) -> None:
    assert find_format(Path(write(tmp_path / name, content))) == file_format


def test_compressed_files_are_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(PAIRS.encode()))
    (found,) = find_sources([str(path)], asked=Asked())
    assert look_at([found.source]).num_rows == 30
    named = tmp_path / "a.txt.gz"
    named.write_bytes(gzip.compress(PAIRS.encode()))
    (found,) = find_sources([str(named)], asked=Asked())
    assert found.source.format == "tsv"
    assert look_at([found.source]).num_rows == 30


def test_two_files_of_plain_lines_are_the_sides_of_one_source(tmp_path: Path) -> None:
    names = [write(tmp_path / "a.de", "eins\nzwei\n"), write(tmp_path / "a.en", "one\ntwo\n")]
    (found,) = find_sources(names, asked=Asked())
    assert (found.source.path, found.source.target_path) == tuple(names)
    assert look_at([found.source]).sample == (("eins", "one"), ("zwei", "two"))
    with pytest.raises(UserError, match="name the file of the other side behind it"):
        find_sources(names[:1], asked=Asked())
    short = write(tmp_path / "b.en", "one\n")
    with pytest.raises(UserError, match=r"has 2 lines and .* has 1"):
        find_sources([names[0], short], asked=Asked())
    with pytest.raises(UserError, match="the other side of"):
        find_sources([names[0], write(tmp_path / "c.tsv", PAIRS)], asked=Asked())


def test_cells_in_quotes_are_read_as_such(tmp_path: Path) -> None:
    (found,) = find_sources([write(tmp_path / "a.tsv", '"a ""b"" c"\td e\nf g\th i\n')], asked=Asked())
    assert found.source.quoted
    assert look_at([found.source]).sample[0] == ('a "b" c', "d e")


def test_columns_that_are_named_are_taken(tmp_path: Path) -> None:
    lines = [json.dumps({"a": "x y", "b": "z", "c": "w"}) for _ in range(3)]
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    (found,) = find_sources([path], asked=Asked("c", "a"))
    assert look_at([found.source]).sample[0] == ("w", "x y")
    (found,) = find_sources([path], asked=Asked(target_column="c"))
    assert (found.source.source_column, found.source.target_column) == ("a", "c")
    with pytest.raises(UserError, match="column `a` for both sides"):
        find_sources([path], asked=Asked("a", "a"))
    table = write(tmp_path / "a.tsv", "w\tx\ty\n")
    (found,) = find_sources([table], asked=Asked(2, 0))
    assert look_at([found.source]).sample == (("y", "w"),)


def test_rows_are_counted_measured_and_the_bad_ones_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"ab\tc\n\xff\td\n\te\nabcd\tefg\nx\ty\tz\n")
    rows = look_at([find_sources([str(path)], asked=Asked())[0].source])
    assert (rows.num_rows, rows.longest, rows.num_characters, rows.distinct) == (2, (4, 3), 10, 7)
    assert rows.bad == {"undecodable": 2, "empty": 1}
    assert rows.first_bad == f"{path}:2"


def test_a_sample_of_many_rows_is_bounded_and_the_same_again(tmp_path: Path) -> None:
    number = SAMPLE_ROWS + 5000
    path = write(tmp_path / "a.tsv", "".join(f"s{n}\tt{n}\n" for n in range(number)))
    source = find_sources([path], asked=Asked())[0].source
    first, again = look_at([source]), look_at([source])
    assert first == again
    assert (first.num_rows, len(first.sample)) == (number, SAMPLE_ROWS)
    assert len({*first.sample}) == SAMPLE_ROWS
    late = sum(int(source[1:]) >= SAMPLE_ROWS for source, _ in first.sample)
    assert 0.25 < late / SAMPLE_ROWS < 0.42  # a third of the rows come after the first 10,000


@pytest.mark.parametrize("name", ["nowhere.tsv", "a/b/c", "../x", "some/file.txt", ""])
def test_what_is_neither_a_file_nor_a_name_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no such file, and no name of a dataset on the Hub"):
        find_sources([name], asked=Asked())


@pytest.mark.parametrize("content", ["", "\n\n", "\t\n \t \n"])
def test_files_without_a_usable_row_are_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no (usable )?(row|line)|hold text"):
        look_at([each.source for each in find_sources([write(tmp_path / "a.tsv", content)], asked=Asked())])


def test_a_dataset_of_the_hub_is_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    stored = datasets.Dataset.from_dict({"document": ["a b", "b c"], "summary": ["c", "d"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **named: stored)
    (found,) = find_sources(["some/set"], asked=Asked(subset="x"), split="validation")
    assert found.source.model_dump(exclude_unset=True) == {
        "hub": "some/set", "subset": "x", "split": "validation", "source_column": "document", "target_column": "summary",
    }  # fmt: skip
    assert look_at([found.source]).num_rows == 2


def refusal(path: Path, content: str) -> str:
    with pytest.raises(UserError) as error:
        find_sources([write(path, content)], asked=Asked())
    return str(error.value)


def test_a_json_array_is_named_with_the_way_to_lines(tmp_path: Path) -> None:
    for name in ("rows.json", "rows.jsonl", "rows"):
        message = refusal(tmp_path / name, '[\n {"ko": "가", "en": "Go."}, {"ko": "나", "en": "I."}]')
        assert "a JSON array; rows are read from JSON lines" in message
        assert "jq -c '.[]'" in message
    assert find_format(Path(write(tmp_path / "parses", "[IN:CALL ]\n[IN:STOP ]\n"))) == "text"


def test_lines_without_their_tab_are_counted(tmp_path: Path) -> None:
    content = "no tab\n" * 10 + PAIRS * 3
    assert "90 of its first 100 lines with text have a tab" in refusal(tmp_path / "pairs.txt", content)
    assert "the first other one is number 1" in refusal(tmp_path / "pairs.txt", content)
    assert "90 of its first 100 lines with text have a tab, and the first has none" in refusal(
        tmp_path / "a.tsv", content
    )
    assert "one text in each line, and no tab" in refusal(tmp_path / "a.txt", "a\nb\n")


def test_cells_divided_by_semicolons_are_recognised(tmp_path: Path) -> None:
    assert "divided by semicolons: convert it to commas" in refusal(tmp_path / "a.csv", "ko;en\n가;Go.\n나;I.\n")


def test_one_line_without_an_end_hardly_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", f"{PAIRS}{'x' * 1_000_000}\tshort\n")
    (found,) = find_sources([path], asked=Asked())
    rows = look_at([found.source])
    assert rows.longest[0] == 1_000_000
    assert rows.num_characters < 20_000
