"""Versions without importing what they are of, and the revision of a clone, however git is disturbed."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from dstrain import __version__
from dstrain.doctor.versions import PACKAGES, find_revision, find_version, list_versions, read_build, torch_build


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *settings, "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one\n")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--message", "one")
    return tmp_path


def test_the_lines_name_what_a_result_depends_on() -> None:
    first, second = list_versions()
    assert first.startswith(f"dstrain {__version__} (")
    assert f"Python {platform.python_version()}, torch for " in first
    assert second == ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, json\nfrom dstrain.doctor.versions import list_versions\nlist_versions()\n"
        f"print(json.dumps([name for name in {[*PACKAGES, 'numpy']!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert find_version("torch") == version("torch")
    assert find_version("no-such-package-here") is None


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", "CPU"),
        ("cuda: Optional[str] = '12.9'\nhip: Optional[str] = None\n", "CUDA 12.9"),
        ('cuda = "11.8"\n', "CUDA 11.8"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.1'\n", "ROCm 6.4.1"),
    ],
)
def test_the_build_of_torch_is_read_from_its_version_file(text: str, build: str) -> None:
    assert read_build(f"__version__ = '2.13.0'\n{text}") == build


def test_the_build_is_that_which_torch_itself_tells() -> None:
    import torch

    kind, _, number = (torch_build() or "").partition(" ")
    assert {"CUDA": torch.version.cuda, "ROCm": torch.version.hip, "CPU": ""}[kind] == number
    assert kind != "CPU" or (torch.version.cuda, torch.version.hip) == (None, None)


def test_a_clone_has_its_revision_and_says_whether_files_were_changed(clone: Path) -> None:
    revision = git(clone, "rev-parse", "--short", "HEAD")
    assert find_revision(clone) == revision
    (clone / "file").write_text("two\n")
    assert find_revision(clone) == f"{revision}-dirty"


def test_a_tag_does_not_stand_for_the_revision(clone: Path) -> None:
    git(clone, "tag", "--annotate", "v1", "--message", "v1")
    assert find_revision(clone) == git(clone, "rev-parse", "--short", "HEAD")


def test_another_repository_that_the_environment_names_is_not_asked(
    clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init")
    assert find_revision(clone, environment={"PATH": "/usr/bin:/bin", "GIT_DIR": str(other / ".git")}) is not None


def test_outside_a_clone_inside_another_repository_and_without_git_there_is_none(clone: Path) -> None:
    (clone / "site-packages").mkdir()
    assert find_revision(clone / "site-packages") is None
    assert find_revision(clone, environment={"PATH": str(clone)}) is None
    git_file = clone / "broken" / ".git"
    git_file.mkdir(parents=True)
    assert find_revision(clone / "broken") in (None, find_revision(clone))
