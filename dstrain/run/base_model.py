"""Copies the weights of the run that `model.from_run` names into the run folder, before anything else is read from there."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from dstrain.attempt.rank_records import Phases
from dstrain.checkpoint.store import find_checkpoint
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.models.save import export_model
from dstrain.run.directions import find_directions, run_languages
from dstrain.run.export import load_checkpoint_model, load_run_tokenizer, whole_model
from dstrain.run.rank_0_work import made_by_rank_0
from dstrain.run.vocabulary import load_vocabulary
from dstrain.run_folder.atomic import new_folder, write_file
from dstrain.run_folder.base import BaseRun, Wanted, has_base, parse_from_run
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_exported_step
from dstrain.run_folder.record import counted_pairs

NUM_TRIES = 3
"""Tries to copy a model: while it is read, its run may replace it by a better one."""
WEIGHTS = (".safetensors", ".bin")

log = logging.getLogger(__name__)


def share_base(config: RunConfig, *, ranks: Ranks, phases: Phases | None) -> None:
    """Copy the weights of another run into the run folder, unless they are there; a collective call.

    Raises:
        UserError: the other run has no such weights; raised on rank 0, and the launcher then ends the others.
    """
    if config.model.from_run is None:
        return

    def make() -> list[str]:
        if not has_base(config):
            make_base(config)
        return []

    made_by_rank_0(make, run_dir=Path(config.run_dir), ranks=ranks, phases=phases)


def make_base(config: RunConfig) -> BaseRun:
    """Copy the model that the recipe names, and write the record of it; returns that.

    Raises:
        UserError: there is no such model.
    """
    assert config.model.from_run is not None
    folder, wanted = RunFolder(Path(config.run_dir)), parse_from_run(config.model.from_run)
    folder.base_record.unlink(missing_ok=True)
    model = wanted.find_model()
    step = _export(wanted, to=folder.base) if model is None else _copy(model, to=folder.base)
    languages = run_languages(read_run_config(wanted.folder), counted=counted_pairs(wanted.folder))[0]
    files = sorted(path for path in folder.base.iterdir() if path.suffix in WEIGHTS)
    record = BaseRun(
        from_run=config.model.from_run,
        run=str(wanted.folder.path),
        step=step,
        sha256=_hash(files),
        source_language=languages.source,
        target_language=languages.target,
    )
    write_file(folder.base_record, json.dumps(asdict(record), indent=1) + "\n", durable=True)
    log.info("the run begins with the weights of %s, step %d, copied to %s", record.run, step, folder.base)
    return record


def _copy(model: Path, *, to: Path) -> int:
    """Copy a model folder; returns the step of its weights."""
    for _ in range(NUM_TRIES):
        step = read_exported_step(model)
        try:
            with new_folder(to, draft=to.with_name(f"{to.name}.tmp")) as draft:
                for path in sorted(model.iterdir()):
                    if path.is_file() and not path.is_symlink():
                        shutil.copyfile(path, draft / path.name)
                if step is None or read_exported_step(model) != step:
                    raise FileNotFoundError(2, os.strerror(2), str(model))
        except FileNotFoundError:
            continue
        return step
    raise UserError(
        f"model.from_run: {model} cannot be copied: it is no model of a run, or is being replaced; start again"
    )


def _export(wanted: Wanted, *, to: Path) -> int:
    """Write the model of a checkpoint as a folder; returns its step."""
    assert wanted.step is not None
    config, source = read_run_config(wanted.folder), wanted.folder
    directory = find_checkpoint(source.path, step=wanted.step)
    tokenizer = load_run_tokenizer(source)
    vocabulary = load_vocabulary(config.model_copy(update={"output_dir": str(source.path)}), tokenizer=tokenizer)
    trained = load_checkpoint_model(directory, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    model = whole_model(trained, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
    directions = find_directions(config, counted=counted_pairs(source), tokens=None, tokenizer=tokenizer)
    export_model(model, tokenizer=tokenizer, folder=to, generation={}, step=wanted.step, directions=directions)
    return wanted.step


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
