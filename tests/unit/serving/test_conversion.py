"""Converted models of every family compute what the models do; what has no converted form is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, M2M100Config, MBartConfig, MvpConfig

from dstrain.errors import UserError
from dstrain.models.families import FAMILIES
from dstrain.run.predict import search_window
from dstrain.run_folder.converted import Conversion, write_conversion
from dstrain.serving import conversion
from dstrain.serving.conversion import (
    FORMS,
    REASONS,
    check_convertible,
    check_distinct,
    check_installed,
    limited_positions,
    list_tokens,
)
from dstrain.serving.translator import load_translator
from tests.unit.models.tiny_models import PAIRS
from tests.unit.run.run_cases import CPU as RANKS
from tests.unit.serving.serving_cases import CONVERTIBLE, CPU, draw_sources, write_exported


@pytest.mark.parametrize("family", CONVERTIBLE)
def test_greedy_search_has_the_hypotheses_of_the_model_and_their_probabilities(family: str, tmp_path: Path) -> None:
    exported = write_exported(family, tmp_path)
    exported.convert(tmp_path / "made")
    write_conversion(tmp_path / "made", Conversion("x", "float32", 0))
    translator = load_translator(tmp_path / "made", device=CPU)
    sources = draw_sources(exported)
    search = exported.search()
    expected = search_window(sources, search=search, ranks=RANKS)
    found = search_window(sources, search=replace(search, engine=translator), ranks=RANKS)
    assert found == expected
    assert len({each.candidates[0].token_ids for each in expected}) > 5, "all hypotheses are alike: nothing is shown"
    # not only the order of the tokens: the probabilities too
    generation = exported.generation()
    for source, each in zip(sources[:8], expected, strict=False):
        (hypothesis,) = each.candidates
        _, ((score,),) = translator.generate([source.ids], generation=generation, num_best=1)
        assert score == pytest.approx(_mean_log_probability(exported, source.ids, hypothesis.token_ids), abs=2e-4)


def _mean_log_probability(exported: Any, source: list[int], hypothesis: tuple[int, ...]) -> float:
    """That of the tokens that were chosen, over all tokens: a forced first one has none of its own, but counts."""
    generation = exported.generation()
    forced = int(generation.forced_bos_token_id is not None)
    given = torch.tensor([[generation.decoder_start_token_id, *hypothesis[:-1]]])
    with torch.no_grad():
        logits = exported.model(input_ids=torch.tensor([source]), decoder_input_ids=given).logits[0]
    for word in generation.bad_words_ids or []:
        logits[:, word[0]] = -torch.inf
    log_probabilities = logits.log_softmax(dim=-1)[torch.arange(len(hypothesis)), torch.tensor(hypothesis)]
    return float(log_probabilities[forced:].sum()) / len(hypothesis)


@pytest.mark.parametrize("family", CONVERTIBLE)
def test_a_token_of_the_converted_vocabulary_is_that_of_its_id(family: str, tmp_path: Path) -> None:
    tokenizer = write_exported(family, tmp_path).tokenizer
    tokens = list_tokens(tokenizer, num_rows=tokenizer.vocabulary_size + 2)
    assert tokens[-1] == f"<row-{tokenizer.vocabulary_size + 1}>"
    source, _ = PAIRS[0]
    (ids,), _ = tokenizer.encode([source], [], source_language=None, target_language=None)
    # as users of CTranslate2 call it
    assert [tokens[i] for i in ids] == tokenizer.tokenizer.convert_ids_to_tokens(ids)


def test_what_a_run_has_not_trained_cannot_be_generated_and_takes_no_probability(tmp_path: Path) -> None:
    whole = write_exported("nllb", tmp_path / "whole")
    common = search_window(draw_sources(whole), search=whole.search(), ranks=RANKS)
    used = {token for each in common for token in each.candidates[0].token_ids[1:-1]}
    forbidden = sorted(used)[::2]
    assert len(forbidden) > 10
    exported = write_exported("nllb", tmp_path / "part", forbidden=forbidden)
    exported.convert(tmp_path / "made")
    write_conversion(tmp_path / "made", Conversion("x", "float32", 0))
    translator = load_translator(tmp_path / "made", device=CPU)
    sources, search = draw_sources(exported), exported.search()
    found = search_window(sources, search=replace(search, engine=translator), ranks=RANKS)
    assert found == search_window(sources, search=search, ranks=RANKS)
    assert not {token for each in found for token in each.candidates[0].token_ids} & set(forbidden)


@pytest.mark.parametrize("quantization", ["int8", "int16", "float16", "bfloat16"])
def test_a_quantised_model_is_smaller_and_still_searches(quantization: str, tmp_path: Path) -> None:
    exported = write_exported("m2m100", tmp_path, forbidden=[9, 10])
    sizes = []
    for name, kind in (("plain", None), ("small", quantization)):
        exported.convert(tmp_path / name, quantization=kind)
        write_conversion(tmp_path / name, Conversion("x", kind or "float32", 0))
        sizes.append((tmp_path / name / "model.bin").stat().st_size)
    assert sizes[1] < 0.75 * sizes[0]
    translator = load_translator(tmp_path / "small", device=CPU)
    assert quantization in translator.name
    search = replace(exported.search(), engine=translator)
    found = search_window(draw_sources(exported), search=search, ranks=RANKS)
    assert not {token for each in found for token in each.candidates[0].token_ids} & {9, 10}


def test_the_model_is_as_it_was_after_its_conversion(tmp_path: Path) -> None:
    exported = write_exported("mbart", tmp_path)
    before = exported.model.config.to_dict()
    exported.convert(tmp_path / "made")
    assert exported.model.config.to_dict() == before
    assert not hasattr(exported.model.config, "normalize_before")


def test_the_start_is_given_with_each_search_only_where_it_is_a_language(tmp_path: Path) -> None:
    starts = {}
    for family in ("mbart", "mbart50", "marian", "t5"):
        write_exported(family, tmp_path / family).convert(tmp_path / family / "made")
        starts[family] = json.loads((tmp_path / family / "made" / "config.json").read_text())["decoder_start_token"]
    assert starts == {"mbart": None, "mbart50": "</s>", "marian": "<pad>", "t5": "<pad>"}


def test_every_family_is_converted_or_has_a_reason() -> None:
    assert {*FORMS, *REASONS} == set(FAMILIES)
    assert not {*FORMS} & {*REASONS}


@pytest.mark.parametrize("kind", sorted(REASONS))
def test_a_family_without_a_converted_form_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UserError, match=f"family `{kind}` cannot be converted for CTranslate2: it (has|does)"):
        check_convertible(AutoConfig.for_model(kind))


def test_shapes_that_the_loaders_do_not_know_are_refused() -> None:
    with pytest.raises(UserError, match="its encoder has 4 attention heads, its decoder 2"):
        check_convertible(MBartConfig(encoder_attention_heads=4, decoder_attention_heads=2))
    with pytest.raises(UserError, match="MVP models with prompts"):
        check_convertible(MvpConfig(use_prompt=True))


def test_a_missing_package_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dstrain\[ctranslate2\]'"):
        check_installed()


def test_a_token_of_two_ids_is_refused() -> None:
    with pytest.raises(UserError, match="file: `b` is the token of both 1 and 3"):
        check_distinct(["a", "b", "c", "b"], where="file")


def test_the_positions_of_m2m100_are_those_of_its_table() -> None:
    assert limited_positions(M2M100Config(max_position_embeddings=77)) == (77, 77)
    assert limited_positions(MBartConfig(max_position_embeddings=66)) == (66, 66)
