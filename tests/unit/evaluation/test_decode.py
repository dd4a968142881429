"""Our own greedy and beam search returns the tokens of transformers' `generate()`, with less work."""

from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import PreTrainedModel

from dstrain.evaluation.decode import SHARED_ATTENTION, shared_attention, should_compact, unserved
from dstrain.evaluation.generate import evaluation_mode, generate, generate_best
from tests.unit.evaluation.decoding_cases import (
    CAP,
    FAMILIES,
    LANGUAGE,
    build_generation,
    build_model,
    build_sources,
    read,
    search,
    stock,
)

NUM_ROWS = 200


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_beams", [1, 5])
def test_every_family_has_the_hypotheses_of_generate(family: str, num_beams: int) -> None:
    model = build_model(family)
    # shorter hypotheses win without a penalty, so that many end by themselves
    generation = build_generation(model, num_beams=num_beams, **({"length_penalty": 0.0} if num_beams > 1 else {}))
    assert unserved(model, generation=generation) is None
    ours = search(model, generation, num_rows=NUM_ROWS)
    assert ours == stock(model, generation, num_rows=NUM_ROWS)
    was_cut = [len(tokens) == 1 + CAP and tokens[-1] != model.config.eos_token_id for tokens in ours]
    assert 0 < sum(was_cut) < NUM_ROWS - 10
    assert len(set(map(tuple, ours))) > 25, "the model says the same of every row: the comparison shows nothing"
    if family == "m2m100":
        assert {tokens[1] for tokens in ours} == {LANGUAGE}


@pytest.mark.parametrize("length_penalty", [-1.0, 1.0, 2.0])
@pytest.mark.parametrize(("family", "num_beams"), [("mbart", 2), ("t5", 4)])
def test_the_length_penalty_is_that_of_generate(family: str, num_beams: int, length_penalty: float) -> None:
    model = build_model(family)
    generation = build_generation(model, num_beams=num_beams, length_penalty=length_penalty)
    assert search(model, generation, num_rows=100) == stock(model, generation, num_rows=100)


@pytest.mark.parametrize(("family", "length_penalty"), [*((family, 0.0) for family in FAMILIES), ("mt5", 1.0)])
def test_the_whole_beam_and_its_scores_are_those_of_generate(family: str, length_penalty: float) -> None:
    model = build_model(family)
    generation = build_generation(model, num_beams=5, length_penalty=length_penalty)
    ids, mask = build_sources(model, num_rows=25)
    given: dict[str, Any] = {"source_ids": ids, "source_mask": mask, "generation": generation, "num_best": 4}
    with evaluation_mode(model, loss_module=model):
        sequences, scores = generate_best(model, **given)
        stocks = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=generation,
            num_return_sequences=4,
            return_dict_in_generate=True,
            output_scores=True,
        )
    assert sequences.shape[:2] == scores.shape == (25, 4)
    ours = read(sequences.flatten(0, 1), generation)
    assert ours == read(stocks.sequences, generation)
    torch.testing.assert_close(scores.flatten(), stocks.sequences_scores, rtol=1e-4, atol=1e-5)
    assert len(set(map(tuple, ours))) > 40, "hypotheses are alike: the comparison shows nothing"


def test_a_setting_that_the_search_does_not_support_has_the_whole_beam_of_generate() -> None:
    model = build_model("t5")
    generation = build_generation(model, num_beams=3)
    ids, mask = build_sources(model, num_rows=10)
    given: dict[str, Any] = {"source_ids": ids, "source_mask": mask, "generation": generation, "num_best": 2}
    with evaluation_mode(model, loss_module=model):
        sequences, scores = generate_best(model, **given)
        with patch("dstrain.evaluation.generate.unserved", return_value="requested"):
            stocks, stock_scores = generate_best(model, **given)
    assert stocks.shape[:2] == (10, 2)
    assert read(stocks.flatten(0, 1), generation) == read(sequences.flatten(0, 1), generation)
    torch.testing.assert_close(scores, stock_scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"eos_token_id": [1, 8, 17]},
        {"bad_words_ids": [[5], [6], [1]]},  # the end cannot be forbidden
        {"forced_bos_token_id": 9},
        {"max_new_tokens": 1},
        {"max_new_tokens": 2, "forced_bos_token_id": 9},
    ],
)
def test_end_tokens_forbidden_words_forced_tokens_and_short_caps_are_treated_as_in_generate(
    num_beams: int, settings: dict[str, Any]
) -> None:
    model = build_model("mt5")
    generation = build_generation(model, num_beams=num_beams, **settings)
    assert unserved(model, generation=generation) is None
    ours = search(model, generation, num_rows=100)
    assert ours == stock(model, generation, num_rows=100)
    if "eos_token_id" in settings:
        assert {tokens[-1] for tokens in ours} >= {1, 8, 17}
    if "bad_words_ids" in settings:
        assert not {5, 6} & {token for tokens in ours for token in tokens}


