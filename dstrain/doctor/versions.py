"""The versions that matter, read from the metadata of packages and from the clone. Imports none of the packages."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import dstrain

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "tokenizers", "sentencepiece", "sacrebleu")
NONE = "not installed"
GIT_SECONDS = 10.0
_BUILD = re.compile(r"^(cuda|hip)\b[^=]*= *['\"]([^'\"]+)['\"]", re.MULTILINE)


def list_versions() -> list[str]:
    """Lines with the versions of dstrain, of Python, and of the packages that a result depends on."""
    revision = find_revision(Path(dstrain.__file__).parent.parent)
    place = f"git {revision}" if revision else "no clone"
    build = torch_build()
    torch = f"torch for {build}" if build else "no torch"
    packages = ", ".join(f"{name} {find_version(name) or NONE}" for name in PACKAGES)
    return [
        f"dstrain {dstrain.__version__} ({place}), Python {platform.python_version()}, {torch}",
        packages,
    ]


def find_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def torch_build() -> str | None:
    """What the installed torch was built for, such as `CUDA 12.9`; None if there is no torch."""
    spec = find_spec("torch")  # of a package, so that nothing is imported
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        with suppress(OSError):
            return read_build((Path(folder) / "version.py").read_text(encoding="utf-8"))
    return None


def read_build(text: str) -> str:
    """What a torch was built for, by the text of its version.py: `CUDA 12.9`, `ROCm 6.4` or `CPU`."""
    match = _BUILD.search(text)
    return "CPU" if match is None else f"{'CUDA' if match[1] == 'cuda' else 'ROCm'} {match[2]}"


def find_revision(root: Path, *, environment: Mapping[str, str] = os.environ) -> str | None:
    """The git revision of a clone, with `-dirty` if its files were changed since; None outside a clone or without git."""
    if not (root / ".git").exists():
        return None
    # variables such as GIT_DIR, as inside a hook, would name another repository
    clean = {name: value for name, value in environment.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
