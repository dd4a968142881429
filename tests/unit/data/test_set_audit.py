"""The audit of a whole set: every planted fault among many rows, wherever shards begin; known figures of real data."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.config.data import Source
from dstrain.data import set_audit, shards
from dstrain.reporting.directions import find_wrong_ways
from dstrain.run_folder.audit import SetAudit
from tests.unit.data.audit_cases import PLANTS, audit_of, draw_pairs, make_set, write
from tests.unit.run_folder.audit_cases import build_audit


def test_every_planted_fault_is_found_and_named_and_clean_rows_have_none(tmp_path: Path) -> None:
    clean = draw_pairs(4000)
    audit = audit_of(make_set([write(tmp_path / "clean.tsv", clean)], folder=tmp_path))
    assert {name: found.number for name, found in audit.sources[0].checks.items() if found.number} == {}
    pairs = list(clean)
    for number, plant in enumerate(PLANTS.values()):
        for place in range(10 + number, 4000, 400):
            pairs[place] = plant(random.Random(place), clean, place)
    audit = audit_of(make_set([write(tmp_path / "dirty.tsv", pairs)], folder=tmp_path))
    checks = audit.sources[0].checks
    for number, name in enumerate(PLANTS):
        assert checks[name].number >= 9, name
        assert f"{tmp_path / 'dirty.tsv'}:{11 + number}" in checks[name].rows, name


def audits_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, shard_records: int, chunk_rows: int) -> SetAudit:
    pairs = draw_pairs(300)
    pairs += [pairs[3], (pairs[4][0].upper(), pairs[4][1]), (pairs[5][0], "another target")]
    pairs[50] = pairs[50][::-1]
    monkeypatch.setattr(shards, "SHARD_RECORDS", shard_records)
    monkeypatch.setattr(set_audit, "CHUNK_ROWS", chunk_rows)
    sources = [write(tmp_path / "one.tsv", pairs[:120]), write(tmp_path / "two.tsv", pairs[120:])]
    return audit_of(make_set(sources, folder=tmp_path / f"{shard_records}"))


def test_the_audit_is_the_same_wherever_shards_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audits_with(tmp_path, monkeypatch, shard_records=1000, chunk_rows=1000)
    assert audits_with(tmp_path, monkeypatch, shard_records=37, chunk_rows=10) == whole
    assert whole.rows == 303
    one, two = tmp_path / "one.tsv", tmp_path / "two.tsv"
    assert (whole.equal.number, whole.equal.rows) == (1, ((f"{two}:181", f"{one}:4"),))
    assert (whole.normalised.number, whole.normalised.rows[-1]) == (2, (f"{two}:182", f"{one}:5"))
    assert (whole.many_targets.number, whole.many_targets.rows) == (1, ((f"{two}:183", f"{one}:6"),))
    assert whole.sources[0].checks["swapped"].rows == (f"{one}:51",)


@pytest.mark.real_data
def test_the_known_repetitions_of_real_data_are_found_and_nothing_else(real_data: Path, tmp_path: Path) -> None:
    audit = audit_of(make_set([Source(path=str(real_data / "mtop/train.tsv"))], folder=tmp_path))
    assert (audit.rows, audit.equal.number) == (15_667, 32)


@pytest.mark.real_data
def test_real_sources_in_one_direction_are_no_fault_and_a_swapped_one_is_named(real_data: Path, tmp_path: Path) -> None:
    docs, tatoeba = (real_data / "ko_en" / name for name in ("python_docs.dev.tsv", "tatoeba.tsv"))
    news = audit_of(make_set([Source(path=str(real_data / "ko_en/park_news.dev.tsv"))], folder=tmp_path, split="eval"))

    def wrong_ways(*sources: Source) -> list[str]:
        train = audit_of(make_set(list(sources), folder=tmp_path))
        audit = replace(build_audit(), train=train, eval=news)
        return [place for place, _ in find_wrong_ways(audit, kind="translation", names={})]

    assert wrong_ways(Source(path=str(tatoeba)), Source(path=str(docs))) == []
    swapped = Source(path=str(docs), source_column=1, target_column=0)
    assert wrong_ways(Source(path=str(tatoeba)), swapped) == [str(docs)]
