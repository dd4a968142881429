"""Batches, caps and single hypotheses."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig, PreTrainedModel

from dstrain.config.evaluation import Evaluation
from dstrain.evaluation.generate import (
    MIN_PART_ROWS,
    MIN_ROW_TOKENS,
    build_generation_config,
    deal_batches,
    evaluation_mode,
    plan_batches,
    plan_cap,
    plan_parts,
    read_sequence,
)
from dstrain.models.loss import Seq2SeqLoss
from tests.unit.evaluation.evaluation_cases import (
    END,
    LANGUAGES,
    PAD,
    build_config,
    build_model,
    build_tokens,
    run_evaluation,
)

FAMILIES = ["m2m100", "t5"]


@given(
    rows=st.lists(st.tuples(st.integers(1, 30), st.sampled_from([None, "en", "zh"])), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 5),
)
def test_every_row_is_in_one_batch_of_one_language_and_every_batch_on_one_rank(
    rows: list[tuple[int, str | None]], batch_size: int, world_size: int
) -> None:
    lengths = np.array([length for length, _ in rows], dtype=np.int32)
    languages = [language for _, language in rows]
    batches = plan_batches(lengths, languages=languages, batch_size=batch_size, max_tokens=1)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(rows)))
    assert [batch.index for batch in batches] == list(range(len(batches)))
    for batch in batches:
        assert len(batch.rows) <= batch_size
        assert {languages[row] for row in batch.rows} == {batch.target_language}
        assert sorted((lengths[row] for row in batch.rows), reverse=True) == [lengths[row] for row in batch.rows]
    shares = deal_batches(batches, source_lengths=lengths, world_size=world_size)
    assert len(shares) == world_size
    assert sorted(batch.index for share in shares for batch in share) == list(range(len(batches)))


def test_a_language_fills_its_batches_before_the_next_begins() -> None:
    languages = ["en", "ko", "en", "ko", "en"]
    batches = plan_batches([3, 9, 5, 1, 4], languages=languages, batch_size=2, max_tokens=1)
    assert [(batch.rows, batch.target_language) for batch in batches] == [((2, 4), "en"), ((0,), "en"), ((1, 3), "ko")]


@given(
    rows=st.lists(st.tuples(st.integers(1, 90), st.sampled_from([None, "en"])), min_size=1, max_size=80),
    max_tokens=st.integers(1, 300),
)
def test_without_a_batch_size_every_batch_is_as_full_as_its_budget_allows(
    rows: list[tuple[int, str | None]], max_tokens: int
) -> None:
    lengths, languages = [length for length, _ in rows], [language for _, language in rows]
    batches = plan_batches(lengths, languages=languages, batch_size=None, max_tokens=max_tokens)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(len(rows)))
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        width = max(MIN_ROW_TOKENS, *(lengths[row] for row in batch.rows), 0)
        assert len(batch.rows) == 1 or len(batch.rows) * width <= max_tokens
        if following is not None and following.target_language == batch.target_language:
            assert (len(batch.rows) + 1) * width > max_tokens


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80))
def test_losses_are_computed_in_parts_with_targets_of_similar_length(lengths: list[int]) -> None:
    parts = plan_parts(lengths)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for number, part in enumerate(parts):
        assert len(part) >= MIN_PART_ROWS or number == len(parts) - 1
        assert lengths[part[0]] == max(lengths[place] for place in part)
        assert all(lengths[place] >= 0.75 * lengths[part[0]] for place in part[MIN_PART_ROWS:])


def test_a_row_without_a_language_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="2 rows and 1 languages"):
        plan_batches([1, 2], languages=["en"], batch_size=2, max_tokens=1)


@pytest.mark.parametrize(
    ("evaluation", "longest", "positions", "expected"),
    [
        ({}, 30, None, 38),  # at least 8 more
        ({}, 200, None, 220),  # a tenth more
        ({}, 201, None, 222),
        ({"max_new_tokens": 50}, 200, None, 50),
        ({}, 60, 64, 63),
        ({"max_new_tokens": 100}, 30, 64, 63),
        ({"max_new_tokens": 63}, 30, 64, 63),
    ],
)
def test_the_length_cap_follows_the_references_unless_it_is_set_and_stays_within_the_positions_of_the_model(
    evaluation: dict[str, Any], longest: int, positions: int | None, expected: int
) -> None:
    cap = plan_cap(Evaluation(**evaluation), longest_reference=longest, max_positions=positions)
    assert cap.max_new_tokens == expected
    if "max_new_tokens" in evaluation:
        assert "evaluation.max_new_tokens" in cap.reason
    else:
        assert f"longest reference, {longest} tokens" in cap.reason
    assert ("positions" in cap.reason) == (expected == 63 and evaluation != {"max_new_tokens": 63})


def test_the_recipe_replaces_stale_settings_and_keeps_the_familys_token_ids() -> None:
    model = build_model("t5")
    model.generation_config.update(
        max_length=20,
        num_beams=5,
        early_stopping=True,
        length_penalty=2.0,
        forced_eos_token_id=END,
        bad_words_ids=[[PAD]],
    )
    config = build_generation_config(
        model, evaluation=Evaluation(num_beams=1), max_new_tokens=33, arguments={"forced_bos_token_id": 7}
    )
    assert (config.max_length, config.max_new_tokens, config.num_beams, config.do_sample) == (None, 33, 1, False)
    assert (config.forced_eos_token_id, config.forced_bos_token_id, config.bad_words_ids) == (None, 7, [[PAD]])
    assert (config.eos_token_id, config.pad_token_id, config.decoder_start_token_id) == (END, PAD, PAD)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_unset_field_is_not_filled_from_the_config_of_the_model(family: str, num_beams: int) -> None:
    model, tokens = build_model(family), build_tokens([None])
    config = build_generation_config(model, evaluation=Evaluation(num_beams=num_beams), max_new_tokens=30, arguments={})
    source = torch.from_numpy(tokens.source(0)).long()[None]

    def generate() -> list[int]:
        with evaluation_mode(model, loss_module=model):
            generated: list[int] = model.generate(input_ids=source, generation_config=config)[0].tolist()
        return generated

    straight = generate()
    model.generation_config.update(max_length=6, no_repeat_ngram_size=1, min_length=25, forced_eos_token_id=9)
    assert generate() == straight


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_config_of_the_model_are_restored_even_after_an_error(fails: bool) -> None:
    model = build_model("t5").train()
    model.encoder.eval()  # a frozen part stays as it was
    loss = Seq2SeqLoss(model)
    own, modes = model.generation_config, {name: module.training for name, module in loss.named_modules()}
    try:
        with evaluation_mode(model, loss_module=loss):
            assert not any(module.training for module in loss.modules())
            assert not torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert model.generation_config is own
    assert {name: module.training for name, module in loss.named_modules()} == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("sequence", "token_ids", "num_tokens", "was_cut"),
    [
        ([END, 36, 5, 6, END, PAD, PAD], (36, 5, 6, END), 5, False),  # M2M100 starts with the end token
        ([PAD, 5, 6, 7, END, PAD, PAD], (5, 6, 7, END), 4, False),  # T5 starts with padding
        ([PAD, 5, 6, 7, 8, 9, 10], (5, 6, 7, 8, 9, 10), 6, True),
        ([PAD, 5, 6, 7, 8, 9, END], (5, 6, 7, 8, 9, END), 6, False),  # ends by itself just within the cap
        ([END, END, PAD, PAD, PAD, PAD, PAD], (END,), 2, False),
        (
            [PAD, 5, 6, END, END, END, END],
            (5, 6, END),
            3,
            False,
        ),  # generate() pads with token 0
    ],
)
def test_a_generated_sequence_is_read_without_start_and_padding(
    sequence: list[int], token_ids: tuple[int, ...], num_tokens: int, was_cut: bool
) -> None:
    generation = GenerationConfig(max_new_tokens=6, eos_token_id=END, pad_token_id=PAD)
    hypothesis = read_sequence(np.array(sequence), row=3, pad_id=PAD, generation=generation)
    assert (hypothesis.row, hypothesis.token_ids) == (3, token_ids)
    assert (hypothesis.num_tokens, hypothesis.was_cut) == (num_tokens, was_cut)


def generate_alone(model: PreTrainedModel, source: torch.Tensor, **settings: Any) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        sequence: torch.Tensor = model.generate(input_ids=source, do_sample=False, **settings)
    return sequence[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_hypotheses_in_batches_equal_those_of_each_row_alone(family: str, num_beams: int) -> None:
    languages: list[str | None] = ["en", "ko", "en"] * 7 if family == "m2m100" else [None] * 21
    model, tokens = build_model(family), build_tokens(languages)
    result = run_evaluation(model, tokens, config=build_config(num_beams=num_beams))
    alone, lengths = [], []
    for row, language in enumerate(languages):
        settings = {} if language is None else {"forced_bos_token_id": LANGUAGES[language]}
        sequence = generate_alone(
            model,
            torch.from_numpy(tokens.source(row)).long()[None],
            max_new_tokens=result.scores.generation["max_new_tokens"],
            num_beams=num_beams,
            **settings,
        )
        alone.append(" ".join(f"w{token}" for token in sequence.tolist() if 4 <= token < 36 or token > 38))
        lengths.append(np.count_nonzero(sequence.numpy() != PAD))  # as run_translation.py of transformers counts
    assert result.texts.hypotheses == alone
    assert len(set(alone)) >= 10, "the model says the same of every row: the comparison shows nothing"
    assert 0 < result.scores.scores["hit_cap_rate"] < 1
    assert result.scores.scores["gen_len"] == np.mean(lengths)
