"""The input of both sides of the training benchmark: tokenised rows, the initial weights of a model, and the settings.

Rows are real ones if files are given, otherwise random ids whose lengths are distributed like those of translations or
parses. Everything is written to a folder once; the sides read it there, each in its own process. Measures nothing.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.recipe import Scratch
from dstrain.config.schema import RunConfig
from dstrain.data.encoding import ReadingRules
from dstrain.data.examples import Example
from dstrain.data.tokens import TokenSet, build_token_set, load_token_set
from dstrain.models.scratch import SPECIAL_IDS, build_scratch_model
from dstrain.run.prepare import prepare

LEARNING_RATE = 1e-3
MAX_GRAD_NORM = 1.0
DRAWN_ROWS = {"train": 100_000, "eval": 500}
MAX_TOKENS = 256
CORRELATION = 0.8
FIRST_ID = 10
"""Lower ids are special tokens in some family."""
LENGTHS = {"translation": ((25.0, 0.60), (25.0, 0.60)), "parsing": ((12.0, 0.40), (16.0, 0.38))}
"""Mean and deviation of the logarithm, of source and target lengths: with batches of 16 in random order, 39 % and 56 % of
the target positions are real."""

SHAPES = {
    "mt5-small": {"hidden_size": 512, "feed_forward_size": 1024, "num_layers": 8, "num_heads": 8},
    "mt5": {"hidden_size": 128, "feed_forward_size": 256, "num_layers": 2, "num_heads": 4},
    "m2m100": {"hidden_size": 192, "feed_forward_size": 768, "num_layers": 3, "num_heads": 4},
}
ROWS_OF_HEAD = {"mt5-small": 250_112, "mt5": 16_384, "m2m100": 6_144}
"""Vocabulary size. That of mT5-small is the published one; the others are chosen so that the head has the same share of all
multiply-adds as in the published model: 73 % as in mT5-small, 26 % as in M2M100-418M. Real rows use as many of its ids as their
text has pieces."""
ARCHITECTURES = {"mt5-small": "mt5", "mt5": "mt5", "m2m100": "m2m100"}
NUM_PIECES = {"translation": 20_000, "parsing": 4_000}
"""Pieces of the tokenizer of real rows for mT5-small: about as many ids as its own tokenizer finds in such rows."""


@dataclass(frozen=True)
class Case:
    """The files of a case."""

    kind: str
    model: str
    origin: str
    """Description of where the rows come from."""
    train: str
    eval: str
    weights: str
    pad_id: int
    start_id: int

    def load_rows(self, split: str) -> TokenSet:
        """The tokenised rows of `train` or `eval`."""
        return load_token_set(Path(self.train if split == "train" else self.eval))

    def load_model(self) -> PreTrainedModel:
        """The model with its initial weights, in fp32."""
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_pretrained(self.weights, dtype=torch.float32)
        return model


def build_config(
    folder: Path,
    *,
    kind: str,
    model: str,
    batch_tokens: int,
    budget: int,
    num_updates: int,
    warmup_steps: int,
    seed: int,
    train: Sequence[str] = (),
    held_out: Sequence[str] = (),
    precision: str = "fp32",
    batch_unit: str = "target_tokens",
    compile: bool = False,
) -> RunConfig:
    """The recipe of our side; the Trainer's arguments are equivalent. Without files the demo is a placeholder for drawn rows."""
    demo = [{"demo": kind}]
    languages = ("ko", "en") if kind == "translation" else ("en", "en")
    return RunConfig.model_validate(
        {
            "name": "training-benchmark",
            "seed": seed,
            "precision": precision,
            "output_dir": str(folder / "run"),
            "model": {"scratch": shape_of(model, kind=kind)},
            "task": {"kind": kind} | dict(zip(("source_language", "target_language"), languages, strict=True)),
            "data": {
                "train": [{"path": path} for path in train] or demo,
                "eval": [{"path": path} for path in held_out] or [{"demo": kind, "split": "eval"}],
                "rules": {"unknown_token": "keep", "unpointable": "skip"},
            },
            "training": {
                "batch_size": batch_tokens,
                "batch_unit": batch_unit,
                "max_steps": num_updates,
                "learning_rate": LEARNING_RATE,
                "warmup_steps": warmup_steps,
                "max_grad_norm": MAX_GRAD_NORM,
            },
            "machine": {"micro_batch_tokens": budget, "compile": compile, "cache_dir": str(folder / "cache")},
            "logging": {"tensorboard": False},
        }
    )


def shape_of(model: str, *, kind: str) -> dict[str, Any]:
    """The values of `model.scratch`."""
    num_pieces = NUM_PIECES[kind] if model == "mt5-small" else 8000
    return {"architecture": ARCHITECTURES[model], "vocabulary_size": num_pieces} | SHAPES[model]


