"""Files and folders are complete or absent, whatever a kill or a full disk interrupts."""

import os
from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.run_folder.atomic import (
    append_line,
    create_file,
    new_folder,
    open_new,
    overwrite,
    recover_folder,
    shared_folder,
    write_file,
    write_problem,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_created_with_its_folder_and_replaced(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_file(path, "first", durable=durable)
    write_file(path, b"second", durable=durable)
    assert path.read_text() == "second"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_older_file_and_no_temporary_file(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, "older")

    def write_a_part() -> None:
        with open_new(path) as file:
            file.write(b"part")
            raise error

    with pytest.raises(type(error)):
        write_a_part()
    assert path.read_text() == "older"
    assert names(tmp_path) == ["file"]


def test_a_durable_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    fsync, replace = os.fsync, Path.replace

    def watch_replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", watch_replace)
    write_file(tmp_path / "file", "content", durable=True)
    assert events == ["sync", "rename", "sync"]


def fill(folder: Path, content: str) -> None:
    with new_folder(folder, draft=folder.with_name("draft")) as draft:
        (draft / "file").write_text(content)


def test_a_folder_replaces_an_older_one_only_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "first")

    def fill_a_part() -> None:
        with new_folder(folder, draft=tmp_path / "draft") as draft:
            (draft / "file").write_text("part")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_a_part()
    assert (folder / "file").read_text() == "first"
    assert names(tmp_path) == ["folder"]
    fill(folder, "second")
    assert (folder / "file").read_text() == "second"
    assert names(tmp_path) == ["folder"]


def test_a_kill_between_the_two_renames_loses_neither_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    fill(folder, "first")
    rename = Path.rename

    def rename_once(path: Path, target: Path) -> Any:
        if path == tmp_path / "draft":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_once)
    with pytest.raises(KeyboardInterrupt):
        fill(folder, "second")
    monkeypatch.undo()
    assert not folder.exists()
    recover_folder(folder)
    assert (folder / "file").read_text() == "first"
    recover_folder(folder)  # changes nothing
    assert (folder / "file").read_text() == "first"


@pytest.mark.parametrize(("content", "is_kept"), [("first", True), ("other", False)])
def test_an_older_folder_with_the_same_files_may_be_kept(content: str, is_kept: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "first")
    inode = folder.stat().st_ino
    with new_folder(folder, draft=tmp_path / "draft", keep_same=True) as draft:
        (draft / "file").write_text(content)
    assert (folder / "file").read_text() == content
    assert (folder.stat().st_ino == inode) == is_kept
    assert names(tmp_path) == ["folder"]


