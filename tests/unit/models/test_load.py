"""Models from folders and from scratch: what is kept, what is changed and reported, what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, GPT2Config, GPT2LMHeadModel

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.models.families import generation_arguments
from dstrain.models.load import grow_embeddings, load_model, load_shape
from dstrain.models.save import export_model
from dstrain.models.scratch import build_scratch_model
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from tests.unit.models.tiny_models import FAMILIES, tiny_scratch

FolderOf = Callable[[str], Path]


def untied_mt5(tokenizer: Seq2SeqTokenizer) -> Any:
    """Like the published mT5: a separately trained head, whatever the config says."""
    model = build_scratch_model(tiny_scratch("mt5"), tokenizer=tokenizer, seed=0)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def test_a_saved_model_loads_to_the_same_weights(tiny: Any, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    said: list[str] = []
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    assert said == []
    expected = tiny.model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_weights_stored_in_sixteen_bits_are_trained_in_fp32(tiny: Any, tmp_path: Path) -> None:
    tiny.model.to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_embeddings_grow_for_added_tokens_and_keep_the_old_rows(
    tiny: Any, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    tiny.model.save_pretrained(tmp_path)
    larger = load_tokenizer(str(tokenizer_folder(tiny.family)), added_tokens=["<pt-90>", "<pt-91>"])
    said: list[str] = []
    section = Model(name=str(tmp_path))
    loaded = load_model(section, tokenizer=larger, seed=3, report=said.append)
    old = tiny.model.get_input_embeddings().weight
    new = loaded.get_input_embeddings().weight
    assert new.shape[0] == old.shape[0] + 2 == larger.vocabulary_size
    assert torch.equal(new[:-2], old)
    assert said == [f"the embeddings grow from {old.shape[0]} to {old.shape[0] + 2} rows for added tokens"]
    torch.manual_seed(99)  # the rows depend on the seed only, whatever was drawn before
    again = load_model(section, tokenizer=larger, seed=3)
    assert torch.equal(again.get_input_embeddings().weight, new)
    logits = loaded(input_ids=torch.tensor([[5, 6]]), decoder_input_ids=torch.tensor([[5, 6]])).logits
    assert logits.shape[-1] == larger.vocabulary_size


def test_embeddings_never_shrink(tiny: Any) -> None:
    rows = tiny.model.get_input_embeddings().weight.shape[0]
    grow_embeddings(tiny.model, num_rows=rows - 10)
    assert tiny.model.get_input_embeddings().weight.shape[0] == rows


def test_growing_keeps_an_untied_head_and_a_reload_keeps_it_too(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    folder = str(tokenizer_folder("mt5"))
    stored = untied_mt5(load_tokenizer(folder))
    stored.save_pretrained(tmp_path / "stored")
    larger = load_tokenizer(folder, added_tokens=["<pt-90>"])
    loaded = load_model(Model(name=str(tmp_path / "stored")), tokenizer=larger, seed=0)
    assert torch.equal(loaded.lm_head.weight[:-1], stored.lm_head.weight)
    assert torch.equal(loaded.shared.weight[:-1], stored.shared.weight)
    assert loaded.encoder.embed_tokens.weight is loaded.decoder.embed_tokens.weight is loaded.shared.weight
    loaded.save_pretrained(tmp_path / "exported")
    exported = AutoModelForSeq2SeqLM.from_pretrained(str(tmp_path / "exported"))
    assert torch.equal(exported.lm_head.weight, loaded.lm_head.weight)
    assert torch.equal(exported.shared.weight, loaded.shared.weight)


def test_a_head_of_its_own_beside_a_config_that_says_tied_is_said(tiny: Any, tmp_path: Path) -> None:
    head = tiny.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    tiny.model.save_pretrained(tmp_path)
    said: list[str] = []
    load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    (sentence,) = said
    assert "says that the output head is tied to the embeddings, but it is its own" in sentence
    assert ("transformers 4" in sentence) is (tiny.family == "t5")  # the one family that scales hidden states


def test_a_head_that_the_config_calls_its_own_but_equals_the_embeddings_is_said(tiny: Any, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    said: list[str] = []
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    assert said == [
        "the model's config says that the output head is its own, but it equals the embeddings or is missing: it is trained "
        "tied to them"
    ]
    assert len(list(loaded.parameters())) == len(list(tiny.model.parameters()))


def test_layerdrop_and_dropout_are_set_and_reported(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("m2m100")))
    build_scratch_model(tiny_scratch("m2m100"), tokenizer=tokenizer, seed=0, layerdrop=0.05).save_pretrained(tmp_path)
    said: list[str] = []
    section = Model(name=str(tmp_path), dropout=0.25)
    loaded = load_model(section, tokenizer=tokenizer, seed=0, report=said.append)
    assert loaded.model.encoder.layerdrop == loaded.model.decoder.layerdrop == 0.0
    assert loaded.model.encoder.layers[0].dropout == loaded.config.attention_dropout == 0.25
    assert said == [
        "encoder_layerdrop of the model is 0.05; this run trains with 0, as model.layerdrop says",
        "decoder_layerdrop of the model is 0.05; this run trains with 0, as model.layerdrop says",
        "all dropout of the model's config is set to 0.25",
    ]


def test_layerdrop_of_a_scratch_model_is_that_of_the_recipe(tokenizer_folder: FolderOf) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("m2m100")))
    section = Model(scratch=tiny_scratch("m2m100"))
    assert load_model(section, tokenizer=tokenizer, seed=0).model.encoder.layerdrop == 0.0
    kept = load_model(section.model_copy(update={"layerdrop": 0.1}), tokenizer=tokenizer, seed=0)
    assert kept.model.encoder.layerdrop == 0.1


def test_stale_generation_defaults_are_dropped_and_reported(tiny: Any, tmp_path: Path) -> None:
    ids = {"pad_token_id": tiny.tokenizer.pad_token_id, "eos_token_id": tiny.tokenizer.tokenizer.eos_token_id}
    tiny.model.generation_config = GenerationConfig(
        **ids,
        max_length=200,
        num_beams=5,
        forced_eos_token_id=ids["eos_token_id"],
        bad_words_ids=[[ids["pad_token_id"]]],
    )
    tiny.model.save_pretrained(tmp_path)
    said: list[str] = []
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    kept = loaded.generation_config
    assert kept.pad_token_id == ids["pad_token_id"]
    assert kept.bad_words_ids == [[ids["pad_token_id"]]]
    assert (kept.max_length, kept.num_beams, kept.forced_eos_token_id) == (None, None, None)
    assert {sentence.split("=")[0] for sentence in said} == {
        f"generation default {key}" for key in ("max_length", "num_beams", "forced_eos_token_id")
    }


def test_for_an_exported_model_only_changes_since_the_export_are_reported(tiny: Any, tmp_path: Path) -> None:
    languages = generation_arguments(tiny.model, tiny.tokenizer, target_language=tiny.languages[1])
    settings = {"num_beams": 4, "max_new_tokens": 31, "length_penalty": 0.6, **languages}
    folder = tmp_path / "best"
    export_model(tiny.model, tokenizer=tiny.tokenizer, folder=folder, generation=settings, step=20)
    said: list[str] = []
    loaded = load_model(Model(name=str(folder)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    assert said == []
    assert (loaded.generation_config.num_beams, loaded.generation_config.max_new_tokens) == (None, None)

    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "no_repeat_ngram_size": 3}))
    load_model(Model(name=str(folder)), tokenizer=tiny.tokenizer, seed=0, report=said.append)
    assert said == ["generation default no_repeat_ngram_size=3 of the model is dropped: the recipe decides"]


def test_a_decoder_only_model_is_refused_by_name(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    with pytest.raises(
        ValueError, match=r"architecture `gpt2` is not supported.*NLLB, ByT5, M2M100, mBART, Marian, T5, mT5"
    ):
        load_model(Model(name=str(tmp_path)), tokenizer=tokenizer, seed=0)


def test_a_folder_without_all_weights_is_refused(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    model = build_scratch_model(tiny_scratch("t5"), tokenizer=tokenizer, seed=0)
    weights = model.state_dict()
    del weights["decoder.final_layer_norm.weight"]
    model.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"1 parameters are missing, `decoder\.final_layer_norm\.weight`"):
        load_model(Model(name=str(tmp_path)), tokenizer=tokenizer, seed=0)


class Payload:
    """The content of a hostile pickle: it creates a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_bin_file_is_read_as_tensors_only(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    model = build_scratch_model(tiny_scratch("t5"), tokenizer=tokenizer, seed=0)
    folder = tmp_path / "model"
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    loaded = load_model(Model(name=str(folder)), tokenizer=tokenizer, seed=0)
    assert torch.equal(loaded.shared.weight, model.shared.weight)
    torch.save({**model.state_dict(), "extra": Payload(tmp_path / "owned")}, folder / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"^MODEL: `.*` has no weights .*pickle .* save it as model\.safetensors$"
    ) as caught:
        load_model(Model(name=str(folder)), tokenizer=tokenizer, seed=0, key="MODEL")
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_does_not_train_is_frozen_in_a_loaded_model_too(
    family: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(family)))
    built = build_scratch_model(tiny_scratch(family), tokenizer=tokenizer, seed=0)
    built.save_pretrained(tmp_path)
    loaded = load_model(Model(name=str(tmp_path)), tokenizer=tokenizer, seed=0)
    trained, expected = (
        {name for name, each in model.named_parameters() if each.requires_grad} for model in (loaded, built)
    )
    assert trained == expected
    assert ("model.encoder.embed_positions.weight" in trained) == family.startswith("mbart")
    assert not any(parameter.is_meta for parameter in loaded.parameters())


