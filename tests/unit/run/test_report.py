"""Reports of runs: words are counted once and only in the run's own data, and no failure changes how a run ends."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.schema import RunConfig
from dstrain.data.sources import fingerprint_source
from dstrain.errors import UserError
from dstrain.html_report.rarity import words_of
from dstrain.run import report
from dstrain.run.report import find_runs, report_at_end, report_runs
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.word_counts import read_word_counts
from tests.unit.html_report.html_report_cases import (
    BETTER,
    REFERENCES,
    add_evaluation,
    decode,
    make_failed_starts,
    make_run,
    write_rows,
)
from tests.unit.reporting.reporting_cases import parsing_config, translation_config

PAIRS = (("하나", "The cat sat"), ("둘", "a dog and a cat"), ("셋", "it rains in spring ."))


def make_trained(folder: Path, *, config: RunConfig | None = None, **run: Any) -> RunFolder:
    """A run whose training data lie in a file beside it."""
    data = folder / "train.tsv"
    data.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS))
    of_data = {"train": [{"path": str(data)}], "eval": [{"path": str(data)}]}
    config = config or translation_config(data=of_data)
    found = make_run(folder / "run", config=config, **run)
    sources = [fingerprint_source(each) for each in config.data.train]
    write_run_info(found.path, {"data": {"train": {"rows": 3, "fingerprint": "of training", "sources": sources}}})
    return found


def rarity(folder: RunFolder) -> list[int | None]:
    found: list[int | None] = decode(folder.report)["runs"][0]["sets"][0]["rows"]["rarity"]
    return found


def test_a_run_counts_its_words_once_and_later_reports_need_no_data(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    beats: list[int] = []
    report_at_end(folder, is_own=True, beat=lambda: beats.append(1))
    counts = read_word_counts(folder)
    assert counts is not None
    assert (counts.num_rows, counts.is_all, counts.fingerprint) == (3, True, "of training")
    assert set(counts.counts) == {word for text in REFERENCES for word in words_of(text)}
    assert (counts.counts["cat"], counts.counts["mat"]) == (2, 0)
    assert rarity(folder) == [0, 0, 1, 0]
    (tmp_path / "train.tsv").unlink()
    report_runs([folder.path], output=folder.report)
    assert rarity(folder) == [0, 0, 1, 0]
    assert decode(folder.report)["notes"] == []


def test_only_so_many_rows_are_counted_and_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_COUNTED_ROWS", 2)
    monkeypatch.setattr(report, "_ROWS_PER_BEAT", 1)
    folder = make_trained(tmp_path)
    beats: list[int] = []
    report_at_end(folder, is_own=True, beat=lambda: beats.append(1))
    assert len(beats) == 2
    assert rarity(folder) == [0, 0, 0, 0]
    assert "how rare a word is in training was counted in the first 2 rows" in decode(folder.report)["notes"]


def test_words_of_a_later_test_set_are_counted_when_they_come(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    report_at_end(folder, is_own=True)
    references = ("a cat and a dog .", *REFERENCES[1:])
    add_evaluation(folder.test_set("news"), BETTER, step=200, references=references)
    report_at_end(folder, is_own=True)
    assert decode(folder.report)["runs"][0]["sets"][1]["rows"]["rarity"][0] == 1


def change(folder: Path) -> None:
    (folder / "train.tsv").write_text("other\tdata\n")


def remove(folder: Path) -> None:
    (folder / "train.tsv").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"), [(change, "have changed since the run read them"), (remove, "is not a file")]
)
def test_data_that_are_gone_or_not_those_of_the_run_are_not_counted(spoil: Any, said: str, tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    spoil(tmp_path)
    report_runs([folder.path], output=folder.report)
    assert rarity(folder) == [None] * 4
    (note,) = decode(folder.report)["notes"]
    assert note.startswith("how rare the words of some rows are in training is not known: ")
    assert said in note
    assert str(tmp_path) not in note
    assert not folder.word_counts.exists()


def test_nothing_is_downloaded_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("dstrain.data.sources.load_hub", load)
    folder = make_run(tmp_path / "run", config=parsing_config())
    report_runs([folder.path], output=folder.report)
    assert any("nothing is downloaded" in note for note in decode(folder.report)["notes"])


def test_targets_of_the_pointer_form_are_counted_as_the_model_learns_them(tmp_path: Path) -> None:
    parse = "[IN:CREATE_CALL [SL:CONTACT Anna ] ]"
    data = tmp_path / "train.tsv"
    data.write_text(f"call Anna\t{parse}\n" * 4)
    of_data = {"train": [{"path": str(data)}], "eval": [{"path": str(data)}]}
    config = parsing_config(data=of_data, task={"kind": "parsing"})
    folder = make_run(tmp_path / "run", config=config, hypotheses=[])
    target = "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]"
    row = add_evaluation(folder, [target], step=10, sources=["call Anna"], references=[target], groups=["calls"])
    write_rows(folder, [row])
    report_at_end(folder, is_own=True)
    assert rarity(folder) == [4]


def test_no_failure_of_a_report_changes_how_a_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **options: object) -> None:
        raise AssertionError("a slip")

    folder = make_trained(tmp_path)
    monkeypatch.setattr(report, "build_document", fail)
    with caplog.at_level(logging.WARNING):
        report_at_end(folder, is_own=True)
    assert f"the report could not be written (a slip): write it with: dstrain report {folder.path}" in caplog.text
    assert not folder.report.exists()


def test_a_page_that_is_no_report_is_left_alone_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_trained(tmp_path)
    folder.report.write_text("mine")
    report_at_end(folder, is_own=True)
    assert "exists and is no report" in caplog.text
    assert folder.report.read_text() == "mine"


def test_counts_that_cannot_be_kept_are_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = make_trained(tmp_path)
    monkeypatch.setattr(report, "write_word_counts", fail)
    report_runs([folder.path], output=tmp_path / "out.html")
    assert decode(tmp_path / "out.html")["runs"][0]["sets"][0]["rows"]["rarity"] == [0, 0, 1, 0]


def names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_of_run_folders_stands_for_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    for name in ("b", "a"):
        make_run(sweep / name, hypotheses=[])
    (sweep / "logs").mkdir()
    make_failed_starts(sweep / "c")
    assert names(find_runs([sweep])) == ["a", "b", "c"]
    assert names(find_runs([sweep / "b", sweep, sweep / "b"])) == ["b", "a", "c"]
    assert names(find_runs([sweep / "c"])) == ["c"]
    assert names(find_runs([tmp_path / "nowhere"])) == ["nowhere"]  # whose error says what is wrong
    monkeypatch.setattr(report, "MAX_RUNS", 1)
    with pytest.raises(UserError, match="3 runs, and a report shows at most 1"):
        find_runs([sweep])


def test_a_report_is_refused_where_a_folder_is_no_run_or_the_file_is_another(tmp_path: Path) -> None:
    folder = make_trained(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        report_runs([tmp_path / "nowhere"], output=tmp_path / "out.html")
    with pytest.raises(UserError, match="is no report"):
        report_runs([folder.path], output=tmp_path / "train.tsv")
    assert (tmp_path / "train.tsv").read_text().startswith("하나")
