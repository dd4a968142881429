"""The configuration of a run that may have begun with an earlier version: it keeps what its recipe meant then. No torch."""

from pathlib import Path
from typing import Any

from dstrain.config.load import MAX_CONFIG_BYTES, load_config, was_written_earlier
from dstrain.config.schema import RunConfig
from dstrain.run_folder.base import inherit_languages, parse_from_run, read_base
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes


def load_run_config(path_or_name: str, **options: Any) -> RunConfig:
    """`load_config` of a user's recipe; a key that a run folder was made without means what it meant then.

    The run folder is the one that holds the file, or the one that the recipe trains in.
    """
    config = _inherit(load_config(path_or_name, **options))
    file = Path(path_or_name)
    candidates = [RunFolder(Path(config.run_dir))]
    if RunFolder(file.parent).config == file:
        candidates.append(RunFolder(file.parent))
    if any(map(_began_earlier, candidates)):
        return _inherit(load_config(path_or_name, is_earlier=True, **options))
    return config


def _inherit(config: RunConfig) -> RunConfig:
    """The recipe with the languages of the run that it begins from, where that is still there or its weights are copied."""
    text = config.model.from_run
    if text is None:
        return config
    base, other = read_base(RunFolder(Path(config.run_dir))), parse_from_run(text).folder
    if base is not None and base.from_run == text:
        return inherit_languages(config, of_run=(base.source_language, base.target_language))
    if other.config.is_file():
        return inherit_languages(config, of_run=read_run_config(other).languages)
    return config


def read_run_config(folder: RunFolder, **options: Any) -> RunConfig:
    """The configuration in a run folder, which may be a stranger's: only an ordinary file is read, and no other file for it.

    The options are those of `load_config`.

    Raises:
        UserError: it is not an ordinary file, cannot be read, or is not a valid configuration.
    """
    try:
        content = read_bytes(folder.config, max_bytes=MAX_CONFIG_BYTES)
    except OSError as error:
        raise RunFolderError(f"{folder.config}: {error.strerror}") from error
    config = load_config(str(folder.config), content=content, is_earlier=_began_earlier(folder), **options)
    if config.model.from_run is None:
        return config
    # the folder may have been moved since
    return config.model_copy(update={"model": config.model.model_copy(update={"name": str(folder.base)})})


def _began_earlier(folder: RunFolder) -> bool:
    if not folder.info.is_file():
        return False
    try:
        return was_written_earlier(read_bytes(folder.config, max_bytes=MAX_CONFIG_BYTES))
    except OSError:
        return False
