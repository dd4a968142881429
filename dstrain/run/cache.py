"""The folder of what is computed once and used by many runs: token sets, trained tokenizers, measured machine settings."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError


def cache_dir(config: RunConfig, *, environment: Mapping[str, str] = os.environ) -> Path:
    """The cache of a run: `machine.cache_dir`, else a folder in the user's own cache."""
    if config.machine.cache_dir is not None:
        return Path(config.machine.cache_dir)
    return default_cache_dir(environment)


def default_cache_dir(environment: Mapping[str, str]) -> Path:
    """The folder in the user's own cache."""
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dstrain"


def make_cache_dir(config: RunConfig) -> Path:
    """The cache of a run, made if it does not exist.

    Raises:
        UserError: it cannot be made, or nothing can be written into it.
    """
    folder = cache_dir(config)
    try:
        # no one else writes to one's own cache; a cache that the recipe names may be a group's
        mode = 0o777 if config.machine.cache_dir is not None else 0o700
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(
            f"machine.cache_dir: {folder} cannot be written ({error.strerror}); set machine.cache_dir to a folder that can, on a "
            "file system that all ranks share"
        ) from error
