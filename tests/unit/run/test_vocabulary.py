"""The ids that a run trains: which they are, and how its folder keeps them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dstrain.config.schema import RunConfig
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.run.vocabulary import choose_vocabulary, forbidden_ids, keep_vocabulary, load_vocabulary
from tests.unit.run.run_cases import build_config

NUM_IDS = 50


def tokens(source: list[int], target: list[int], *, typed: Any = None) -> Any:
    of_side = {"source": source, "target": target}
    return SimpleNamespace(occurring=lambda side: np.asarray(of_side[side], dtype=np.int32), typed=typed)


def tokenizer() -> Any:
    wrapped = SimpleNamespace(
        get_vocab=lambda: {f"word{token_id}": token_id for token_id in range(NUM_IDS)},
        all_special_ids=[0, 1, 2],
        added_tokens_decoder={0: "", 1: "", 2: ""},
        convert_ids_to_tokens=lambda ids: [f"word{token_id}" for token_id in ids],
    )
    return SimpleNamespace(tokenizer=wrapped, languages={}, unk_token_id=2, pad_token_id=0, vocabulary_size=NUM_IDS)


def run_in(folder: Path) -> RunConfig:
    return build_config(output_dir=str(folder / "run"), model__vocabulary="seen")


def keep(config: RunConfig, *ids: int, fingerprint: str | None = None) -> Vocabulary:
    train, evaluation = tokens(list(ids), []), tokens([], [])
    keep_vocabulary(config, tokenizer=tokenizer(), train=train, evaluation=evaluation, fingerprint=fingerprint)
    return load_vocabulary(config, tokenizer=tokenizer())


def test_training_rows_and_evaluation_sources_count_but_no_reference() -> None:
    typed = tokens([40], [41])
    chosen = choose_vocabulary(
        tokenizer(), train=tokens([10, 11], [12]), evaluation=tokens([20], [21, 22], typed=typed)
    )
    assert chosen.kept == (0, 1, 2, 10, 11, 12, 20, 40)
    assert chosen.unknown_id == 2


def test_the_folder_of_a_run_keeps_its_ids(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    kept = keep(config, 10, 30)
    assert kept.kept == (0, 1, 2, 10, 30)
    assert json.loads((tmp_path / "run" / "vocabulary.json").read_text()) == [0, 1, 2, 10, 30]
    # fewer rows: the run keeps its ids
    assert keep(config, 10, fingerprint=kept.fingerprint).kept == kept.kept


def test_rows_with_further_tokens_are_refused_with_the_way_out(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    kept = keep(config, 10)
    with pytest.raises(
        UserError,
        match=r"data\.train.* hold 4 tokens \(`word5`, `word6`, `word7`, …\).*put the data back.*dstrain export",
    ):
        keep(config, 10, 5, 6, 7, 8, fingerprint=kept.fingerprint)
    assert load_vocabulary(config, tokenizer=tokenizer()).kept == kept.kept


def test_lost_ids_are_made_again_only_from_the_same_rows(tmp_path: Path) -> None:
    config = run_in(tmp_path)
    kept = keep(config, 10, 30)
    file = tmp_path / "run" / "vocabulary.json"
    file.unlink()
    assert keep(config, 10, 30, fingerprint=kept.fingerprint).kept == kept.kept
    file.write_text("[0, 1, 2, 9]")
    with pytest.raises(UserError, match="the token ids that this run trains are lost"):
        keep(config, 10, fingerprint=kept.fingerprint)


@pytest.mark.parametrize(
    "content", ["", "[", "{}", "[]", '["a"]', "[3, 2]", "[2, 2]", "[-1]", "[50]", "[1e9]", "[" * 99_999]
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    config = run_in(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "vocabulary.json").write_text(content)
    with pytest.raises(UserError, match=r"vocabulary\.json: not ascending ids.*restore it"):
        load_vocabulary(config, tokenizer=tokenizer())


def test_a_run_of_all_ids_has_no_file(tmp_path: Path) -> None:
    assert load_vocabulary(build_config(output_dir=str(tmp_path / "run")), tokenizer=tokenizer()) is WHOLE
    with pytest.raises(UserError, match=r"vocabulary\.json cannot be read"):
        load_vocabulary(run_in(tmp_path), tokenizer=tokenizer())


def test_what_a_whole_model_must_not_write() -> None:
    assert forbidden_ids(Vocabulary((0, 2, 4)), num_rows=7) == [1, 3, 5, 6]
