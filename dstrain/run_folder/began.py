"""The configuration of a run that may have begun with an earlier version: it keeps what its recipe meant then. No torch."""

from pathlib import Path
from typing import Any

from dstrain.config.load import load_config, was_written_earlier
from dstrain.config.schema import RunConfig
from dstrain.run_folder.layout import RunFolder


def load_run_config(path_or_name: str, **options: Any) -> RunConfig:
    """`load_config` with the same options; a key that a run folder was made without means what it meant then.

    The run folder is the one that holds the file, or the one that the recipe trains in.
    """
    config = load_config(path_or_name, **options)
    file = Path(path_or_name)
    candidates = [RunFolder(Path(config.run_dir))]
    if RunFolder(file.parent).config == file:
        candidates.append(RunFolder(file.parent))
    if any(folder.info.is_file() and was_written_earlier(folder.config) for folder in candidates):
        return load_config(path_or_name, is_earlier=True, **options)
    return config
