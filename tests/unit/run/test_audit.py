"""The audit of a recipe's data: overlap found once for two sets, refused or left out as the recipe says."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.config.schema import RunConfig
from dstrain.data.shards import no_beat
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.errors import UserError
from dstrain.run import audit as module
from dstrain.run.audit import build_audit, mark_held, overlap_of
from dstrain.run.prepare import audit_ahead, prepare, prepare_ahead
from dstrain.run_folder.audit import write_audit
from dstrain.run_folder.layout import RunFolder
from tests.system.runs import build_run
from tests.unit.data.audit_cases import Pair, draw_pairs
from tests.unit.run.run_cases import CPU

TRAIN = draw_pairs(60)
EVALUATION = [*draw_pairs(10, seed=9), (TRAIN[3][0].upper(), TRAIN[3][1]), (TRAIN[7][0], "another target"), TRAIN[9]]


def write(path: Path, pairs: list[Pair]) -> list[dict[str, Any]]:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return [{"path": str(path)}]


def build(tmp_path: Path, **rules: str) -> RunConfig:
    data = {
        "train": write(tmp_path / "mine.train.tsv", TRAIN),
        "eval": write(tmp_path / "mine.eval.tsv", EVALUATION),
        "rules": rules,
    }
    return build_run(tmp_path, data=data)


def make(config: RunConfig) -> tuple[TokenSet, TokenSet]:
    train, evaluation = map(load_token_set, prepare_ahead(config, beat=no_beat))
    return train, evaluation


def test_rows_in_training_are_known_to_the_evaluation_and_looked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build(tmp_path)
    prepared = prepare(config, ranks=CPU)
    assert prepared.eval.held_in_training == {10, 11, 12}
    assert prepared.audit is not None
    assert prepared.audit.overlap.ways["normalised pair"].eval_rows == 2
    monkeypatch.setattr(module, "find_shared", None)
    assert prepare(config, ranks=CPU).audit == prepared.audit


def test_a_start_is_refused_where_no_row_may_be_in_training(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        prepare(build(tmp_path, overlap="error"), ranks=CPU)
    assert (
        f"3 of 13 evaluation rows have a source that is in training, the first: {tmp_path}/mine.eval.tsv:11 and "
        in str(refusal.value)
    )
    assert f"{tmp_path}/mine.train.tsv:4; " in str(refusal.value)


def test_training_does_without_the_rows_of_the_evaluation(tmp_path: Path) -> None:
    prepared = prepare(build(tmp_path, overlap="skip_train"), ranks=CPU)
    assert prepared.train.report["skipped"] == {"overlap": 3}
    assert prepared.train.num_rows == 57
    assert prepared.eval.num_rows == 13
    assert prepared.eval.held_in_training == frozenset()


def test_near_duplicates_are_looked_for_ahead_and_then_known_to_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build(tmp_path)
    found = audit_ahead(config)
    assert found.overlap.ways["near source"].eval_rows == 3
    assert [losses.skipped for losses in found.losses.values()] == [{}, {}]
    monkeypatch.setattr(module, "NearFinder", None)
    assert audit_ahead(config) == found
    assert prepare(config, ranks=CPU).audit == found


def test_rows_that_are_left_out_are_no_near_duplicates(tmp_path: Path) -> None:
    found = audit_ahead(build(tmp_path, overlap="skip_train"))
    assert found.overlap.ways["near source"].eval_rows == 0


def test_only_rows_that_a_run_has_audited_are_marked(tmp_path: Path) -> None:
    config, run = build(tmp_path), RunFolder(tmp_path / "a-run")
    run.path.mkdir()
    train, evaluation = make(config)
    overlap = overlap_of(config, train=train, evaluation=evaluation)
    mark_held(evaluation, run=None)
    mark_held(evaluation, run=run)
    assert evaluation.held_in_training == frozenset()
    write_audit(build_audit(train=train, evaluation=evaluation, overlap=overlap), path=run.audit)
    mark_held(evaluation, run=run)
    assert evaluation.held_in_training == {10, 11, 12}
    mark_held(train, run=run)
    assert train.held_in_training == frozenset()


def test_an_audit_goes_on_past_rules_that_are_error_and_names_them(tmp_path: Path) -> None:
    config = build(tmp_path, overlap="error", empty="error", undecodable="error")
    path = tmp_path / "mine.train.tsv"
    path.write_bytes(path.read_bytes() + b"\tonly a target\n" + b"caf\xe9\tx y\n" * 2)
    found = audit_ahead(config)
    assert found.ending == ("empty", "undecodable", "overlap")
    assert found.losses["train"].skipped == {"empty": 1, "undecodable": 2}
    assert found.losses["train"].rows["skip undecodable"] == (f"{path}:62", f"{path}:63")
    with pytest.raises(UserError, match=r"mine\.train\.tsv:61"):
        prepare_ahead(config, beat=no_beat)
    assert audit_ahead(build(tmp_path, empty="error")).ending == ()


def test_an_audit_of_data_that_cannot_be_used_at_all_is_refused(tmp_path: Path) -> None:
    config = build(tmp_path)
    (tmp_path / "mine.train.tsv").write_text("\t\n")
    with pytest.raises(UserError, match="no usable row"):
        audit_ahead(config)