def test_code_shipped_with_a_model_is_not_run(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    (tmp_path / "config.json").write_text(
        '{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForSeq2SeqLM": "own.Own"}}'
    )
    (tmp_path / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'owned')!r})\n")
    with pytest.raises(
        UserError, match="no config that can be read: it needs code that came with it, which dstrain never runs"
    ):
        load_model(Model(name=str(tmp_path)), tokenizer=tokenizer, seed=0)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_model_does_not_choose_the_code_that_computes_it(
    key: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    build_scratch_model(tiny_scratch("t5"), tokenizer=tokenizer, seed=0).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: "stranger/kernel"}))
    reports: list[str] = []
    model = load_model(Model(name=str(tmp_path)), tokenizer=tokenizer, seed=0, report=reports.append)
    assert model.config._attn_implementation == "sdpa"
    said = "attn_implementation 'stranger/kernel' of the model's config is ignored"
    assert (said in reports) == ("attn" in key)


def test_a_shape_has_the_settings_of_its_folder_and_no_weights(tokenizer_folder: FolderOf, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("marian")))
    model = build_scratch_model(tiny_scratch("marian"), tokenizer=tokenizer, seed=0)
    forbidden = {"num_beams": 3, "suppress_tokens": [5, 6], "renormalize_logits": True}
    export_model(model, tokenizer=tokenizer, folder=tmp_path / "model", generation=forbidden, step=1)
    (tmp_path / "model" / "model.safetensors").unlink()
    shape = load_shape(str(tmp_path / "model"))
    assert {parameter.device.type for parameter in shape.parameters()} == {"meta"}
    assert [parameter.shape for parameter in shape.parameters()] == [each.shape for each in model.parameters()]
    kept = shape.generation_config
    assert (kept.suppress_tokens, kept.renormalize_logits, kept.num_beams) == ([5, 6], True, None)
    assert kept.decoder_start_token_id == model.config.decoder_start_token_id
    with pytest.raises(UserError, match="has no config that can be read"):
        load_shape(str(tmp_path / "nowhere"))
