"""The process that tokenises a share: what it says, and when it ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from dstrain.data.shards import count_shards, shard_path
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run import encode_shards as module
from dstrain.run.encode_shards import main
from tests.unit.run.run_cases import build_config


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dstrain.models.scratch import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    texts = ["one two three four", "five six seven"]
    write_tokenizer("t5", vocabulary_size=40, texts=texts, languages=(), task_tokens=(), folder=folder)
    return folder


def write_request(folder: Path, tokenizer: Path, *, text: str, **changes: Any) -> Path:
    (folder / "rows.tsv").write_text(text)
    rows = [{"path": str(folder / "rows.tsv")}]
    config = build_config(
        data={"train": rows, "eval": rows}, task={"kind": "translation"}, model={"scratch": {"architecture": "t5"}}
    )
    request = {
        "config": config.model_dump(mode="json"),
        "tokenizer": str(tokenizer),
        "fingerprint": load_tokenizer(str(tokenizer)).fingerprint,
        "folder": str(folder / "shards"),
        "num_processes": 1,
        **changes,
    }
    path = folder / "request.json"
    path.write_text(json.dumps(request))
    return path


def test_it_makes_its_shards_and_counts_its_records(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(write_request(tmp_path, tokenizer, text="one\ttwo\n" * 5), first=0) == 0
    assert count_shards(tmp_path / "shards") == 1
    assert shard_path(tmp_path / "shards", 0).is_dir()
    assert sum(map(json.loads, capsys.readouterr().out.split())) == 5


def test_another_tokenizer_than_that_of_the_request_is_no_use(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(RuntimeError, match="another tokenizer"):
        main(write_request(tmp_path, tokenizer, text="one\ttwo\n", fingerprint="0" * 64), first=0)


def test_a_mistake_of_the_user_is_said(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(write_request(tmp_path, tokenizer, text="a\tb\tc\nd\n"), first=0) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"].startswith(f"{tmp_path}/rows.tsv:")


def test_it_ends_when_nobody_listens_and_leaves_no_draft(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_pipe(records: int) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(module, "_say", break_pipe)
    assert main(write_request(tmp_path, tokenizer, text="one\ttwo\n" * 5), first=0) == 1
    assert list((tmp_path / "shards").iterdir()) == []
