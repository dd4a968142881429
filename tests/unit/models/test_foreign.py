"""Models and tokenizers whose files hold anything: one line that names the folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.recipe import Model
from dstrain.errors import HardwareFailed, UserError
from dstrain.models.foreign import told_in_one_line
from dstrain.models.load import load_config, load_model
from dstrain.models.tokenizer import load_tokenizer

FolderOf = Callable[[str], Path]


def test_a_message_of_several_lines_is_one_and_names_what_was_read() -> None:
    with pytest.raises(UserError) as caught, told_in_one_line("`x` cannot be read"):
        raise AttributeError("'int' object\n has no attribute 'removesuffix'" + "." * 1000)
    assert str(caught.value).startswith("`x` cannot be read: AttributeError: 'int' object has no attribute")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [UserError("said"), HardwareFailed("gone"), KeyboardInterrupt()])
def test_what_is_said_already_or_is_no_fault_of_the_files_stays(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, told_in_one_line("x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "content", ["7", "[1]", '"x"', "{", "", '{"tokenizer_class": 7}', '{"extra_special_tokens": 7}']
)
def test_a_tokenizer_with_anything_in_its_settings_is_one_line(
    content: str, tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    for path in tokenizer_folder("m2m100").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": float("inf")},
        {"max_position_embeddings": "x"},
        {"d_model": 10**23},
        {"d_model": float("nan")},
        {"dropout": "x"},
        {"activation_function": "x"},
        {"encoder_ffn_dim": 7},
        {"vocab_size": [1]},
        {"decoder_start_token_id": 10**9},
        {"encoder_layerdrop": [1]},
    ],
    ids=str,
)
def test_a_model_with_anything_in_its_config_is_one_line(changes: dict[str, Any], tiny: Any, tmp_path: Path) -> None:
    if tiny.family != "mbart":
        pytest.skip("one family has all of these keys")
    tiny.model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    if changes.get("decoder_start_token_id"):  # mBART has no use for it
        load_model(Model(name=str(tmp_path)), tokenizer=tiny.tokenizer, seed=0)
        return
    with pytest.raises(UserError) as caught:
        read(tmp_path, tokenizer=tiny.tokenizer)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def read(folder: Path, *, tokenizer: Any) -> None:
    load_config(str(folder))
    load_model(Model(name=str(folder)), tokenizer=tokenizer, seed=0)
