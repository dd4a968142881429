"""The run's tokenizer: kept where its fingerprint fits, refused where another one would be made."""

import json
from pathlib import Path

import pytest

from dstrain.data.tokens import SetUp
from dstrain.errors import UserError
from dstrain.run.run_tokenizer import keep_tokenizer, make_tokenizer
from tests.system.runs import build_run


def test_a_tokenizer_is_kept_only_if_it_has_the_fingerprint_that_is_wanted(tmp_path: Path) -> None:
    config, folder = build_run(tmp_path), tmp_path / "tokenizer"
    assert keep_tokenizer(config, folder=folder, fingerprint="any") is None
    made = make_tokenizer(config, folder=folder, fingerprint=None, set_up=SetUp())
    kept = keep_tokenizer(config, folder=folder, fingerprint=made.fingerprint)
    assert kept is not None
    assert kept.fingerprint == made.fingerprint
    assert keep_tokenizer(config, folder=folder, fingerprint="another") is None
    for path in folder.glob("*.json"):
        path.write_text(json.dumps({}))
    assert keep_tokenizer(config, folder=folder, fingerprint=made.fingerprint) is None


def test_another_tokenizer_than_that_of_the_weights_is_not_put_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="restore that folder"):
        make_tokenizer(build_run(tmp_path), folder=tmp_path / "tokenizer", fingerprint="lost", set_up=SetUp())
    assert not (tmp_path / "tokenizer").exists()


def test_rules_about_several_rows_leave_the_cached_tokenizer_as_it_is(tmp_path: Path) -> None:
    folders = []
    for rules in ({}, {"duplicates": "skip", "overlap": "skip_train"}):
        config = build_run(tmp_path)
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"rules": config.data.rules.model_copy(update=rules)})}
        )
        make_tokenizer(config, folder=tmp_path / f"tokenizer-{len(folders)}", fingerprint=None, set_up=SetUp())
        assert config.machine.cache_dir is not None
        folders.append(sorted((Path(config.machine.cache_dir) / "tokenizers").iterdir()))
    assert folders[0] == folders[1]