class Watcher:
    """How many hypotheses a model's decoder reads at each step, and of how many sources it holds the keys."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.hypotheses: list[int] = []
        self.sources: list[int] = []
        model.get_decoder().register_forward_hook(self._watch, with_kwargs=True)

    def _watch(self, decoder: torch.nn.Module, arguments: Any, given: dict[str, Any], output: Any) -> None:
        self.hypotheses.append(len(given["input_ids"]))
        self.sources.append(len(given["past_key_values"].cross_attention_cache.layers[-1].keys))


@pytest.mark.parametrize(("num_beams", "family"), [(1, "mbart"), (4, "t5")])
def test_rows_leave_the_batch_when_they_have_ended(num_beams: int, family: str) -> None:
    model = build_model(family)
    watcher = Watcher(model)
    penalty = {"length_penalty": 0.0} if num_beams > 1 else {}
    ours = search(model, build_generation(model, num_beams=num_beams, **penalty), num_rows=NUM_ROWS)
    assert watcher.sources == sorted(watcher.sources, reverse=True)
    last = min(watcher.sources)
    assert sum(len(tokens) == 1 + CAP for tokens in ours) <= last < 0.7 * NUM_ROWS


def test_beams_share_the_keys_of_their_source_and_are_computed_once_until_they_differ() -> None:
    model = build_model("m2m100")
    watcher = Watcher(model)
    search(model, build_generation(model, num_beams=5), num_rows=8)
    # the language is forced: the first choice comes after the second step
    assert watcher.hypotheses[:3] == [8, 8, 40]
    assert watcher.sources[:3] == [8, 8, 8]
    assert watcher.hypotheses[2:] == [5 * sources for sources in watcher.sources[2:]]


def test_a_batch_is_copied_only_when_an_eighth_of_it_has_ended() -> None:
    assert should_compact(7, num_held=8)
    assert not should_compact(8, num_held=8)
    assert should_compact(87, num_held=100) != should_compact(89, num_held=100)
    assert should_compact(1, num_held=2)


def test_sources_may_be_encoded_already() -> None:
    model = build_model("t5")
    generation = build_generation(model)
    ids, mask = build_sources(model, num_rows=20)
    given = {"source_ids": ids, "source_mask": mask, "generation": generation}
    with evaluation_mode(model, loss_module=model):
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        straight = generate(model, encoded=None, **given)  # type: ignore[arg-type]
        assert torch.equal(generate(model, encoded=encoded, **given), straight)  # type: ignore[arg-type]
        assert not torch.equal(generate(model, encoded=encoded.flip(0), **given), straight)  # type: ignore[arg-type]


def test_the_attention_of_the_model_is_restored_even_after_an_error() -> None:
    model = build_model("m2m100")
    try:
        with shared_attention(model):
            assert model.get_decoder().config._attn_implementation == SHARED_ATTENTION
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert model.get_decoder().config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size"),
        ({"forced_eos_token_id": 1}, "forced_eos_token_id"),
        ({"num_beams": 2, "early_stopping": True}, "early stopping"),
        ({"do_sample": True}, "sampling"),
        ({"max_new_tokens": None}, "without max_new_tokens"),
        ({"eos_token_id": None}, "without eos_token_id"),
        ({"bad_words_ids": [[5, 6]]}, "several tokens"),
        ({"forced_bos_token_id": 1}, "ends the hypothesis"),
        ({"forced_bos_token_id": 9, "max_new_tokens": 1}, "ends the hypothesis"),
        ({"num_beams": 61}, "vocabulary of 120 for 61 beams"),
    ],
)
def test_generate_is_used_for_a_setting_that_our_search_does_not_support(settings: dict[str, Any], reason: str) -> None:
    model = build_model("t5")
    found = unserved(model, generation=build_generation(model, **settings))
    assert found is not None
    assert reason in found


def test_generate_is_used_for_another_attention() -> None:
    model = build_model("t5")
    model.set_attn_implementation("eager")
    found = unserved(model, generation=build_generation(model))
    assert found == "attention implementation `eager`"
    generation = build_generation(model, num_beams=2)
    assert search(model, generation, num_rows=10) == stock(model, generation, num_rows=10)