def test_if_two_processes_create_the_same_folder_that_of_the_first_to_finish_stays(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "key"
    with shared_folder(folder) as slow:
        (slow / "file").write_text("slow")
        with shared_folder(folder) as fast:
            (fast / "file").write_text("fast")
    assert (folder / "file").read_text() == "fast"
    assert names(folder.parent) == ["key"]


def test_a_shared_folder_whose_creation_fails_leaves_nothing(tmp_path: Path) -> None:
    def fill_a_part() -> None:
        with shared_folder(tmp_path / "key") as draft:
            (draft / "file").write_text("part")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill_a_part()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", [b"[2]"]),
        (b"[1]\n", [b"[1]", b"[2]"]),
        (b"[1]", [b"[1]", b"[2]"]),  # complete, without its line break
        (b"[1]\n[", [b"[1]", b"[2]"]),  # torn by a kill
        (b"[", [b"[2]"]),
    ],
)
def test_a_line_is_added_after_the_last_complete_one(before: bytes, after: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(before)
    append_line(path, "[2]")
    assert path.read_bytes().splitlines() == after


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "canary"
    path.parent.mkdir()
    path.write_text("untouched")
    return path


def test_a_link_under_the_name_that_is_written_is_replaced_and_never_followed(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "run" / "file"
    path.parent.mkdir()
    path.symlink_to(canary)
    write_file(path, "new")
    assert not path.is_symlink()
    assert (path.read_text(), canary.read_text()) == ("new", "untouched")


@pytest.mark.parametrize("name", ["folder", "folder.old", "draft"])
def test_a_link_under_any_name_of_a_new_folder_is_removed_and_never_followed(
    name: str, tmp_path: Path, canary: Path
) -> None:
    (tmp_path / name).symlink_to(canary.parent)
    for content in ("first", "second"):
        fill(tmp_path / "folder", content)
    recover_folder(tmp_path / "folder")
    assert (tmp_path / "folder" / "file").read_text() == "second"
    assert names(tmp_path) == ["folder", "outside"]
    assert names(canary.parent) == ["canary"]


def test_a_set_aside_folder_that_is_a_link_is_not_put_back(tmp_path: Path, canary: Path) -> None:
    (tmp_path / "folder.old").symlink_to(canary.parent)
    recover_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_line_is_never_appended_to_what_a_link_points_to(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.symlink_to(canary)
    with pytest.raises(OSError, match="a link, or no ordinary file: remove it") as caught:
        append_line(path, "[2]")
    assert caught.value.filename == str(path)
    assert canary.read_text() == "untouched"


def test_a_line_is_appended_to_a_copy_of_a_file_that_has_another_name(tmp_path: Path, canary: Path) -> None:
    canary.write_text("[1]\n")
    path = tmp_path / "rows.jsonl"
    path.hardlink_to(canary)
    append_line(path, "[2]")
    assert (path.read_text(), canary.read_text()) == ("[1]\n[2]\n", "[1]\n")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_line_is_not_appended_to_a_pipe_or_a_folder(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(OSError, match="no ordinary file"):
        append_line(path, "[2]")


def test_a_long_torn_line_is_removed_without_the_rows_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"[1]\n" * 1000 + b"[" + b"1," * (3 << 20))
    append_line(path, "[2]")
    assert path.read_bytes() == b"[1]\n" * 1000 + b"[2]\n"


def test_a_file_is_not_created_where_a_link_to_nothing_lies(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # of the tokenizers library
        OSError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.parametrize("kind", [new_folder, shared_folder])
def test_a_full_disk_is_an_error_with_the_path_and_leaves_nothing(error: Exception, kind: Any, tmp_path: Path) -> None:
    def fill_a_part() -> None:
        with kind(tmp_path / "key", **({"draft": tmp_path / "draft"} if kind is new_folder else {})) as draft:
            (draft / "file").write_text("part")
            raise error

    with pytest.raises(OSError, match="No space left on device") as caught:
        fill_a_part()
    assert caught.value.filename == str(tmp_path / "key")
    assert names(tmp_path) == []


def test_an_error_for_the_user_stays_one_whatever_it_says(tmp_path: Path) -> None:
    def fail() -> None:
        with shared_folder(tmp_path / "key"):
            raise UserError("row 3: No space left on device")

    with pytest.raises(UserError):
        fail()


def test_what_a_file_holds_is_overwritten_in_its_room_and_padded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    number = path.stat().st_ino
    overwrite(path, b"{}")
    assert (path.read_bytes(), path.stat().st_ino) == (b"{}        ", number)


def test_where_the_room_is_too_small_the_old_content_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"older")
    pwrite = os.pwrite

    def write_five(descriptor: int, content: bytes, offset: int) -> int:
        if offset >= 5:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, content[: 5 - offset], offset)

    monkeypatch.setattr(os, "pwrite", write_five)
    with pytest.raises(OSError, match="No space"):
        overwrite(path, b"newer and longer")
    assert path.read_bytes() == b"older"


def test_nothing_is_overwritten_through_a_link(tmp_path: Path, canary: Path) -> None:
    before = canary.read_bytes()
    for link in (os.symlink, os.link):
        path = tmp_path / link.__name__
        link(canary, path)
        with pytest.raises(OSError, match=r"symbolic links|a link"):
            overwrite(path, b"mine")
    assert canary.read_bytes() == before


def test_a_place_where_nothing_can_be_made_is_named_and_any_other_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write_problem(tmp_path / "new" / "deeper" / "file") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    assert write_problem(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is not a folder"
    # the superuser, who may run the tests, may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert write_problem(tmp_path / "new" / "file") == f"you may not write in {tmp_path}"
