"""Small real models with an evaluation set that they generate uneven, varied hypotheses for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from dstrain.cluster.messages import decode, encode
from dstrain.config.schema import RunConfig
from dstrain.data.examples import Example
from dstrain.evaluation.evaluate import evaluate
from dstrain.evaluation.generate import BatchResult
from dstrain.evaluation.result import EvaluationResult

VOCABULARY = 40
LANGUAGES = {"en": 36, "ko": 37, "zh": 38}
PAD, END, UNKNOWN = 1, 2, 3


class WordTokenizer:
    """The part of Seq2SeqTokenizer that evaluation uses, over words `w4` to `w39`; refuses ids that are not tokens."""

    pad_token_id = PAD
    unk_token_id = UNKNOWN
    eos_token_id = END
    default_language = "en"
    ends_with_language = False
    first_target_id = None
    all_special_ids = (0, PAD, END, UNKNOWN, *LANGUAGES.values())

    def __init__(self, *, has_languages: bool = True) -> None:
        self.languages = LANGUAGES if has_languages else {}

    @property
    def tokenizer(self) -> "WordTokenizer":
        return self

    def decode(self, ids: list[int]) -> str:
        assert all(0 <= token < VOCABULARY for token in ids), f"no tokens: {ids}"
        return " ".join(f"w{token}" for token in ids if token not in self.all_special_ids)

    def encode(
        self, sources: list[str], targets: list[str], *, source_language: str | None, target_language: str | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        return [], [[*(int(word.removeprefix("w")) for word in text.split()), END] for text in targets]

    def language_id(self, code: str) -> int | None:
        return LANGUAGES.get(code)


@dataclass
class Tokens:
    """The part of TokenSet that evaluation uses."""

    sources: list[list[int]]
    targets: list[list[int]]
    examples: list[Example]
    num_rows: int = field(init=False)
    source_lengths: npt.NDArray[np.int32] = field(init=False)
    target_lengths: npt.NDArray[np.int32] = field(init=False)
    typed: None = None
    held_in_training: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.num_rows = len(self.sources)
        self.source_lengths = np.array([len(ids) for ids in self.sources], dtype=np.int32)
        self.target_lengths = np.array([len(ids) for ids in self.targets], dtype=np.int32)

    def source(self, row: int) -> npt.NDArray[np.int32]:
        return np.array(self.sources[row], dtype=np.int32)

    def target(self, row: int) -> npt.NDArray[np.int32]:
        return np.array(self.targets[row], dtype=np.int32)


def build_tokens(languages: list[str | None], *, seed: int = 0, longest: int = 14) -> Tokens:
    """Random rows, one for each language; the first two share a length, so that ties are broken as well."""
    rng = np.random.default_rng(seed)
    sources, targets, examples = [], [], []
    for row, language in enumerate(languages):
        source = [*rng.integers(4, 36, 6 if row < 2 else rng.integers(2, longest)).tolist(), END]
        words = rng.integers(4, 36, rng.integers(2, longest)).tolist()
        code = [] if language is None else [LANGUAGES[language]]
        text = " ".join(f"w{word}" for word in words)
        group = "even" if row % 2 == 0 else "odd"
        sources.append(source)
        targets.append([*code, *words, END])
        examples.append(
            Example(
                source=f"source {row}",
                target=text,
                raw_source=f"source {row}",
                raw_target=text,
                source_language=None if language is None else "ko",
                target_language=language,
                group=group,
                where=f"eval.tsv:{row + 1}",
            )
        )
    return Tokens(sources, targets, examples)


def build_model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """Random weights, large enough that hypotheses differ from row to row, and that some of them end."""
    torch.manual_seed(seed)
    if family == "m2m100":
        config = M2M100Config(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=END,
        )
        model = M2M100ForConditionalGeneration(config)
    else:
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=PAD,
            eos_token_id=END,
            decoder_start_token_id=PAD,
        )
        model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
        model.get_output_embeddings().weight[END] *= 2
    return model.train()


def build_config(**evaluation: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "test",
            "model": {"name": "some/model"},
            "task": {"kind": "translation"},
            "data": {"train": [{"demo": "translation"}], "eval": [{"demo": "translation", "split": "eval"}]},
            "training": {"batch_size": 4, "max_steps": 1, "learning_rate": 1e-3},
            "evaluation": {"batch_size": 4, **evaluation},
        }
    )


@dataclass
class FakeRanks:
    """The part of Ranks that evaluation uses."""

    rank: int
    world_size: int
    gather: Callable[[list[BatchResult], Any], list[list[BatchResult]] | None]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def run_evaluation(
    model: PreTrainedModel, tokens: Tokens, *, config: RunConfig | None = None, world_size: int = 1, **options: Any
) -> EvaluationResult:
    """Runs the ranks one after the other; rank 0 runs last and receives the values of the others, as in a gather."""
    shares: dict[int, list[BatchResult]] = {}
    has_languages = model.config.model_type != "t5"
    replaced_gather = options.pop("gather", None)
    result = None
    for rank in reversed(range(world_size)):

        def gather(share: list[BatchResult], form: Any, rank: int = rank) -> list[list[BatchResult]] | None:
            shares[rank] = decode(encode(share, form), form, sender=rank)
            return [shares[number] for number in range(world_size)] if rank == 0 else None

        arguments: dict[str, Any] = {"tokenizer": WordTokenizer(has_languages=has_languages)}
        result = evaluate(
            model,
            tokens=tokens,  # type: ignore[arg-type]
            config=config or build_config(),
            ranks=FakeRanks(rank, world_size, replaced_gather or gather),  # type: ignore[arg-type]
            **(arguments | options),
        )
        assert (result is None) == (rank != 0)
    assert result is not None
    return result
