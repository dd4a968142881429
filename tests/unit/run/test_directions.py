"""The languages of exported folders: those of the training rows, with a row of each pair to prove them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dstrain.run.directions import find_directions, run_languages
from dstrain.run_folder.record import counted_pairs
from dstrain.tasks.translation import Languages
from tests.unit.run.run_cases import build_config, write_run

COUNTED = [("ko", "en", "", 9), ("en", "ko", "", 8)]


def example(source: str, pair: tuple[str, str]) -> Any:
    return SimpleNamespace(source=source, source_language=pair[0], target_language=pair[1])


def test_a_whole_row_of_each_pair_proves_a_folder() -> None:
    there, back = ("ko", "en"), ("en", "ko")
    examples = [
        example(*each) for each in (("cut", there), ("__en__", there), ("가", there), ("나", there), ("go", back))
    ]
    limit = build_config().task.max_source_tokens
    lengths = [limit, 3, 3, 3, 3]
    tokens: Any = SimpleNamespace(examples=examples, source=lambda row: [0] * lengths[row])
    tokenizer: Any = SimpleNamespace(spells_control_token=lambda text: text.startswith("__"))
    found = find_directions(build_config(), counted=COUNTED, tokens=tokens, tokenizer=tokenizer)
    assert found.rows == [("가", "ko", "en"), ("go", "en", "ko")]
    assert {*found.pairs} == {there, back}


def test_the_pairs_are_those_of_the_record_of_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    content = json.loads(folder.info.read_text()) if folder.info.exists() else {}
    folder.info.write_text(json.dumps(content | {"data": {"train": {"pairs": COUNTED}}}))
    assert list(counted_pairs(folder)) == COUNTED
    folder.info.unlink()
    assert counted_pairs(folder) == ()


def test_without_a_record_the_languages_are_those_of_the_recipe() -> None:
    config = build_config()
    assert run_languages(config, counted=()) == [Languages(*config.languages)]
