"""TSV and CSV rows whose cells do not fit their columns are named, and nothing beside them is lost."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dstrain.data.records import Broken, Column, Reader, Record
from dstrain.data.tables import read_csv, read_tsv

NAMES = ["ko", "en"]


def read(
    reader: Reader, path: Path, content: str, columns: Sequence[Column]
) -> tuple[list[tuple[str, ...]], list[Broken]]:
    path.write_text(content, newline="")
    records = list(reader(path, columns))
    good = [record.cells for record in records if isinstance(record, Record)]
    return good, [record for record in records if isinstance(record, Broken)]


@pytest.mark.parametrize(("reader", "comma"), [(read_tsv, "\t"), (read_csv, ",")])
@pytest.mark.parametrize("columns", [NAMES, [0, 1]])
def test_a_row_with_more_or_fewer_cells_than_the_first_is_named(
    reader: Reader, comma: str, columns: list[Column], tmp_path: Path
) -> None:
    rows = ["ko,en,note", "a,b,c", "a,b,c,d", "a,b,c,,", "a,b", "a,,", ",b,c"]
    path = tmp_path / "a"
    good, broken = read(reader, path, "\n".join(rows).replace(",", comma), columns)
    assert good[-4:] == [("a", "b"), ("a", "b"), ("a", ""), ("", "b")]
    first = "header" if columns == NAMES else "first row"
    assert [(row.where, row.problem) for row in broken] == [
        (f"{path}:3", f"4 columns, but the {first} has 3"),
        (f"{path}:5", f"2 columns, but the {first} has 3"),
    ]


def test_a_comma_without_quotes_makes_a_row_unusable(tmp_path: Path) -> None:
    content = "en,de\nWell, A man,Nun Ein Mann\nA dog,Ein Hund\n"
    good, (broken,) = read(read_csv, tmp_path / "a.csv", content, ["en", "de"])
    assert good == [("A dog", "Ein Hund")]
    assert broken.text == "Well\tA man\tNun Ein Mann"


def test_a_blank_before_a_quote_belongs_to_no_cell(tmp_path: Path) -> None:
    good, broken = read(read_csv, tmp_path / "a.csv", '"a, b", "c, d"\n1, 2\n', [0, 1])
    assert (good, broken) == ([("a, b", "c, d"), ("1", "2")], [])


@pytest.mark.parametrize("line", ['a ,"b" ', '"a"b,c', '"a" ,b'])
def test_text_after_a_closing_quote_is_no_csv(line: str, tmp_path: Path) -> None:
    good, broken = read(read_csv, tmp_path / "a.csv", f"1,2\n{line}\n3,4\n", [0, 1])
    assert (good, [row.text for row in broken]) == ([("1", "2"), ("3", "4")], [line])


def test_a_header_in_the_middle_is_named(tmp_path: Path) -> None:
    good, (broken,) = read(read_tsv, tmp_path / "a.tsv", "ko\ten\n1\t2\n\ufeffko\ten\n3\t4\n", NAMES)
    assert good == [("1", "2"), ("3", "4")]
    assert (broken.where, broken.problem) == (
        f"{tmp_path}/a.tsv:3",
        "the header once more, as in files that were joined",
    )


@pytest.mark.parametrize("num_rows", [2, 40, 12_000])
def test_a_stray_quote_costs_its_line_only_and_its_reach_is_said(num_rows: int, tmp_path: Path) -> None:
    rows = [f"source {number},target {number}" for number in range(num_rows)]
    rows[1] = '"' + rows[1]
    good, (broken,) = read(read_csv, tmp_path / "a.csv", "\n".join(rows) + "\n", [0, 1])
    assert len(good) == num_rows - 1
    assert broken.where == f"{tmp_path}/a.csv:2"
    assert broken.text == rows[1]
    reach = num_rows - 1
    if reach > 1:
        assert "the quote that opens here spans" in broken.problem


def test_a_quote_that_is_closed_lines_later_costs_its_line_only(tmp_path: Path) -> None:
    rows = ["a,b", '"c,d', "e,f", "g,h", 'i "j" k,l', "m,n"]
    good, broken = read(read_csv, tmp_path / "a.csv", "\n".join(rows), [0, 1])
    assert good == [("a", "b"), ("e", "f"), ("g", "h"), ('i "j" k', "l"), ("m", "n")]
    assert [row.text for row in broken] == ['"c,d']


def test_a_quote_that_is_closed_well_after_whole_rows_does_not_swallow_them(tmp_path: Path) -> None:
    rows = ["a,b", '"c,d', "e,f", "g,h", "i,j", 'k",l', "m,n"]
    good, broken = read(read_csv, tmp_path / "a.csv", "\n".join(rows), [0, 1])
    assert good == [("a", "b"), ("e", "f"), ("g", "h"), ("i", "j"), ('k"', "l"), ("m", "n")]
    assert [row.problem for row in broken] == [
        "not CSV (whole rows in a cell); the quote that opens here spans 5 lines"
    ]


@pytest.mark.parametrize("cell", ["one\ntwo", "one, a\ntwo", "1\n2\n3\n4\n5\n6", 'say ""x""\r\nthen', "one\rtwo"])
def test_a_cell_may_have_several_lines(cell: str, tmp_path: Path) -> None:
    content = f'a,b\n"{cell}","c"\nd,e\n'
    good, broken = read(read_csv, tmp_path / "a.csv", content, [0, 1])
    assert (good, broken) == ([("a", "b"), (cell.replace('""', '"'), "c"), ("d", "e")], [])


PANDAS = 'en\tde\n"""the cat"" he said"\tdie Katze\n"a\tb"\tc\nplain\tschlicht\n'


