"""What a run makes ready before its model: a tokenizer from the training text, made once for all runs that need the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.attempt.rank_records import Phases, ranks_dir
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run import run_tokenizer as module
from dstrain.run.prepare import Prepared, prepare
from dstrain.run_folder.sealed import sealed_folder
from tests.system.runs import build_run
from tests.unit.run.run_cases import CPU


def prepare_alone(config: RunConfig, **options: Any) -> Prepared:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    return prepare(config, ranks=ranks, **options)


def test_two_first_runs_at_once_make_the_same_tokenizer_and_the_slower_takes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer = module.train_tokenizer

    def train_twice(*arguments: Any, folder: Path, **settings: Any) -> None:
        train_tokenizer(*arguments, folder=folder, **settings)
        with sealed_folder(folder.with_name(folder.name.split(".tmp-")[0])) as other:  # the other run, a moment earlier
            shutil.copytree(folder, other, dirs_exist_ok=True)

    monkeypatch.setattr(module, "train_tokenizer", train_twice)
    config = build_run(tmp_path)
    prepared = prepare_alone(config)
    assert config.machine.cache_dir is not None
    (cached,) = (Path(config.machine.cache_dir) / "tokenizers").iterdir()  # and no draft beside it
    assert prepared.tokenizer.fingerprint == load_tokenizer(str(cached)).fingerprint


@pytest.mark.parametrize(
    ("segmentation", "pointers"),
    [("words", [*(f"<pt-{place}>" for place in range(20)), "<pt-join>"]), ("published", ["<pt-1>"])],
)
def test_every_place_that_a_source_can_have_is_a_token_where_words_are_cut(
    tmp_path: Path, segmentation: str, pointers: list[str]
) -> None:
    (tmp_path / "rows.tsv").write_text("call mom\t[IN:CALL [SL:WHO mom ] ]\n")
    source = [{"path": str(tmp_path / "rows.tsv")}]
    config = RunConfig.model_validate(
        {
            "name": "test",
            "output_dir": str(tmp_path / "run"),
            "model": {"scratch": {"architecture": "t5", "vocabulary_size": 100}},
            "task": {"kind": "parsing", "segmentation": segmentation, "max_source_tokens": 20},
            "data": {"train": source, "eval": source},
            "training": {"batch_size": 1, "max_steps": 1, "learning_rate": 1e-3},
            "machine": {"cache_dir": str(tmp_path / "cache")},
        }
    )
    prepared = prepare(config, ranks=Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None))
    added = prepared.tokenizer.tokenizer.get_added_vocab()
    assert [token for token in added if token.startswith("<pt-")] == pointers


def test_a_second_start_reads_no_row_of_unchanged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.tsv").write_text("call mom\t[IN:CALL [SL:WHO mom ] ]\n" * 4)
    rows = [{"path": str(tmp_path / "rows.tsv")}]
    scratch = {"architecture": "t5", "vocabulary_size": 100}
    config = build_run(
        tmp_path, task={"kind": "parsing"}, data={"train": rows, "eval": rows}, model={"scratch": scratch}
    )
    first = prepare_alone(config)

    def refuse(*arguments: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "read_records", refuse)
    monkeypatch.setattr("dstrain.data.shards.read_records", refuse)
    assert prepare_alone(config).fingerprints == first.fingerprints


def test_work_on_the_data_is_progress(tmp_path: Path) -> None:
    phases = Phases(ranks_dir(tmp_path), rank=0, attempt=1)
    before = phases.record().beats
    config = build_run(tmp_path)
    prepare(config, ranks=CPU, phases=phases)
    # hashing, reading for the tokenizer, tokenising and joining, of both sets
    assert phases.record().beats >= before + 6


def test_a_set_that_chooses_the_best_model_must_have_rows_that_are_scored(tmp_path: Path) -> None:
    first = build_run(tmp_path).data.eval[0].path
    rows = [{"path": first}, {"path": first, "name": "flores"}]
    given = {"data__eval": rows, "evaluation__best_metric": "flores/bleu"}
    config = build_run(tmp_path, **given)
    assert [row.eval_set for row in prepare_alone(config).eval.examples].count("flores") > 0
    with pytest.raises(UserError, match=r"`flores/bleu`: no row of data.eval `flores` is scored \(2 rows in all\)"):
        prepare_alone(build_run(tmp_path, **given, evaluation__max_rows=2))


def test_a_tokenizer_for_bleu_that_is_not_installed_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstrain.evaluation.bleu_tokenizer.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"evaluation\.bleu_tokenizer `ko-mecab` is not installed"):
        prepare_alone(build_run(tmp_path, evaluation__bleu_tokenizer="ko-mecab"))


def with_fewer_rows(folder: Path) -> RunConfig:
    (source,) = build_run(folder).data.train
    return build_run(folder, data__train=[{"path": source.path, "max_rows": 60}])


def test_a_run_that_goes_on_with_other_rows_keeps_its_tokenizer(tmp_path: Path) -> None:
    first = prepare_alone(build_run(tmp_path)).tokenizer.fingerprint
    again = prepare_alone(with_fewer_rows(tmp_path), kept_tokenizer=first)
    assert (again.tokenizer.fingerprint, again.train.num_rows) == (first, 60)
    assert prepare_alone(with_fewer_rows(tmp_path)).tokenizer.fingerprint != first, "a new run makes its own"


def test_a_tokenizer_that_is_lost_is_made_again_only_as_it_was(tmp_path: Path) -> None:
    config, folder = build_run(tmp_path), tmp_path / "run" / "tokenizer"
    fingerprint = prepare_alone(config).tokenizer.fingerprint
    for file in folder.iterdir():
        file.write_bytes(b"damaged")
    assert prepare_alone(config, kept_tokenizer=fingerprint).tokenizer.fingerprint == fingerprint
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="the tokenizer that the weights of this run belong to is lost"):
        prepare_alone(with_fewer_rows(tmp_path), kept_tokenizer=fingerprint)
    assert not folder.exists()
    assert prepare_alone(config, kept_tokenizer=fingerprint).tokenizer.fingerprint == fingerprint
