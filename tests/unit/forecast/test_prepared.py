"""The token sets of a recipe are found again without its tokenizer, as long as nothing has changed."""

import subprocess
import sys
from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.forecast.prepared import find_prepared
from dstrain.run.prepare import prepare_ahead
from tests.unit.forecast.forecast_cases import build_recipe


def test_what_prepare_makes_is_found(tmp_path: Path) -> None:
    config, cache = build_recipe(tmp_path), tmp_path / "cache"
    assert find_prepared(config, cache=cache) is None
    train, evaluation = prepare_ahead(config, beat=lambda _: None)
    found = find_prepared(config, cache=cache)
    assert found is not None
    assert (found.train.folder, found.eval.folder) == (train, evaluation)
    assert found.train.num_rows == 300
    occurring = set(found.train.occurring("source").tolist()) | set(found.train.occurring("target").tolist())
    assert len(occurring) <= found.num_read <= len(occurring) + len(found.note.special_ids)
    assert found.note.vocabulary_size > max(occurring)


def test_what_does_not_decide_tokens_may_change_and_the_rest_may_not(tmp_path: Path) -> None:
    config, cache = build_recipe(tmp_path), tmp_path / "cache"
    prepare_ahead(config, beat=lambda _: None)

    def is_found(**sections: dict[str, object]) -> bool:
        values = config.model_dump()
        for name, changes in sections.items():
            values[name] |= changes
        return find_prepared(RunConfig.model_validate(values), cache=cache) is not None

    assert is_found(training={"learning_rate": 1.0}, machine={"zero_stage": 2})
    assert not is_found(task={"max_source_tokens": 9})
    with (tmp_path / "train.tsv").open("a") as file:
        file.write("one more\trow\n")
    assert not is_found()


def test_a_damaged_note_or_set_is_as_none(tmp_path: Path) -> None:
    config, cache = build_recipe(tmp_path), tmp_path / "cache"
    prepare_ahead(config, beat=lambda _: None)
    (note,) = (cache / "prepared").iterdir()
    text = note.read_text()
    for broken in ("", "{}", "[1]", text.replace('"train": "', '"train": "x')):
        note.write_text(broken)
        assert find_prepared(config, cache=cache) is None, broken


def test_finding_them_needs_no_torch(tmp_path: Path) -> None:
    config = build_recipe(tmp_path)
    prepare_ahead(config, beat=lambda _: None)
    (tmp_path / "recipe.json").write_text(config.model_dump_json())
    code = (
        "import sys\nfrom pathlib import Path\nfrom dstrain.config.schema import RunConfig\n"
        "from dstrain.forecast.prepared import find_prepared\n"
        "config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "assert find_prepared(config, cache=Path(sys.argv[2])) is not None\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "recipe.json"), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
