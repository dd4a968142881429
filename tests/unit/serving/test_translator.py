"""Searches by CTranslate2: scores, limits, and folders that cannot be used."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.run.predict import search_window
from dstrain.run_folder.converted import Conversion, write_conversion
from dstrain.serving.translator import Translator, load_translator
from tests.unit.run.run_cases import CPU as RANKS
from tests.unit.serving.serving_cases import CAP, CPU, Exported, draw_sources, write_exported


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return write_exported("nllb", tmp_path_factory.mktemp("nllb"))


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A converted model."""
    exported.convert(tmp_path / "made")
    write_conversion(tmp_path / "made", Conversion("4.8.5", "float32", 64))
    return tmp_path / "made"


@pytest.fixture
def translator(folder: Path) -> Translator:
    return load_translator(folder, device=CPU)


def test_it_names_itself_with_its_version_and_the_type_of_the_weights(translator: Translator, folder: Path) -> None:
    import ctranslate2

    assert translator.name == f"CTranslate2 {ctranslate2.__version__} (float32)"
    write_conversion(folder, Conversion("4.8.5", "float16", 64))  # which this processor does not compute in
    assert load_translator(folder, device=CPU).name.endswith("(float16, computed in float32)")


def test_the_best_of_a_beam_come_with_their_scores_in_order(exported: Exported, translator: Translator) -> None:
    search = replace(exported.search(num_beams=4, num_best=3), engine=translator)
    sources = draw_sources(exported)
    found = search_window(sources, search=search, ranks=RANKS)
    alone = search_window(sources, search=replace(search, num_best=None), ranks=RANKS)
    for several, one in zip(found, alone, strict=True):
        assert len({each.token_ids for each in several.candidates}) == 3
        assert several.candidates[0].token_ids == one.candidates[0].token_ids
        assert one.candidates[0].score is None
        scores = [each.score for each in several.candidates if each.score is not None]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)
        assert all(score < 0 for score in scores)


def test_lengths_are_counted_as_by_the_own_search(exported: Exported, translator: Translator) -> None:
    sources = draw_sources(exported)
    ends = exported.model.config.eos_token_id
    for cap in (2, 3, CAP):
        search = replace(exported.search(), max_new_tokens=cap)
        found = search_window(sources, search=replace(search, engine=translator), ranks=RANKS)
        assert found == search_window(sources, search=search, ranks=RANKS)
        lengths = [len(each.candidates[0].token_ids) for each in found]
        assert max(lengths) == cap
        for each in found:
            assert each.candidates[0].was_cut == (each.candidates[0].token_ids[-1] != ends)
    assert min(lengths) < CAP


def test_the_batch_of_a_source_does_not_matter(exported: Exported, translator: Translator) -> None:
    sources = draw_sources(exported)
    search = replace(exported.search(), engine=translator)
    together = search_window(sources, search=search, ranks=RANKS)
    alone = search_window(sources, search=replace(search, batch_tokens=1), ranks=RANKS)
    assert together == alone


def test_a_source_beyond_the_positions_is_refused(exported: Exported, translator: Translator) -> None:
    too_long = [[5] * (exported.model.config.max_position_embeddings + 1)]
    with pytest.raises(UserError, match=r"CTranslate2 cannot search these sources: .*position"):
        translator.generate(too_long, generation=exported.generation(), num_best=None)


def test_another_start_than_that_of_the_conversion_is_refused(exported: Exported, translator: Translator) -> None:
    generation = exported.generation()
    generation.decoder_start_token_id = 7
    with pytest.raises(UserError, match="begins hypotheses with `</s>`, and the settings say `"):
        translator.generate([[5, 2]], generation=generation, num_best=None)


def _repeat_a_token(folder: Path) -> None:
    file = folder / "shared_vocabulary.json"
    tokens = json.loads(file.read_text())
    tokens[9] = tokens[8]
    file.write_text(json.dumps(tokens))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda folder: (folder / "dstrain.json").unlink(),
            r"dstrain\.json cannot be read .*dstrain export RUN FOLDER",
        ),
        (lambda folder: (folder / "dstrain.json").write_text("{}"), r"dstrain\.json: version: Field required"),
        (lambda folder: (folder / "model.bin").write_bytes(b"no model"), "cannot load it on `cpu`"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot load it on `cpu`"),
        (lambda folder: (folder / "shared_vocabulary.json").unlink(), "cannot load it on `cpu`"),
        (_repeat_a_token, r"shared_vocabulary\.json: `.*` is the token of both 8 and 9"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message) as raised:
        load_translator(folder, device=CPU)
    assert str(folder) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
