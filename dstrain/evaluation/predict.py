"""Sources to hypotheses without references: the search of an evaluation, on texts that have no reference.

Owns the settings of that search and which tokens a source becomes; does not know files, and how windows reach the ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import GenerationConfig, PreTrainedModel

from dstrain.cluster.device_errors import explained_memory
from dstrain.config.evaluation import Evaluation
from dstrain.config.recipe import Task
from dstrain.data.arrays import Ids
from dstrain.data.collate import pad_sources
from dstrain.data.examples import prepare_source
from dstrain.data.vocabulary import Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.beam import NEVER
from dstrain.evaluation.generate import (
    Batch,
    build_generation_config,
    generate,
    generate_best,
    plan_batches,
    read_sequence,
    search_settings,
)
from dstrain.evaluation.scoring import read_answer, restore_spaces
from dstrain.models.families import generation_arguments
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.tasks.parsing import from_pointer


@dataclass(frozen=True, slots=True)
class Source:
    """A source as the model reads it."""

    ids: list[int]
    target_language: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One hypothesis, up to and including its end token, as ids of the tokenizer."""

    token_ids: tuple[int, ...]
    was_cut: bool
    score: float | None


@dataclass(frozen=True, slots=True)
class Found:
    """The hypotheses of a row, best first."""

    row: int
    candidates: tuple[Candidate, ...]


class Engine(Protocol):
    """What generates in the stead of a model."""

    @property
    def name(self) -> str:
        """What it is, for messages."""

    def generate(
        self, sources: Sequence[Ids], *, generation: GenerationConfig, num_best: int | None
    ) -> tuple[Sequence[Sequence[npt.NDArray[np.int64]]], Sequence[Sequence[float | None]]]:
        """The hypotheses of each source, best first, `[1 + generated]` from start to end token, and their scores."""


@dataclass(frozen=True)
class Search:
    """A model and the settings with which it generates."""

    model: PreTrainedModel
    """With an engine it needs no weights."""
    tokenizer: Seq2SeqTokenizer
    vocabulary: Vocabulary
    """The ids for which the model has rows."""
    evaluation: Evaluation
    max_new_tokens: int
    batch_tokens: int
    """Source tokens of a batch, those of all beams and the padding included."""
    num_best: int | None
    """Hypotheses a row, with scores; None for the best alone, without."""
    device: torch.device
    engine: Engine | None = None
    """What searches with a converted model; None for the model itself."""

    def plan(self, sources: Sequence[Source]) -> list[Batch]:
        """The batches of a window, as an evaluation of these rows would plan them; the same on all ranks."""
        return plan_batches(
            [len(source.ids) for source in sources],
            languages=[source.target_language for source in sources],
            batch_size=self.evaluation.batch_size,
            max_tokens=self.batch_tokens // self.evaluation.num_beams,
        )

    def generation(self, target_language: str | None) -> GenerationConfig:
        """The generation config of a target language. Not in `evaluation_mode`, where the model's own is empty."""
        arguments = generation_arguments(
            self.model, self.tokenizer, target_language=target_language, row_of=self.vocabulary.row
        )
        return build_generation_config(
            self.model,
            evaluation=self.evaluation,
            max_new_tokens=self.max_new_tokens,
            arguments=arguments | search_settings(self.vocabulary),
        )

    def predict(self, batch: Batch, *, sources: Sequence[Source], generation: GenerationConfig) -> list[Found]:
        """The hypotheses of the rows in a batch. Call it in `evaluation_mode`."""
        ids = [np.asarray(sources[row].ids, dtype=np.int32) for row in batch.rows]
        with explained_memory(partial(self._describe, ids)):
            sequences, scores = self._generate(ids, generation=generation)
        read = partial(
            read_sequence,
            pad_id=self.vocabulary.row(self.tokenizer.pad_token_id),
            generation=generation,
            vocabulary=self.vocabulary,
        )
        found = []
        for row, texts, values in zip(batch.rows, sequences, scores, strict=True):
            hypotheses = [(read(text, row=row), score) for text, score in zip(texts, values, strict=True)]
            candidates = (
                Candidate(each.token_ids, each.was_cut, score)
                for each, score in hypotheses
                if score is None or score > NEVER
            )
            found.append(Found(row, tuple(candidates)))
        return found

    def _generate(
        self, sources: Sequence[Ids], *, generation: GenerationConfig
    ) -> tuple[Any, Sequence[Sequence[float | None]]]:
        """Tokens `[rows, hypotheses, 1 + generated]` on the CPU and the scores of each."""
        if self.engine is not None:
            return self.engine.generate(sources, generation=generation, num_best=self.num_best)
        pad_id = self.vocabulary.row(self.tokenizer.pad_token_id)
        source_ids, source_mask = (
            tensor.to(self.device) for tensor in pad_sources(sources, pad_id=pad_id, vocabulary=self.vocabulary)
        )
        settings: Mapping[str, Any] = {
            "source_ids": source_ids,
            "source_mask": source_mask,
            "generation": generation,
        }
        if self.num_best is None:
            sequences = generate(self.model, encoded=None, **settings)
            return sequences[:, None].to("cpu", torch.int64).numpy(), [[None]] * len(sources)
        sequences, scores = generate_best(self.model, num_best=self.num_best, **settings)
        return sequences.to("cpu", torch.int64).numpy(), scores.tolist()

    def _describe(self, sources: Sequence[Ids]) -> str:
        longest = max(map(len, sources))
        return (
            f"a batch of {len(sources)} rows with {self.evaluation.num_beams} beams and sources of up to {longest} tokens did "
            f"not fit. Lower --batch-tokens (now {self.batch_tokens})"
        )


def encode_sources(
    texts: Sequence[str], *, languages: Sequence[tuple[str | None, str | None]], tokenizer: Seq2SeqTokenizer
) -> list[list[int]]:
    """Token ids of each text in its pair of languages, as an evaluation encodes it, untruncated."""
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    for row, pair in enumerate(languages):
        groups.setdefault(pair, []).append(row)
    found: list[list[int]] = [[] for _ in texts]
    for (source, target), rows in groups.items():
        ids, _ = tokenizer.encode([texts[row] for row in rows], [], source_language=source, target_language=target)
        for row, each in zip(rows, ids, strict=True):
            found[row] = each
    return found


def cut_source(ids: list[int], *, task: Task, tokenizer: Seq2SeqTokenizer) -> list[int]:
    """The ids within `task.max_source_tokens`. Raises UserError if that leaves no room for special tokens."""
    try:
        return tokenizer.truncate(ids, max_tokens=task.max_source_tokens)
    except UserError as error:
        raise UserError(f"task.max_source_tokens: {error}") from error


def read_text(
    candidate: Candidate,
    *,
    source: str,
    where: str,
    task: Task,
    keeps_pointers: bool,
    decode: Callable[[list[int]], str],
) -> str:
    """The text of a hypothesis in one line, as an evaluation writes it; pointers become words of `source`, as it was given.

    `where` is the place of the row in the input.
    """
    text = decode(list(candidate.token_ids))
    answer = read_answer(text, source=source, task=task, where=where)
    text = restore_spaces(text if answer is None else answer, task=task)
    if task.has_pointers and not keeps_pointers:
        text = from_pointer(text, source=prepare_source(source, task=task, prefix="", where=where))
    return text
