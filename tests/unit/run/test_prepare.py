"""What a run makes ready before its model: a tokenizer from the training text, made once for all runs that need the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run import prepare as module
from dstrain.run.prepare import prepare
from tests.system.runs import build_run


def test_two_first_runs_at_once_make_the_same_tokenizer_and_the_slower_takes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer = module.train_tokenizer

    def train_twice(*arguments: Any, folder: Path, **settings: Any) -> None:
        train_tokenizer(*arguments, folder=folder, **settings)
        shutil.copytree(folder, folder.with_name(folder.name.split(".tmp-")[0]))  # the other run, a moment earlier

    monkeypatch.setattr(module, "train_tokenizer", train_twice)
    config = build_run(tmp_path)
    prepared = prepare(config, ranks=Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None))
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
