"""Languages of a tokenizer: those that were added to a folder are accepted, and new ones can be added."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.models.families import generation_arguments, output_head
from dstrain.models.load import load_model
from dstrain.models.save import export_model
from dstrain.models.scratch import build_scratch_model
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from tests.unit.models.tiny_models import LANGUAGES, tiny_scratch

FolderOf = Callable[[str], Path]
ADDED = {"m2m100": "mic", "nllb": "mic_Latn", "mbart": "myv_XX", "mbart50": "myv_XX"}
TEXT = "two cups of coffee"


@pytest.fixture(params=ADDED)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def encode(tokenizer: Seq2SeqTokenizer, *, source: str, target: str) -> tuple[list[int], list[int]]:
    (source_ids,), (target_ids,) = tokenizer.encode([TEXT], [TEXT], source_language=source, target_language=target)
    return source_ids, target_ids


def check_added(tokenizer: Seq2SeqTokenizer, *, family: str, code: str) -> None:
    """Both sides of a row have the new language's token where they have an old one's, and nothing else changes."""
    old, new = LANGUAGES[family][1], tokenizer.language_id(code)
    assert new not in (None, tokenizer.unk_token_id)
    expected = [
        [new if token == tokenizer.language_id(old) else token for token in ids]
        for ids in encode(tokenizer, source=old, target=old)
    ]
    found = encode(tokenizer, source=code, target=code)
    assert list(found) == expected
    assert all(ids.count(new) == 1 for ids in found)
    assert tokenizer.decode(found[1]) == TEXT


@pytest.mark.parametrize("code", ["", "mic"])
def test_a_language_that_somebody_added_to_a_folder_is_accepted(
    family: str, code: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    code = code or ADDED[family]
    plain = AutoTokenizer.from_pretrained(tokenizer_folder(family))
    token = f"__{code}__" if family == "m2m100" else code
    plain.add_special_tokens({"extra_special_tokens": [token]}, replace_extra_special_tokens=False)
    plain.save_pretrained(tmp_path)
    check_added(load_tokenizer(str(tmp_path)), family=family, code=code)


def test_an_added_language_survives_saving_as_the_default_of_a_run(
    family: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    code = ADDED[family]
    tokenizer = load_tokenizer(str(tokenizer_folder(family)), added_languages=[code])
    check_added(tokenizer, family=family, code=code)
    tokenizer.save(tmp_path, source_language=code, target_language=code)
    again = load_tokenizer(str(tmp_path))
    assert again.fingerprint == tokenizer.fingerprint
    check_added(again, family=family, code=code)
    AutoTokenizer.from_pretrained(tmp_path)


def test_a_new_language_begins_as_the_one_it_is_named_after_and_is_exported(
    family: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    code, like = ADDED[family], LANGUAGES[family][1]
    stored = build_scratch_model(tiny_scratch(family), tokenizer=load_tokenizer(str(tokenizer_folder(family))), seed=0)
    if hasattr(stored, "final_logits_bias"):
        stored.final_logits_bias.normal_()
    stored.save_pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(str(tokenizer_folder(family)), added_languages=[code])
    said: list[str] = []
    section = Model(name=str(tmp_path / "base"), add_languages={code: like})
    model: Any = load_model(section, tokenizer=tokenizer, seed=0, report=said.append)
    assert f"the language `{code}` is added; its embedding begins as that of `{like}`" in said
    new, old = tokenizer.language_id(code), tokenizer.language_id(like)
    bias = [model.final_logits_bias.T] if hasattr(model, "final_logits_bias") else []
    for tensor in (model.get_input_embeddings().weight, output_head(model).weight, *bias):
        assert torch.equal(tensor[new], tensor[old])
        assert not torch.equal(tensor[new], tensor[5])
    arguments = generation_arguments(model, tokenizer, target_language=code)
    assert new in arguments.values()
    export_model(model, tokenizer=tokenizer, folder=tmp_path / "best", generation=arguments, step=1)
    again = load_tokenizer(str(tmp_path / "best"))
    check_added(again, family=family, code=code)
    with pytest.raises(
        UserError, match=rf"^model.add_languages: `.*best` has the language `{code}` already: leave it out"
    ):
        load_tokenizer(str(tmp_path / "best"), added_languages=[code])


def test_a_family_without_language_tokens_cannot_add_one(tokenizer_folder: FolderOf) -> None:
    with pytest.raises(UserError, match=r"^model.add_languages: T5Tokenizer has no language tokens: .* source_prefix"):
        load_tokenizer(str(tokenizer_folder("t5")), added_languages=["mic"])