def make_case(
    folder: Path, *, kind: str, model: str, train: Sequence[str] = (), held_out: Sequence[str] = (), origin: str = ""
) -> Case:
    """Write rows and weights; real rows if files are given, otherwise drawn ones."""
    config = build_config(
        folder,
        kind=kind,
        model=model,
        batch_tokens=1,
        budget=1,
        num_updates=1,
        warmup_steps=0,
        seed=0,
        train=train,
        held_out=held_out,
    )
    special = SPECIAL_IDS[ARCHITECTURES[model]]
    if train:
        ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
        prepared = prepare(config, ranks=ranks)
        folders = [prepared.train.folder, prepared.eval.folder]
        assert prepared.tokenizer.vocabulary_size <= ROWS_OF_HEAD[model]
    else:
        origin = f"ids drawn with lengths as of {kind}: log-normal, correlation {CORRELATION}"
        folders = [
            write_drawn_rows(
                folder / split,
                config=config,
                seed=seed,
                num_rows=number,
                num_ids=NUM_PIECES[kind] if model == "mt5-small" else ROWS_OF_HEAD[model],
                end_id=special["eos_id"],
            )
            for seed, (split, number) in enumerate(DRAWN_ROWS.items())
        ]
    network = build_model(model, seed=config.seed)
    network.save_pretrained(folder / "model")
    start = network.config.decoder_start_token_id
    return Case(kind, model, origin, *map(str, [*folders, folder / "model"]), special["pad_id"], start)


def save_case(case: Case, *, path: Path) -> None:
    """Write a case as JSON."""
    path.write_text(json.dumps(asdict(case)))


def read_case(path: Path) -> Case:
    """Read a case written by `save_case`."""
    return Case(**json.loads(path.read_text()))


def build_model(model: str, *, seed: int) -> PreTrainedModel:
    """A model with random weights, whose head has the same share of the arithmetic as in the published model."""
    special: dict[str, Any] = SPECIAL_IDS[ARCHITECTURES[model]]
    ids = {f"{name}_token_id": special[f"{name}_id"] for name in ("pad", "eos", "bos")}
    vocabulary = SimpleNamespace(
        vocabulary_size=ROWS_OF_HEAD[model], pad_token_id=special["pad_id"], tokenizer=SimpleNamespace(**ids)
    )
    scratch = Scratch.model_validate(shape_of(model, kind="translation"))
    network = build_scratch_model(scratch, tokenizer=vocabulary, seed=seed)  # type: ignore[arg-type]
    if model == "mt5-small":  # published mT5 has a head of its own
        head: Any = network.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone().normal_(std=head.weight.std().item()))
    return network


class Ids:
    """An encoder of texts that are ids."""

    fingerprint = "ids"
    unk_token_id = None
    vocabulary_size = 1 << 18

    def __init__(self, *, end_id: int) -> None:
        self._end = [end_id]

    def encode(
        self, sources: list[str], targets: list[str], *, source_language: str | None, target_language: str | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of both sides and the end of the sequence."""
        sides = (sources, targets)
        found = [[[*map(int, text.split()), *self._end] for text in texts] for texts in sides]
        return found[0], found[1]

    def decode(self, ids: list[int]) -> str:
        """The ids as text."""
        return " ".join(map(str, ids))

    def is_empty(self, ids: list[int]) -> bool:
        """Never: each text has ids."""
        return False

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """Never called: lengths are drawn within the limits."""
        raise AssertionError(f"{len(ids)} ids are over {max_tokens}")


def write_drawn_rows(folder: Path, *, config: RunConfig, seed: int, num_rows: int, num_ids: int, end_id: int) -> Path:
    """A token set of random rows, the same for the same seed."""
    assert config.model.scratch is not None
    examples = draw_examples(
        config.task.kind,
        num_rows=num_rows,
        vocabulary=num_ids,
        seed=seed,
    )
    build_token_set(
        examples,
        reading=ReadingRules(config.task, config.data.rules, Ids(end_id=end_id), split="train"),
        folder=folder,
    )
    return folder


def draw_examples(kind: str, *, num_rows: int, vocabulary: int, seed: int) -> Iterator[Example]:
    """Rows whose target is a function of the source, token by token, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    sources, targets = draw_lengths(kind, num_rows=num_rows, rng=rng)
    num_ids = vocabulary - FIRST_ID
    zipf = np.cumsum(1.0 / (np.arange(num_ids) + 2.7))
    drawn = zipf.searchsorted(rng.random(sum(sources)) * zipf[-1])
    translated = np.random.default_rng(0).permutation(num_ids)
    start = 0
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        words = drawn[start : start + source]
        start += source
        aligned = translated[words[np.arange(target) * source // target]]
        texts = [" ".join(map(str, (ids + FIRST_ID).tolist())) for ids in (words, aligned)]
        yield Example(*texts, *texts, None, None, None, f"row {number}")


def draw_lengths(kind: str, *, num_rows: int, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Lengths of both sides, without the end of the sequence."""
    covariance = [[1.0, CORRELATION], [CORRELATION, 1.0]]
    normal = rng.multivariate_normal([0.0, 0.0], covariance, size=num_rows)
    found = []
    for side, (mean, deviation) in enumerate(LENGTHS[kind]):
        lengths = mean * np.exp(deviation * normal[:, side] - deviation**2 / 2)
        found.append(np.clip(np.round(lengths), 2, MAX_TOKENS - 1).astype(int).tolist())
    return found[0], found[1]
