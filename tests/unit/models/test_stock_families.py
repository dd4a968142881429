"""Families that are fine-tuned only: loss, tokenizer, part of a vocabulary and export against transformers' own classes."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.models.compact import why_not_compact
from dstrain.models.compilation import layers_of
from dstrain.models.families import decoder_start_id, encoder_arguments, family_of, generation_arguments, is_experiment
from dstrain.models.load import load_config, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.restrict import copy_rows_back, keep_rows
from dstrain.models.save import check_export, export_model
from dstrain.models.tokenizer import load_tokenizer
from dstrain.models.trim import trim_tokenizer
from tests.unit.models.test_loss import assert_same, decoder_ids_of, gradients_of, summed
from tests.unit.models.test_restrict import small_loss, used_ids
from tests.unit.models.tiny_models import PAIRS, TASK_TOKENS, Tiny

CAN_BE_TRIMMED = ("pegasus", "pegasus_x", "bigbird_pegasus", "umt5", "longt5")
BatchOf = Callable[..., Any]


def stock_logits(tiny: Any, batch: Any, decoder_ids: Tensor) -> Tensor:
    """As a user of the stock class computes them; LED's first source token attends to all others."""
    more = {}
    if tiny.family == "led":
        more["global_attention_mask"] = torch.zeros_like(batch.source_ids).index_fill_(1, torch.tensor([0]), 1)
    logits: Tensor = tiny.model(
        input_ids=batch.source_ids, attention_mask=batch.source_mask, decoder_input_ids=decoder_ids, **more
    ).logits
    return logits


def enlarge_logits(tiny: Any) -> None:
    """Make the head large, so that a cap on the logits matters."""
    with torch.no_grad():
        tiny.model.get_output_embeddings().weight.mul_(20.0)


@pytest.mark.parametrize("has_large_logits", [False, True])
def test_value_and_every_gradient_equal_the_stock_loss_times_its_tokens(
    stock_tiny: Any, batch_of: BatchOf, has_large_logits: bool
) -> None:
    if has_large_logits:
        enlarge_logits(stock_tiny)
    batch = batch_of(stock_tiny, num_rows=5)
    num_tokens = int((batch.labels != -100).sum())
    stock = (
        num_tokens
        * stock_tiny.model(
            input_ids=batch.source_ids,
            attention_mask=batch.source_mask,
            labels=batch.labels,
            **encoder_arguments(stock_tiny.model, source_ids=batch.source_ids),
        ).loss
    )
    expected = gradients_of(stock_tiny, stock)
    loss = summed(stock_tiny, batch)
    torch.testing.assert_close(loss, stock, rtol=1e-5, atol=0.0)
    assert_same(gradients_of(stock_tiny, loss), expected, has_large_terms=has_large_logits)
    chunked = summed(stock_tiny, batch, max_logits=3 * stock_tiny.tokenizer.vocabulary_size)
    torch.testing.assert_close(chunked, stock, rtol=1e-5, atol=0.0)
    assert_same(gradients_of(stock_tiny, chunked), expected, has_large_terms=has_large_logits)


def test_led_attends_from_and_to_the_first_token(stock_tiny: Any, batch_of: BatchOf) -> None:
    batch = batch_of(stock_tiny, num_rows=5)
    ids = decoder_ids_of(stock_tiny, batch.labels)
    logits = stock_logits(stock_tiny, batch, ids)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    torch.testing.assert_close(summed(stock_tiny, batch), expected, rtol=1e-5, atol=0.0)


def test_large_logits_of_t5gemma_are_capped(stock_tiny: Any, batch_of: BatchOf) -> None:
    if stock_tiny.family != "t5gemma":
        pytest.skip("no other family caps its logits")
    enlarge_logits(stock_tiny)
    batch = batch_of(stock_tiny, num_rows=5)
    logits = stock_logits(stock_tiny, batch, decoder_ids_of(stock_tiny, batch.labels))
    assert 2.9 < logits.abs().max() <= 3.0
    uncapped = Seq2SeqLoss(stock_tiny.model)
    uncapped.projection.cap = None
    ids = decoder_ids_of(stock_tiny, batch.labels)
    without = uncapped(batch.source_ids, batch.source_mask, ids, batch.labels)
    assert not torch.isclose(without, summed(stock_tiny, batch), rtol=0.01)


def test_a_row_has_the_same_loss_in_any_batch(stock_tiny: Any, batch_of: BatchOf) -> None:
    batch = batch_of(stock_tiny, num_rows=5)
    whole = summed(stock_tiny, batch)
    parts = [summed(stock_tiny, type(batch)(*(each[row : row + 1] for each in batch))) for row in range(5)]
    torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-5, atol=0.0)


