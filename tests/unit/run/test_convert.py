"""What an export for CTranslate2 refuses before any work, and what it says of quantisation."""

from pathlib import Path

import pytest
from transformers import LEDConfig

from dstrain.config.load import dump_config
from dstrain.errors import UserError
from dstrain.run import convert
from dstrain.run.convert import compare, describe_cost, export_converted
from dstrain.run_folder.converted import Cost
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import Scores
from tests.unit.run.run_cases import build_config


def scores(**values: float) -> Scores:
    return Scores(scores=values, groups={}, signatures={}, generation={}, num_rows=2235, warnings=())


def test_a_family_that_has_no_converted_form_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    LEDConfig().save_pretrained(tmp_path / "led")
    run = tmp_path / "run"
    run.mkdir()
    config = build_config(output_dir=str(run), model={"name": str(tmp_path / "led")})
    (run / "config.yaml").write_text(dump_config(config))
    with pytest.raises(
        UserError, match="family `led` cannot be converted for CTranslate2: it has no attention over parts"
    ):
        export_converted(RunFolder(run), directory=run / "step", to=tmp_path / "made", quantization=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["led", "run"]


def test_without_the_package_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrain.serving.conversion.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"CTranslate2 is not installed: pip install 'dstrain\[ctranslate2\]'"):
        export_converted(RunFolder(tmp_path), directory=tmp_path, to=tmp_path / "made", quantization=None)


def test_the_cost_is_that_of_the_metric_of_the_recipe() -> None:
    config = build_config(evaluation__num_beams=4)
    cost = compare(
        scores(bleu=31.5, chrf=50.0), scores(bleu=31.25, chrf=51.0), config=config, computed_in="int8_float32"
    )
    assert cost == Cost("bleu", 31.5, 31.25, 2235, 4, "int8_float32")
    assert describe_cost(cost, quantization="int8") == "bleu 31.5000 → 31.2500 with int8 (2,235 rows, same search)"


def test_where_the_loss_chooses_the_first_other_metric_is_compared() -> None:
    config = build_config(evaluation__best_metric="loss")
    cost = compare(scores(chrf=50.0, bleu=31.5), scores(chrf=51.0, bleu=31.25), config=config, computed_in="int8")
    assert cost is not None
    assert cost.metric == "bleu"


def test_a_recipe_without_another_metric_is_said_to_have_none() -> None:
    cost = compare(scores(gen_len=9.0), scores(gen_len=9.5), config=build_config(), computed_in="int8")
    assert cost is None
    assert "was not measured" in describe_cost(cost, quantization="int8")


def test_the_names_of_weights_are_those_of_exported_folders() -> None:
    assert "model.safetensors".endswith(convert.WEIGHTS)
    assert "model.safetensors.index.json".endswith(convert.WEIGHTS)
    assert not "tokenizer.json".endswith(convert.WEIGHTS)
