"""What goes up of a model folder: all that is meant for others, and nothing that must stay here."""

import json
import os
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.sharing.contents import collect, find_leaks
from tests.unit.sharing.sharing_cases import make_model, snapshot

MADE = {"README.md": b"a card\n"}


def test_everything_in_the_folder_goes_up_with_sub_folders_and_what_was_made(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"\0weights")
    (folder / "README.md").write_text("an older card")
    contents = collect(folder, made=MADE)
    expected = {**snapshot(folder), **MADE}
    assert list(contents.files) == sorted(expected)
    found = {name: each if isinstance(each, bytes) else each.read_bytes() for name, each in contents.files.items()}
    assert found == expected
    assert contents.sizes == {name: len(content) for name, content in expected.items()}
    assert contents.left_out == {}


def test_rows_of_the_evaluation_data_and_hidden_files_stay(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "average")
    for name in ("hypotheses/step-1/sources.txt", "scores/step-1.json", ".cache/x", "adapter/.x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("row")
    contents = collect(folder, made=MADE)
    assert list(contents.left_out) == [".cache", "adapter/.x", "hypotheses/", "scores/"]
    assert not any("step-1" in name or ".x" in name for name in contents.files)


SECRETS = {
    "hub": f"hf_{'a' * 34}",
    "openai": f"sk-{'a1' * 20}",
    "openai project": f"sk-proj-{'a1' * 20}",
    "aws": f"AKIA{'A1' * 8}",
    "github": f"ghp_{'a1' * 18}",
    "wandb": f"WANDB_API_KEY={'0f' * 20}",
    "mlflow": "MLFLOW_TRACKING_PASSWORD=hunter2",
    "mlflow token": "mlflow_tracking_token: abcdef",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "address": "git+https://ann:hunter2@example.org/x",
    "json": '"password": "hunter2"',
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=list(SECRETS))
def test_a_secret_in_a_text_is_named_with_its_line_and_not_repeated(secret: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "notes.md").write_text(f"first\n\nuse {secret} for it\n")
    with pytest.raises(UserError, match="nothing was sent") as found:
        collect(folder, made=MADE)
    assert f"{folder}/notes.md:3: holds a key, a token or a password: remove it, and revoke it" in str(found.value)
    assert secret not in str(found.value)
    assert "hunter2" not in str(found.value)


def test_a_secret_in_what_was_made_is_found_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"README\.md:2: holds a key"):
        collect(make_model(tmp_path / "best"), made={"README.md": f"card\n{SECRETS['hub']}\n".encode()})


@pytest.mark.parametrize("path", ["/home/ann/data/train.tsv", "/root/x", "/srv/models/base", r"C:\\Users\\ann\\x"])
def test_a_path_of_this_machine_is_named_with_its_line(path: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "config.json").write_text(f'{{\n "_name_or_path": "{path}"\n}}\n')
    with pytest.raises(UserError) as found:
        collect(folder, made=MADE)
    assert f"{folder}/config.json:2: names `{path}`, a path of this machine: remove it or shorten it" in str(
        found.value
    )


def test_a_vocabulary_may_have_pieces_that_look_like_paths_and_settings_but_no_token() -> None:
    pieces = json.dumps({"/usr/lib": 1, "password": 2, "://": 3, ":": 4, "@": 5}, separators=(",", ":"))
    assert list(find_leaks("tokenizer.json", [pieces])) == []
    assert [line for line, _ in find_leaks("config.json", [pieces])] == [1]
    assert [line for line, _ in find_leaks("tokenizer.json", ["", SECRETS["hub"]])] == [2]


def test_what_stands_for_no_secret_is_none() -> None:
    lines = ['"use_auth_token": null,', "password: ***", '"bos_token": "<s>", "pad_token_id": 1', "api_key=none"]
    assert list(find_leaks("config.json", lines)) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "x.PT", "x.pkl", "optimizer.pth"])
def test_what_may_be_a_pickle_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name}: may be a pickle, which runs code when it is loaded: remove it"):
        collect(folder, made=MADE)


def test_a_pickle_of_another_name_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "data.json").write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.")
    (folder / "data.ot").write_bytes(b"PK\x03\x04data.pkl")
    with pytest.raises(UserError) as found:
        collect(folder, made=MADE)
    for name in ("data.json", "data.ot"):
        assert f"{name}: may be a pickle" in str(found.value)


def test_weights_may_begin_with_any_size(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "model.safetensors").write_bytes(b"\x80\x02" + bytes(6) + b"{}".ljust(0x280))
    assert "model.safetensors" in collect(folder, made=MADE).files


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.txt").write_text("private")
    folder = make_model(tmp_path / "best")
    (folder / "file.txt").symlink_to(outside / "private.txt")
    (folder / "folder").symlink_to(outside)
    with pytest.raises(UserError) as found:
        collect(folder, made=MADE)
    for name in ("file.txt", "folder"):
        assert f"{folder / name}: is a link, and none is followed" in str(found.value)
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(UserError, match="linked is a link"):
        collect(tmp_path / "linked", made=MADE)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="pipe: is no ordinary file"):
        collect(folder, made=MADE)


def test_of_many_problems_the_first_are_listed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "notes.txt").write_text("/home/ann/x\n" * 30)
    with pytest.raises(UserError) as found:
        collect(folder, made=MADE)
    assert len(str(found.value).splitlines()) == 12
    assert str(found.value).endswith("and 20 more")
