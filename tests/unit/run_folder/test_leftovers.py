"""Left-over drafts: those of dead writers go, those of living ones stay, and a draft of another host stays for a day."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstrain.run_folder import leftovers
from dstrain.run_folder.leftovers import ABANDONED_SECONDS, draft_of, last_change, remove_leftovers

DRAFT = """
import sys
from pathlib import Path
from dstrain.run_folder.leftovers import draft_of
draft_of(Path(sys.argv[1])).mkdir()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make_dead_draft(folder: Path) -> Path:
    """A draft of a process that has ended."""
    subprocess.run([sys.executable, "-c", DRAFT, str(folder / "key")], check=True)
    (draft,) = folder.glob("key.tmp-*")
    return draft


def make_old(path: Path, *, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_draft_of_a_dead_process_is_removed_with_what_is_in_it(tmp_path: Path) -> None:
    (make_dead_draft(tmp_path) / "file").write_text("part")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_the_draft_of_a_living_process_stays_however_old_it_is(tmp_path: Path) -> None:
    draft = draft_of(tmp_path / "key")
    draft.mkdir()
    make_old(draft, seconds=9 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [draft.name]


def test_a_later_process_with_the_same_number_is_not_the_writer(tmp_path: Path) -> None:
    draft = draft_of(tmp_path / "key")
    key, place, pid, start, chance = draft.name.rsplit("-", 4)
    draft.with_name(f"{key}-{place}-{pid}-{int(start) + 1}-{chance}").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["key.tmp-0123456789abcdef", "file.json.tmp-4711"])
def test_a_draft_without_a_known_writer_stays_for_a_day_after_its_last_change(tmp_path: Path, name: str) -> None:
    draft = tmp_path / name
    draft.mkdir()
    (draft / "part").touch()
    make_old(draft, seconds=2 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [name]
    make_old(draft / "part", seconds=2 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_a_writer_on_another_host_is_not_looked_up_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = make_dead_draft(tmp_path)
    monkeypatch.setattr(leftovers, "_place", lambda: "0" * 8)
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [draft.name]
    remove_leftovers(tmp_path, now=lambda: time.time() + 2 * ABANDONED_SECONDS)
    assert names(tmp_path) == []


def test_what_is_no_draft_stays_and_a_link_is_removed_but_not_followed(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for each in (folder / "key", folder / "notes.tmp-old", other):
        each.mkdir(parents=True)
    (other / "file").touch()
    make_dead_draft(folder).rename(tmp_path / "moved")
    (folder / (tmp_path / "moved").name).touch()
    link = folder / "key.tmp-00000000"
    link.symlink_to(other)
    remove_leftovers(folder, now=lambda: time.time() + 2 * ABANDONED_SECONDS)
    assert names(folder) == ["key", "moved", "notes.tmp-old"]
    assert names(other) == ["file"]


def test_a_folder_that_does_not_exist_has_no_leftovers(tmp_path: Path) -> None:
    remove_leftovers(tmp_path / "none")
    assert names(tmp_path) == []


def test_the_last_change_of_a_folder_is_that_of_its_newest_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    make_old(folder / "file", seconds=100)
    make_old(folder, seconds=200)
    assert last_change(folder) == pytest.approx(time.time() - 100, abs=50)
