"""What is known of a recipe's model before it is built: from `model.scratch`, a local folder, or the Hub. Reads no weights.

The sizes of a known family follow from its config.json; of another one the headers of its safetensors files count.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrain.config.recipe import Model
from dstrain.errors import UserError
from dstrain.forecast.architecture import Architecture, read_architecture, scratch_architecture
from dstrain.forecast.weights import Part, Weight, count_buffers, list_weights
from dstrain.run_folder.base import parse_from_run
from dstrain.run_folder.reading import read_bytes

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 << 20
"""As the format allows."""
CODES = {"m2m100": 100, "nllb": 202, "mbart": 26}
"""A scratch architecture to the number of its language codes, for a vocabulary whose tokenizer has not been trained yet."""
TIMEOUT_SECONDS = 10.0
"""For which the Hub is waited."""
HEAD = "lm_head.weight"
LOGITS_BIAS = "final_logits_bias"
"""Stored, but no parameter."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model."""

    weights: tuple[Weight, ...]
    num_buffers: int
    architecture: Architecture | None
    """None for a family that this room does not know: then activations and times are not foretold."""
    kind: str
    """Its `model_type`."""
    origin: str
    is_exact: bool


def find_model(
    model: Model, *, vocabulary_size: int | None = None, num_kept: int | None = None, num_parameters: int | None = None
) -> ModelFacts:
    """The facts of a recipe's model.

    `vocabulary_size` is what its tokenizer needs, None if that is not known yet; `num_kept` the rows that `model.vocabulary`
    leaves; `num_parameters` a number that the user gives for a model that cannot be looked at.

    Raises:
        UserError: its files cannot be found or read.
    """
    if num_parameters is not None:
        weights = (Weight("all", "other", (num_parameters,)),)
        return ModelFacts(weights, 0, None, "given", "as given by --parameters", is_exact=True)
    if model.scratch is not None:
        scratch = model.scratch
        rows = vocabulary_size or scratch.vocabulary_size + CODES.get(scratch.architecture, 0)
        architecture = scratch_architecture(scratch, vocabulary=num_kept or rows, dropout=model.dropout)
        about = "" if vocabulary_size else f", with about {rows:,} token ids: `dstrain prepare` trains the tokenizer"
        return _facts(architecture, origin=f"model.scratch{about}", is_exact=vocabulary_size is not None)
    return _find_named(model, vocabulary_size=vocabulary_size, num_kept=num_kept)


def _find_named(model: Model, *, vocabulary_size: int | None, num_kept: int | None) -> ModelFacts:
    files = _local_files(model) or _hub_files(model)
    config = _read_json(files[CONFIG])
    headers = dict(_read_headers(files))
    is_own = (HEAD in headers) if headers else None
    found = read_architecture(config, has_own_head=is_own, dropout=model.dropout)
    place = files[CONFIG].parent
    if found is not None:
        rows = num_kept or max(found.vocabulary, vocabulary_size or 0)
        return _facts(replace(found, vocabulary=rows), origin=f"{place / CONFIG}", is_exact=vocabulary_size is not None)
    kind = str(config.get("model_type"))
    if not headers:
        raise UserError(
            f"model.name: the sizes of `{model.name}` (`{kind}`) are not known, and there is no {WEIGHTS} to count them in: give "
            "--parameters N"
        )
    stored = tuple(Weight(name, _part_of(name), shape) for name, shape in headers.items())
    weights = tuple(weight for weight in stored if weight.name != LOGITS_BIAS)
    num_buffers = sum(weight.numel for weight in stored) - sum(weight.numel for weight in weights)
    return ModelFacts(weights, num_buffers, None, kind, f"the headers of the weights in {place}", is_exact=True)


def _facts(architecture: Architecture, *, origin: str, is_exact: bool) -> ModelFacts:
    weights = list_weights(architecture)
    return ModelFacts(weights, count_buffers(architecture), architecture, architecture.kind, origin, is_exact)


def _local_files(model: Model) -> Mapping[str, Path] | None:
    """The files of a model folder here; None if the model is on the Hub."""
    folder = Path(model.name or "")
    if model.from_run is not None and not (folder / CONFIG).is_file():
        folder = parse_from_run(model.from_run).find_model() or folder
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"model.from_run: {model.from_run} has no exported model to look at: `dstrain export` writes one, or give "
                "--parameters N"
            )
    if not folder.is_dir():
        return None
    if not (folder / CONFIG).is_file():
        raise UserError(f"model.name: {folder} has no {CONFIG}: name a folder in the Hugging Face layout")
    return {path.name: path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")}


def _hub_files(model: Model) -> Mapping[str, Path]:
    """The config of a model on the Hub, and its weights if they are in the cache. Without a network the config in the cache."""
    from huggingface_hub import (  # a second to import
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    assert model.name is not None
    try:
        # asked once: the download itself would repeat a failing request for many seconds
        get_hf_file_metadata(hf_hub_url(model.name, CONFIG, revision=model.revision), timeout=TIMEOUT_SECONDS)
        config: object = hf_hub_download(model.name, CONFIG, revision=model.revision)
    except Exception as error:  # the classes of the HTTP library, which huggingface_hub has changed before
        config = try_to_load_from_cache(model.name, CONFIG, revision=model.revision)
        if not isinstance(config, str):
            first = str(error).strip().split("\n")[0]
            raise UserError(
                f"model.name: the {CONFIG} of `{model.name}` is neither here nor can it be had from the Hub ({first}): name a "
                "local folder, run this where there is a network, or give --parameters N"
            ) from error
    files = {CONFIG: Path(str(config))}
    cached = try_to_load_from_cache(model.name, WEIGHTS, revision=model.revision)
    if isinstance(cached, str):
        files[WEIGHTS] = Path(cached)
    return files


def _read_headers(files: Mapping[str, Path]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every stored tensor; nothing if the weights are not here or in another format."""
    names = [WEIGHTS]
    if INDEX in files:
        names = sorted(set(_read_json(files[INDEX]).get("weight_map", {}).values()))
    for name in names:
        if name in files:
            yield from _read_header(files[name])


def _read_header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The entries of a safetensors file: eight bytes give the length of a JSON header, then the header."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            header = json.loads(file.read(length))
        entries = {
            name: tuple(int(size) for size in entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}): download or export the model again"
        ) from error
    yield from entries.items()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(path.resolve()))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}): download or export the model again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: no JSON object: download or export the model again")
    return found


def _part_of(name: str) -> Part:
    plain = name.removeprefix("model.")
    if plain.startswith(("shared.", "embed_tokens")) or ".embed_tokens." in plain:
        return "embedding"
    if "embed_positions" in plain:
        return "positions"
    if plain.startswith("encoder."):
        return "encoder"
    if plain.startswith("decoder."):
        return "decoder"
    return "head" if name == HEAD else "other"