def test_text_survives_and_every_target_ends(stock_tiny: Any) -> None:
    tokenizer, (source, target) = stock_tiny.tokenizer, stock_tiny.languages
    texts = [text for pair in PAIRS[:4] for text in pair]
    sources, targets = tokenizer.encode(texts, texts, source_language=source, target_language=target)
    assert [tokenizer.decode(ids) for ids in sources] == [tokenizer.decode(ids) for ids in targets] == texts
    end = tokenizer.tokenizer.eos_token_id
    for ids in targets:
        assert ids[-1] == (tokenizer.language_id(target) if stock_tiny.family == "plbart" else end)
        assert ids.count(end) == 1
        cut = tokenizer.truncate(ids, max_tokens=len(ids) - 1)
        assert len(cut) == len(ids) - 1
        assert end in cut


def test_spelt_control_tokens_stay_text(stock_tiny: Any) -> None:
    tokenizer, (source, target) = stock_tiny.tokenizer, stock_tiny.languages
    spelt = tokenizer.tokenizer.eos_token
    _, ((*plain,), (*ids,)) = tokenizer.encode(
        ["", ""], ["yes no", f"yes {spelt} no"], source_language=source, target_language=target
    )
    assert ids[-1] == plain[-1]
    assert ids[0] == plain[0]
    assert ids.count(tokenizer.tokenizer.eos_token_id) == 1
    assert len(ids) > len(plain)


def test_hypotheses_begin_as_references_do(stock_tiny: Any) -> None:
    source, target = stock_tiny.languages
    _, ((*labels,),) = stock_tiny.tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target)
    start = decoder_start_id(stock_tiny.model)
    trained = [labels[-1] if start is None else start, *labels[:-1]]
    arguments = generation_arguments(stock_tiny.model, stock_tiny.tokenizer, target_language=target)
    forced = arguments.get("forced_bos_token_id")
    begun = [arguments.get("decoder_start_token_id", start), *([] if forced is None else [forced])]
    assert trained[: len(begun)] == begun
    assert (forced is not None) == (stock_tiny.family in ("bart", "mvp", "led"))


def test_part_of_the_vocabulary_has_the_loss_of_the_whole_with_the_other_logits_at_minus_infinity(
    stock_tiny: Any, batch_of: BatchOf
) -> None:
    batch = batch_of(stock_tiny, num_rows=2)
    kept, decoder_ids = used_ids(stock_tiny, batch), decoder_ids_of(stock_tiny, batch.labels)
    small = copy.deepcopy(stock_tiny.model)
    keep_rows(small, kept)
    logits = stock_logits(stock_tiny, batch, decoder_ids)
    absent = torch.ones(logits.shape[-1], dtype=torch.bool)
    absent[kept] = False
    logits = logits.masked_fill(absent, -torch.inf)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")
    found = small_loss(small, kept=kept, batch=batch, decoder_ids=decoder_ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
    whole = copy.deepcopy(stock_tiny.model)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1.0)
    copy_rows_back(small, ids=kept, whole=whole)
    weight = whole.get_input_embeddings().weight
    assert torch.equal(weight[kept], small.get_input_embeddings().weight)
    assert torch.equal(weight[absent], stock_tiny.model.get_input_embeddings().weight[absent])


def test_an_input_embedding_is_compact_only_where_that_is_exact(stock_tiny: Any) -> None:
    reason = why_not_compact(stock_tiny.model)
    assert reason is not None
    assert "shares its weights" in reason


def save(tiny: Any, folder: Path, **settings: Any) -> None:
    generation = {"num_beams": 2, "max_new_tokens": 8, **settings}
    export_model(tiny.model.eval(), tokenizer=tiny.tokenizer, folder=folder, generation=generation, step=1)


def test_an_export_loads_again_and_says_nothing_new(stock_tiny: Any, tmp_path: Path) -> None:
    save(stock_tiny, tmp_path / "best")
    rows = [[5, 6, 7, 8, 9], [6, 7]]
    check_export(tmp_path / "best", model=stock_tiny.model, sources=rows, tokenizer=stock_tiny.tokenizer)
    said: list[str] = []
    loaded = load_model(Model(name=str(tmp_path / "best")), tokenizer=stock_tiny.tokenizer, seed=0, report=said.append)
    assert [each for each in said if "block_sparse" not in each] == []
    for name, tensor in stock_tiny.model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert loaded.generation_config.to_diff_dict().keys() <= {
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version")
    }
    config = load_config(str(tmp_path / "best"))
    assert family_of(config) == ("t5" if stock_tiny.family == "byt5" else stock_tiny.family)
    assert not is_experiment(config)


