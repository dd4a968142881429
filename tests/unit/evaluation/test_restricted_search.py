"""A model with part of its rows generates what the whole one does that must not write the other ids."""

import copy

import pytest

from dstrain.evaluation.decode import unserved
from dstrain.evaluation.generate import evaluation_mode, generate
from dstrain.models.restrict import keep_rows
from tests.unit.evaluation.decoding_cases import (
    FAMILIES,
    LANGUAGE,
    VOCABULARY,
    build_generation,
    build_model,
    build_sources,
    read,
)

NUM_ROWS = 100
WRITTEN = [*range(4), *range(5, VOCABULARY, 3)]
"""Of the ids in the sources, which are random, the search may write a third."""


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_small_model_has_the_hypotheses_of_the_whole_one(family: str, num_beams: int) -> None:
    model = build_model(family)
    sources, mask = build_sources(model, num_rows=NUM_ROWS)
    kept = sorted({*WRITTEN, LANGUAGE})
    sources = sources.apply_(lambda token: token if token in kept else kept[token % len(kept)])
    forbidden = [token for token in range(VOCABULARY) if token not in kept]
    settings = {"renormalize_logits": True, "length_penalty": 0.0} if num_beams > 1 else {}
    whole = build_generation(model, num_beams=num_beams, suppress_tokens=forbidden, **settings)
    with evaluation_mode(model, loss_module=model):
        stock = read(model.generate(input_ids=sources, attention_mask=mask, generation_config=whole), whole)
        ours = read(generate(model, source_ids=sources, source_mask=mask, encoded=None, generation=whole), whole)
    assert unserved(model, generation=whole) is None
    assert ours == stock
    assert len(set(map(tuple, stock))) > 8
    small = copy.deepcopy(model)
    keep_rows(small, kept)
    row_of = {token: row for row, token in enumerate(kept)}
    ids = {} if whole.forced_bos_token_id is None else {"forced_bos_token_id": row_of[LANGUAGE]}
    words = {} if whole.bad_words_ids is None else {"bad_words_ids": [[row_of[model.config.pad_token_id]]]}
    settled = build_generation(small, num_beams=num_beams, **settings, **ids, **words)
    rows = sources.clone().apply_(row_of.__getitem__)
    with evaluation_mode(small, loss_module=small):
        found = read(generate(small, source_ids=rows, source_mask=mask, encoded=None, generation=settled), settled)
    assert [[kept[row] for row in hypothesis] for hypothesis in found] == stock
