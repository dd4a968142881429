"""The wheel, built here and installed where there is no clone: what it holds, and a demo that is trained with it."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from dstrain import __version__
from dstrain.cluster.environment import free_port
from dstrain.config.shipped import SCRIPTS

pytest.importorskip("hatchling", reason="the build backend is not installed: pip install -r requirements/build.txt")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DEEPSPEED = str(Path(sys.executable).parent / "deepspeed")
SHIPPED = {"dstrain": "dstrain", "configs": "dstrain/recipes", **{name: f"dstrain/scripts/{name}" for name in SCRIPTS}}
"""Folders of the clone, and where they are in the wheel."""
FEW_STEPS = (
    "training.max_steps=4",
    "training.batch_size=16",
    "evaluation.every_steps=4",
    "data.train.0.max_rows=256",
    "data.eval.0.max_rows=16",
    "logging.every_steps=1",
    "logging.tensorboard=false",
)


def build(kind: str, *, source: Path, output: Path) -> Path:
    """A distribution made from a source folder, offline."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(output)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source=ROOT, output=tmp_path_factory.mktemp("wheel"))


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder outside of the clone."""

    bin: Path
    folder: Path

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """A program of this environment, started in the folder."""
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        program = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(program, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment that has the wheel, and sees the other packages of this one."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = place / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # a path in a .pth file is searched last, and the .pth files in it, such as that of a clone, are not read
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "others.pth").write_text("".join(f"{path}\n" for path in paths))
    return Installed(place / "bin", tmp_path_factory.mktemp("folder"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Name and content of every file but the list of files."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_holds_every_file_of_the_package_and_what_is_shipped_beside_it(wheel: Path) -> None:
    shipped = {
        f"{inside}/{path.relative_to(ROOT / folder)}": path.read_bytes()
        for folder, inside in SHIPPED.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name: content for name, content in contents(wheel).items() if ".dist-info/" not in name}
    assert found.keys() == shipped.keys()
    assert found == shipped
    assert {
        "dstrain/reporting/card.md.j2",
        "dstrain/recipes/debug.yaml",
        "dstrain/scripts/slurm/train.sbatch",
    } <= found.keys()


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = build("sdist", source=ROOT, output=tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build("wheel", source=tmp_path / f"dstrain-{__version__}", output=tmp_path / "wheel")
    assert contents(again) == contents(wheel)


def test_nothing_comes_from_the_clone(installed: Installed) -> None:
    code = (
        "import json, sys, dstrain; from dstrain.config.shipped import recipes_folder, script_folders; "
        "print(json.dumps([dstrain.__file__, str(recipes_folder()), *map(str, script_folders()), *sys.path]))"
    )
    done = installed.run(["python", "-c", code])
    assert done.returncode == 0, done.stderr
    paths = json.loads(done.stdout)
    assert all(Path(path).is_relative_to(installed.bin.parent) for path in paths[:4])
    assert str(ROOT) not in paths


def test_the_command_finds_shipped_recipes_and_knows_that_it_is_no_clone(installed: Installed) -> None:
    assert installed.run(["dstrain", "--version"]).stdout.startswith(f"dstrain {__version__} (no clone), Python ")
    checked = installed.run(["dstrain", "check", "demo_translation", "debug"])
    assert checked.returncode == 0, checked.stderr
    assert "demo_translation: ok" in checked.stdout
    refused = installed.run(["dstrain", "check", "demo_translaton"])
    assert (refused.returncode, "did you mean `demo_translation`?" in refused.stderr) == (1, True)
    (installed.folder / "mine.yaml").write_text("extends: demo_translation\nname: mine\n")
    assert "runs/mine" in installed.run(["dstrain", "check", "mine"]).stdout


def test_the_scripts_of_the_wheel_can_be_executed(installed: Installed) -> None:
    done = installed.run(["dstrain", "scripts"])
    assert done.returncode == 0, done.stderr
    executable = {path.name for path in (ROOT / "launch").iterdir() if os.access(path, os.X_OK) and path.is_file()}
    copied = {path.name for path in (installed.folder / "launch").iterdir() if os.access(path, os.X_OK)}
    assert copied == executable
    helped = installed.run(["python", "launch/train.py", "--help"])
    assert (helped.returncode, "--config" in helped.stdout) == (0, True)
    lost = subprocess.run(
        ["bash", str(installed.folder / "slurm" / "train.sbatch")],
        cwd=installed.bin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lost.returncode == 2
    assert "has no slurm/python.sh: cd to a clone or to where `dstrain scripts` was run" in lost.stderr


def test_deepspeed_trains_a_demo_by_its_name(installed: Installed) -> None:
    # by the interpreter of the new environment, which the launcher starts the ranks with
    command = ["python", DEEPSPEED, "--quiet", "--master_port", str(free_port()), "--module", "dstrain.train"]
    done = installed.run([*command, "--config", "demo_translation", *FEW_STEPS])
    assert done.returncode == 0, done.stdout + done.stderr
    run = installed.folder / "runs" / "demo-translation"
    assert "deepspeed --num_gpus 1 --module dstrain.train --config demo_translation" in (run / "README.md").read_text()
    assert json.loads((run / "run.json").read_text())["total_steps"] == 4
    assert (run / "best" / "model.safetensors").is_file()
    assert (installed.folder / ".cache" / "dstrain").is_dir()