def test_embeddings_grow_for_added_tokens_and_an_export_still_loads(
    stock_tiny: Any, tmp_path: Path, batch_of: BatchOf
) -> None:
    save(stock_tiny, tmp_path / "first")
    stock_tiny.tokenizer.tokenizer.save_pretrained(tmp_path / "tokens")
    more = type(stock_tiny.tokenizer)(stock_tiny.tokenizer.tokenizer)
    more.vocabulary_size = stock_tiny.tokenizer.vocabulary_size + 9
    grown = load_model(Model(name=str(tmp_path / "first")), tokenizer=more, seed=0)
    assert len(grown.get_output_embeddings().weight) == more.vocabulary_size
    assert all(len(part.get_input_embeddings().weight) == more.vocabulary_size for part in (grown, grown.get_decoder()))
    tiny = Tiny(stock_tiny.family, stock_tiny.tokenizer, grown, stock_tiny.languages)
    loss = summed(tiny, batch_of(tiny, num_rows=3))
    save(tiny, tmp_path / "second")
    again = load_model(Model(name=str(tmp_path / "second")), tokenizer=more, seed=0)
    tiny = Tiny(stock_tiny.family, stock_tiny.tokenizer, again, stock_tiny.languages)
    torch.testing.assert_close(summed(tiny, batch_of(tiny, num_rows=3)), loss, rtol=1e-6, atol=0.0)


def test_the_sparse_attention_of_bigbird_is_replaced_and_said(stock_tiny: Any, tmp_path: Path) -> None:
    if stock_tiny.family != "bigbird_pegasus":
        pytest.skip("no other family has it")
    stock_tiny.model.save_pretrained(tmp_path)
    said: list[str] = []
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=stock_tiny.tokenizer, seed=0, report=said.append)
    assert loaded.get_encoder().attention_type == "original_full"
    assert "block_sparse" in said[0]


def test_all_layers_are_found_for_compilation(stock_tiny: Any) -> None:
    assert len(layers_of(stock_tiny.model)) == 4


def test_the_head_of_a_published_umt5_makes_the_logits_of_transformers_4(
    stock_tiny: Any, tmp_path: Path, batch_of: BatchOf
) -> None:
    """There the hidden states are scaled only if the config says that the head is tied."""
    if stock_tiny.family != "umt5":
        pytest.skip("no other family differs")
    model, batch = stock_tiny.model, batch_of(stock_tiny, num_rows=3)
    ids = decoder_ids_of(stock_tiny, batch.labels)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(0.1 * torch.randn_like(head.weight))
    wanted = stock_logits(stock_tiny, batch, ids) * model.config.d_model**0.5
    model.save_pretrained(tmp_path / "published", state_dict={k: v.clone() for k, v in model.state_dict().items()})
    file = tmp_path / "published" / "config.json"
    file.write_text(file.read_text().replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    assert '"tie_word_embeddings": false' in file.read_text()
    for folder in ("published", "exported"):  # an export is not multiplied once more
        loaded = load_model(Model(name=str(tmp_path / folder)), tokenizer=stock_tiny.tokenizer, seed=0)
        tiny = Tiny("umt5", stock_tiny.tokenizer, loaded, stock_tiny.languages)
        torch.testing.assert_close(stock_logits(tiny, batch, ids), wanted, rtol=1e-4, atol=1e-5)
        save(tiny, tmp_path / "exported")


def test_a_tokenizer_is_trimmed_or_refused_by_name(stock_tiny: Any, tmp_path: Path) -> None:
    tokenizer, (source, target) = stock_tiny.tokenizer, stock_tiny.languages
    sources, targets = tokenizer.encode(["yes"], ["two"], source_language=source, target_language=target)
    kept = sorted({*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values(), *sources[0], *targets[0]})
    if stock_tiny.family in CAN_BE_TRIMMED:
        trimmed = trim_tokenizer(tokenizer, ids=kept, folder=tmp_path)
        (again,), _ = trimmed.encode(["yes"], [""], source_language=None, target_language=None)
        assert [kept[row] for row in again] == sources[0]
    else:
        with pytest.raises(UserError, match=r"^--trim: "):
            trim_tokenizer(tokenizer, ids=kept, folder=tmp_path)


def test_plbart_without_a_language_has_the_default_of_its_tokenizer(stock_tiny: Any) -> None:
    if stock_tiny.family != "plbart":
        pytest.skip("no other of these families has languages")
    tokenizer = stock_tiny.tokenizer
    assert tokenizer.default_language == "java"
    (ids,), _ = tokenizer.encode(["yes"], [""], source_language=None, target_language=None)
    assert ids[-1] == tokenizer.language_id("java") == tokenizer.tokenizer.convert_tokens_to_ids("__java__")


def test_plbart_takes_no_tokens_for_parses(stock_tiny: Any) -> None:
    if stock_tiny.family == "plbart":
        with pytest.raises(UserError, match="PLBart's tokenizer"):
            load_tokenizer(stock_tiny.tokenizer.tokenizer.name_or_path, added_tokens=TASK_TOKENS)
    else:
        loaded = load_tokenizer(stock_tiny.tokenizer.tokenizer.name_or_path, added_tokens=TASK_TOKENS)
        parse = "[IN:CREATE_ALARM [SL:DATE_TIME <pt-11> <pt-1> ] ]"
        _, (ids,) = loaded.encode([""], [parse], source_language=None, target_language=None)
        assert loaded.unk_token_id not in ids
        assert "".join(loaded.decode(ids).split()) == "".join(parse.split())