def test_rows_that_pandas_has_quoted_are_named_with_the_way_out(tmp_path: Path) -> None:
    good, broken = read(read_tsv, tmp_path / "a.tsv", PANDAS, ["en", "de"])
    assert good == [("plain", "schlicht")]
    assert "doubled quotes" in broken[0].problem
    assert "set `quoted: true`" in broken[0].problem


def test_cells_of_a_tsv_may_be_quoted_or_not_as_the_source_says(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(PANDAS)
    said = [row.cells for row in read_tsv(path, ["en", "de"], quoted=True) if isinstance(row, Record)]
    assert said == [('"the cat" he said', "die Katze"), ("a\tb", "c"), ("plain", "schlicht")]
    kept = [row.cells for row in read_tsv(path, ["en", "de"], quoted=False) if isinstance(row, Record)]
    assert kept == [('"""the cat"" he said"', "die Katze"), ("plain", "schlicht")]


def test_a_tsv_with_every_cell_in_quotes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tsv: every cell is in quotes; set `quoted: true`"):
        read(read_tsv, tmp_path / "a.tsv", '"a"\t"b"\n"c"\t"d"\n', [0, 1])


def test_some_speech_in_quotes_is_text(tmp_path: Path) -> None:
    content = '"Yes."\t"Ja."\nHe said.\tSagte er.\n""\t"\n'
    good, broken = read(read_tsv, tmp_path / "a.tsv", content, [0, 1])
    assert (good, broken) == ([('"Yes."', '"Ja."'), ("He said.", "Sagte er."), ('""', '"')], [])


@pytest.mark.parametrize(
    "cell", ["['a', 'b']", '["a"]', "[\"it's\", 'b']", "['a' 'b'\n 'c']", "['a', None]", '["a", null]', " [ 'a' , ] "]
)
def test_a_list_that_became_the_text_of_a_cell_is_no_row(cell: str, tmp_path: Path) -> None:
    quoted = cell.replace('"', '""')
    content = f'ko,en\n1,"{quoted}"\n"{quoted}",2\n3,4\n'
    good, broken = read(read_csv, tmp_path / "a.csv", content, NAMES)
    assert good == [("3", "4")]
    assert all("a list of texts in a cell" in row.problem for row in broken)
    assert len(broken) == 2


@pytest.mark.parametrize(
    "cell", ["[a, b]", "[1, 2]", "[]", "['a'] and ['b']", "['a'", "[IN:A 'b' ]", "x['a']", "['a']['b']"]
)
def test_other_texts_in_brackets_are_rows(cell: str, tmp_path: Path) -> None:
    good, broken = read(read_tsv, tmp_path / "a.tsv", f"1\t{cell}\n", [0, 1])
    assert (good, broken) == ([("1", cell)], [])


@pytest.mark.parametrize(
    ("reader", "line", "hint"),
    [
        (read_csv, "ko;en", "divided by semicolons: convert it to commas or tabs once"),
        (read_csv, "ko\ten", "divided by tabs: set `format: tsv`"),
        (read_tsv, "ko,en", "divided by commas: set `format: csv`"),
        (read_tsv, "ko|en", "divided by vertical bars"),
        (read_tsv, "ko", None),
    ],
)
def test_the_delimiter_that_a_file_seems_to_have_is_said(
    reader: Reader, line: str, hint: str | None, tmp_path: Path
) -> None:
    _, (first, second) = read(reader, tmp_path / "a", f"{line}\n{line}\n", [0, 1])
    for problem in (first.problem, second.problem):
        assert hint in problem if hint else problem == "1 column, but column 1 (counted from 0) is needed"
    with pytest.raises(ValueError, match="no column `ko`" if hint else "no column `en`") as raised:
        read(reader, tmp_path / "a", f"{line}\n", NAMES)
    assert ("seem to be divided" in str(raised.value)) == (hint is not None)


@pytest.mark.parametrize("cell", ["one\ttwo", "one\ntwo"])
def test_a_quoted_cell_with_a_tab_or_a_line_break_says_how_quotes_are_read(cell: str, tmp_path: Path) -> None:
    content = f'a\tb\n1\t"{cell}"\n3\t4\n'
    good, broken = read(read_tsv, tmp_path / "a.tsv", content, [0, 1])
    assert ("3", "4") in good
    assert any("set `quoted: true`" in row.problem for row in broken)
    assert read(lambda path, columns: read_tsv(path, columns, quoted=True), tmp_path / "a.tsv", content, [0, 1]) == (
        [("a", "b"), ("1", cell), ("3", "4")],
        [],
    )
