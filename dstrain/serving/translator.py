"""Hypotheses of a converted model by CTranslate2. Does not convert, and does not know rows and files of data."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig

from dstrain.cluster.device_errors import is_out_of_memory
from dstrain.data.arrays import Ids
from dstrain.errors import UserError
from dstrain.evaluation.decode import read_rules
from dstrain.run_folder.converted import WEIGHTS, read_conversion
from dstrain.run_folder.reading import read_bytes
from dstrain.serving.conversion import check_distinct, check_installed

VOCABULARY = "shared_vocabulary.json"
CONFIG = "config.json"
MAX_VOCABULARY_BYTES = 256 << 20


@dataclass(frozen=True)
class Translator:
    """A converted model on a device."""

    folder: Path
    inner: Any
    """CTranslate2's own translator."""
    tokens: Sequence[str]
    """The token of each id."""
    ids: Mapping[str, int]
    start: str | None
    """The token with which every hypothesis begins; None if each search names it."""
    name: str
    """The engine, its version and the type of the weights, for messages."""

    @property
    def computed_in(self) -> str:
        """The type in which this device computes, such as `int8_float32`."""
        kind: str = self.inner.compute_type
        return kind

    def generate(
        self, sources: Sequence[Ids], *, generation: GenerationConfig, num_best: int | None
    ) -> tuple[list[list[npt.NDArray[np.int64]]], list[list[float | None]]]:
        """The best hypotheses of each source, `[1 + generated]` with start and end token, and their scores.

        With `num_best` None, it is the best alone, without a score. Tokens that the config forbids are not generated, because
        the model was converted so.

        Raises:
            UserError: the model was converted with another start token, or a source is too long for it.
        """
        rules = read_rules(generation)
        start, forced = self.tokens[rules.start_id], rules.forced_first_id
        if self.start not in (None, start):
            raise UserError(f"{self.folder}: begins hypotheses with `{self.start}`, and the settings say `{start}`")
        prefix = [start] if self.start is None else []
        prefix += [] if forced is None else [self.tokens[forced]]
        try:
            results = self.inner.translate_batch(
                [[self.tokens[token] for token in source] for source in sources],
                target_prefix=[prefix] * len(sources) if prefix else None,
                beam_size=rules.num_beams,
                num_hypotheses=num_best or 1,
                length_penalty=rules.length_penalty,
                end_token=[self.tokens[token] for token in rules.end_ids],
                return_end_token=True,
                max_input_length=0,  # sources are cut before, and said to be
                max_decoding_length=rules.max_new_tokens,
                min_decoding_length=0,
                return_scores=num_best is not None,
            )
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{self.folder}: CTranslate2 cannot search these sources: {error}") from error
        sequences = [
            [np.asarray([rules.start_id, *(self.ids[token] for token in tokens)]) for tokens in result.hypotheses]
            for result in results
        ]
        return sequences, [result.scores if result.scores else [None] for result in results]


def load_translator(folder: Path, *, device: torch.device) -> Translator:
    """The converted model in a folder, on a device.

    Raises:
        UserError: CTranslate2 is not installed or cannot load it, or the folder is damaged or not made by `dstrain export`.
    """
    check_installed()
    import ctranslate2  # optional

    ctranslate2.set_log_level(logging.ERROR)  # that another type is computed in is said in the name
    conversion = read_conversion(folder)
    try:
        tokens = json.loads(read_bytes(folder / VOCABULARY, max_bytes=MAX_VOCABULARY_BYTES))
        config = json.loads(read_bytes(folder / CONFIG))
        inner = ctranslate2.Translator(
            str(folder), device=device.type, device_index=device.index or 0, intra_threads=torch.get_num_threads()
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder / WEIGHTS}: CTranslate2 {ctranslate2.__version__} cannot load it on `{device.type}`: {error}"
        ) from error
    check_distinct(tokens, where=str(folder / VOCABULARY))
    return Translator(
        folder=folder,
        inner=inner,
        tokens=tokens,
        ids={token: index for index, token in enumerate(tokens)},
        start=config["decoder_start_token"],
        name=_describe(ctranslate2.__version__, stored=conversion.quantization, computed=inner.compute_type),
    )


def _describe(version: str, *, stored: str, computed: str) -> str:
    is_as_stored = computed in (stored, f"{stored}_float32")
    return f"CTranslate2 {version} ({stored}{'' if is_as_stored else f', computed in {computed}'})"
