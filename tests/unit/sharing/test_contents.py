"""What goes up of a model folder: all that is meant for others, and nothing that must stay here."""

import json
import os
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.sharing.contents import MAX_SHOWN, Contents, Problem, collect, find_leaks, refuse
from tests.unit.sharing.sharing_cases import make_model, snapshot

MADE = {"README.md": b"a card\n"}


def refused(contents: Contents) -> str:
    """What the refusal of these contents says."""
    with pytest.raises(UserError, match="nothing was sent") as found:
        refuse(contents.problems)
    return str(found.value)


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
    refuse(contents.problems)


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
    said = refused(collect(folder, made=MADE))
    assert f"{folder}/notes.md:3: holds a key, a token or a password: remove it, and revoke it" in said
    assert secret not in said
    assert "hunter2" not in said


def test_a_secret_in_what_was_made_is_found_too(tmp_path: Path) -> None:
    made = {"README.md": f"card\n{SECRETS['hub']}\n".encode()}
    assert "README.md:2: holds a key" in refused(collect(make_model(tmp_path / "best"), made=made))


@pytest.mark.parametrize("path", ["/home/ann/data/train.tsv", "/root/x", "/srv/models/base", r"C:\\Users\\ann\\x"])
def test_a_path_of_this_machine_is_named_with_its_line(path: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "config.json").write_text(f'{{\n "_name_or_path": "{path}"\n}}\n')
    said = refused(collect(folder, made=MADE))
    assert f"{folder}/config.json:2: names `{path}`, a path of this machine: remove it or shorten it" in said


def test_everything_is_named_at_once_each_secret_and_path_of_a_line_and_each_file(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "notes.md").write_text(f"HF_TOKEN={SECRETS['hub']} cp /home/ann/x /srv/models/base\n")
    (folder / "more.md").write_text("password=/home/ann/.key\n")
    (folder / "x.pkl").write_bytes(b"x")
    secret = "holds a key, a token or a password: remove it, and revoke it where it is valid"
    path = "names `{}`, a path of this machine: remove it or shorten it"
    assert refused(collect(folder, made=MADE)).splitlines() == [
        "nothing was sent, because this must not go up:",
        f"{folder}/x.pkl: may be a pickle, which runs code when it is loaded: remove it; the weights are in .safetensors",
        f"{folder}/more.md:1: {secret}",
        f"{folder}/notes.md:1: {secret}",
        f"{folder}/notes.md:1: {path.format('/home/ann/x')}",
        f"{folder}/notes.md:1: {path.format('/srv/models/base')}",
    ]


def test_a_vocabulary_may_have_pieces_that_look_like_paths_and_settings_but_no_token() -> None:
    pieces = json.dumps({"/usr/lib": 1, "password": 2, "://": 3, ":": 4, "@": 5}, separators=(",", ":"))
    assert list(find_leaks("tokenizer.json", [pieces])) == []
    assert {line for line, _ in find_leaks("config.json", [pieces])} == {1}
    assert [line for line, _ in find_leaks("tokenizer.json", ["", SECRETS["hub"]])] == [2]


def test_what_stands_for_no_secret_is_none() -> None:
    lines = ['"use_auth_token": null,', "password: ***", '"bos_token": "<s>", "pad_token_id": 1', "api_key=none"]
    assert list(find_leaks("config.json", lines)) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.bin", "x.PT", "x.pkl", "optimizer.pth"])
def test_what_may_be_a_pickle_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / name).write_bytes(b"x")
    said = refused(collect(folder, made=MADE))
    assert f"{name}: may be a pickle, which runs code when it is loaded: remove it" in said


def test_a_pickle_of_another_name_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "data.json").write_bytes(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01x\x94.")
    (folder / "data.ot").write_bytes(b"PK\x03\x04data.pkl")
    said = refused(collect(folder, made=MADE))
    for name in ("data.json", "data.ot"):
        assert f"{name}: may be a pickle" in said


def test_weights_may_begin_with_any_size(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "model.safetensors").write_bytes(b"\x80\x02" + bytes(6) + b"{}".ljust(0x280))
    contents = collect(folder, made=MADE)
    assert "model.safetensors" in contents.files
    refuse(contents.problems)


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.txt").write_text("private")
    folder = make_model(tmp_path / "best")
    (folder / "file.txt").symlink_to(outside / "private.txt")
    (folder / "folder").symlink_to(outside)
    said = refused(collect(folder, made=MADE))
    for name in ("file.txt", "folder"):
        assert f"{folder / name}: is a link, and none is followed" in said
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(UserError, match="linked is a link"):
        collect(tmp_path / "linked", made=MADE)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    os.mkfifo(folder / "pipe")
    assert "pipe: is no ordinary file" in refused(collect(folder, made=MADE))


def test_of_very_many_problems_of_a_file_the_first_are_listed_and_the_next_file_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "best")
    (folder / "a.txt").write_text("/home/ann/x\n" * (MAX_SHOWN + 20))
    (folder / "b.txt").write_text("/home/ann/x\n")
    *_, last, more, other = refused(collect(folder, made=MADE)).splitlines()
    assert last.startswith(f"{folder}/a.txt:{MAX_SHOWN}: names")
    assert more == f"{folder}/a.txt: and 20 more"
    assert other.startswith(f"{folder}/b.txt:1: names")


def test_problems_of_a_file_are_listed_by_line() -> None:
    problems = [Problem(Path("a"), "x", 3), Problem(Path("b"), "y"), Problem(Path("a"), "z", 2)]
    with pytest.raises(UserError) as found:
        refuse(problems)
    assert str(found.value).splitlines()[1:] == ["a:2: z", "a:3: x", "b: y"]
