"""The locks in requirements/ name every package with hashes, no index, and versions that pyproject.toml admits."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def read_lock(path: Path) -> dict[str, tuple[Requirement, str]]:
    """Name of every package to its requirement, and the rest of its entry."""
    entries = re.split(r"\n(?=\S)", path.read_text().strip())
    found = [(Requirement(entry.split(" \\\n")[0]), entry.partition("\n")[2]) for entry in entries]
    return {canonicalize_name(requirement.name): (requirement, rest) for requirement, rest in found}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.name))
def test_every_entry_of_a_lock_is_one_version_with_hashes_and_nothing_else(path: Path) -> None:
    for requirement, rest in read_lock(path).values():
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert re.fullmatch(r"( {4}--hash=sha256:[0-9a-f]{64}( \\\n)?)+", rest), requirement


def test_the_locks_admit_what_pyproject_admits_and_the_makefile_installs_each() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = {name: each for path in LOCKS if path.name != "exports.txt" for name, each in read_lock(path).items()}
    extras = project["project"]["optional-dependencies"]
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *extras["test"],
        *extras["tensorboard"],
        *extras["lora"],
        *extras["ctranslate2"],
        *extras["langid"],
    ]
    for requirement in map(Requirement, wanted):
        (version,) = locked[canonicalize_name(requirement.name)][0].specifier
        assert version.version in requirement.specifier, requirement
    makefile = (ROOT / "Makefile").read_text()
    assert [path.name for path in LOCKS if path.name not in makefile] == []


def test_torch_has_the_hashes_of_its_cpu_builds() -> None:
    _, hashes = read_lock(ROOT / "requirements" / "torch.txt")["torch"]
    builds = [line.split() for line in (ROOT / "requirements" / "torch-cpu.sha256").read_text().splitlines()]
    assert {name.split("-")[2] for _, name in builds} >= {"cp311", "cp312", "cp313"}
    assert [name for digest, name in builds if digest not in hashes] == []
