"""Folders: where they are, what they lie on, whether a run can write there, and what is too little."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.doctor import folders
from dstrain.doctor.finding import Finding, ok
from dstrain.doctor.folders import Folder, Place, Use, judge_folder, kind_of_mount, look_at_folder, standard_places

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /shared rw shared:2 - nfs4 server:/export rw
31 30 0:41 / /shared/with\\040space rw - lustre mgs:/fs rw
32 22 0:42 / /shared rw - ext4 /dev/sdb1 rw
"""
GOOD = Folder(Path("/data"), "ext4", 10**12, 10**8)


def judge(use: Use = "output", **changes: object) -> list[Finding]:
    place = Place("output", Path("/data/runs"), use, "output_dir")
    return list(judge_folder(place, replace(GOOD, **changes)))


def test_a_good_folder_is_ok() -> None:
    assert judge() == [ok("output", "/data/runs: 1000.0 GB and 100,000,000 files free, ext4")]
    assert judge(free_files=None) == [ok("output", "/data/runs: 1000.0 GB free, ext4")]


def test_a_real_folder_is_tried_and_nothing_is_left(tmp_path: Path) -> None:
    found = look_at_folder(tmp_path)
    assert (found.path, found.error, found.has_links) == (tmp_path, None, True)
    assert found.free_bytes > 0
    assert abs(found.skew) < 1.0
    assert os.listdir(tmp_path) == []


def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    assert look_at_folder(tmp_path / "runs" / "deep").path == tmp_path
    assert os.listdir(tmp_path) == []


def test_a_clock_that_differs_is_measured(tmp_path: Path) -> None:
    now = os.stat(tmp_path).st_mtime

    def behind() -> Iterator[float]:
        yield from (now - 100.0, now - 99.0)

    times = behind()
    assert 99.0 < look_at_folder(tmp_path, clock=lambda: next(times)).skew < 160.0
    times = iter((now + 1000.0, now + 1001.0))
    assert -1001.0 < look_at_folder(tmp_path, clock=lambda: next(times)).skew < -900.0


def test_a_file_in_the_place_of_a_folder_cannot_be_written_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert look_at_folder(tmp_path / "file").error == "Not a directory"


def test_a_file_system_without_second_names_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(folders.os, "link", refuse)
    found = look_at_folder(tmp_path)
    assert (found.has_links, found.error) == (False, None)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me", "ext4"), ("/shared/runs", "ext4"), ("/shared/with space/runs", "lustre"), ("/sharedother", "ext4")],
)
def test_the_innermost_and_newest_mount_counts(path: str, kind: str) -> None:
    assert kind_of_mount(MOUNTS, path=Path(path)) == kind


def test_without_a_table_of_mounts_the_kind_is_unknown() -> None:
    assert kind_of_mount("", path=Path("/")) == kind_of_mount("broken\n", path=Path("/")) == "unknown"


@pytest.mark.parametrize(
    ("use", "changes", "level"),
    [
        ("output", {"error": "Permission denied"}, "problem"),
        ("cache", {"error": "Read-only file system"}, "problem"),
        ("built", {"error": "Permission denied"}, "note"),
        ("output", {"has_links": False, "kind": "fuse.gcsfuse"}, "problem"),
        ("cache", {"has_links": False}, "ok"),
        ("output", {"free_bytes": 10**7}, "problem"),
        ("output", {"free_files": 3}, "problem"),
        ("output", {"free_bytes": 10**9}, "note"),
        ("cache", {"free_files": 5000}, "note"),
        ("output", {"kind": "tmpfs"}, "note"),
        ("output", {"kind": "overlay"}, "note"),
        ("cache", {"kind": "overlay"}, "ok"),
        ("built", {"kind": "nfs4"}, "note"),
        ("output", {"kind": "nfs4"}, "ok"),
    ],
)
def test_what_is_wrong_depends_on_the_use(use: Use, changes: dict[str, object], level: str) -> None:
    (finding,) = judge(use, **changes)
    assert finding.level == level
    assert (finding.way_out is None) == (level == "ok")
    assert level == "ok" or "output_dir" in (finding.way_out or "")


@pytest.mark.parametrize(("skew", "words"), [(7.25, "7.2 s ahead of"), (-30.0, "30.0 s behind")])
def test_a_clock_that_differs_is_noted_for_the_run_folder(skew: float, words: str) -> None:
    _, finding = judge(skew=skew)
    assert (finding.topic, finding.level) == ("clock", "note")
    assert words in finding.text
    assert len(judge("cache", skew=skew)) == 1
    assert len(judge(skew=1.0)) == 1


def test_the_folders_follow_the_variables_that_choose_them() -> None:
    def paths(**environment: str) -> dict[str, str]:
        places = standard_places({"HOME": "/home/me", **environment}, output=Path("runs"), cache=Path("/cache"))
        return {place.topic: str(place.path) for place in places}

    plain = paths()
    assert (plain["output"], plain["cache"], plain["hub cache"]) == ("runs", "/cache", "/home/me/.cache/huggingface")
    assert (plain["extensions"], plain["triton cache"]) == ("/home/me/.cache/torch_extensions", "/home/me/.triton")
    assert paths(XDG_CACHE_HOME="/x")["hub cache"] == "/x/huggingface"
    chosen = paths(HF_HOME="/hf", TORCH_EXTENSIONS_DIR="/ext", TRITON_CACHE_DIR="/tri")
    assert (chosen["hub cache"], chosen["extensions"], chosen["triton cache"]) == ("/hf", "/ext", "/tri")
