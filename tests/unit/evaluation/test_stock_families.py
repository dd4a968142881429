"""Hypotheses of the families that are only fine-tuned: our search where it is proved equal, else `generate()` itself."""

import pytest
import torch
from transformers import PreTrainedModel

from dstrain.evaluation.decode import unserved
from dstrain.evaluation.generate import evaluation_mode, generate
from dstrain.models.families import configured_start_id, is_searched
from tests.unit.evaluation.decoding_cases import CAP, VOCABULARY, build_generation, build_sources, read, search, stock
from tests.unit.models.stock_families import STOCK_FAMILIES, build_stock_model

NUM_ROWS = 60
SEARCHED = ("bart", "pegasus", "umt5", "byt5", "plbart", "blenderbot")
LANGUAGE = 50


def build_model(family: str) -> PreTrainedModel:
    """Random weights under which hypotheses differ, and end early, late or not at all."""
    model = build_stock_model(family, num_rows=VOCABULARY)
    embedding = model.get_decoder().get_input_embeddings().weight
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed_positions" not in name:
                parameter.normal_(std=0.5 if parameter is embedding else 1.0)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
            model.final_logits_bias[:, model.config.eos_token_id] = 2.5
        else:
            model.get_output_embeddings().weight[model.config.eos_token_id] *= 1.5
    return model.eval()


@pytest.mark.parametrize("family", SEARCHED)
@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_built_in_search_has_the_hypotheses_of_generate(family: str, num_beams: int) -> None:
    model = build_model(family)
    start = LANGUAGE if family == "plbart" else configured_start_id(model.config)
    first = {"forced_bos_token_id": model.config.bos_token_id} if family == "bart" else {}
    penalty = {"length_penalty": 0.0} if num_beams > 1 else {}
    generation = build_generation(model, num_beams=num_beams, decoder_start_token_id=start, **first, **penalty)
    assert unserved(model, generation=generation) is None
    ours = search(model, generation, num_rows=NUM_ROWS)
    assert ours == stock(model, generation, num_rows=NUM_ROWS)
    was_cut = [len(tokens) == 1 + CAP and tokens[-1] != model.config.eos_token_id for tokens in ours]
    assert 0 < sum(was_cut) < NUM_ROWS
    assert len(set(map(tuple, ours))) > 6, "the model says the same of every row: the comparison shows nothing"


@pytest.mark.parametrize("family", sorted({*STOCK_FAMILIES} - {*SEARCHED}))
@pytest.mark.parametrize("num_beams", [1, 2])
def test_other_families_are_searched_by_generate_with_the_same_settings(family: str, num_beams: int) -> None:
    model = build_model(family)
    assert not is_searched(model.config)
    start = configured_start_id(model.config)
    generation = build_generation(model, num_beams=num_beams, decoder_start_token_id=start, max_new_tokens=12)
    assert unserved(model, generation=generation) == f"architecture `{model.config.model_type}`"
    ids, mask = build_sources(model, num_rows=20)
    more = (
        {"global_attention_mask": torch.zeros_like(ids).index_fill_(1, torch.tensor([0]), 1)} if family == "led" else {}
    )
    with evaluation_mode(model, loss_module=model):
        ours = generate(model, source_ids=ids, source_mask=mask, encoded=None, generation=generation)
        expected = model.generate(input_ids=ids, attention_mask=mask, generation_config=generation, **more)
    assert read(ours, generation) == read(expected, generation)
    assert all(len(tokens) <= 13 for tokens in read(ours, generation))
    if family == "led":
        without = model.generate(input_ids=ids, attention_mask=mask, generation_config=generation)
        assert read(without, generation) != read(expected, generation)
