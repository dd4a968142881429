"""Evaluation on real ranks: an engine of any ZeRO stage has the scores of the plain model (promise 3)."""

from typing import Any

import numpy as np
import pytest
import torch

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import EOS, PAD, TOTAL_STEPS, build_batch, build_config, build_model, build_rows

NUM_ROWS = 13
START = {"m2m100": EOS, "mt5": PAD}
SHARD_ALL = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}


class WordTokenizer:
    """The part of Seq2SeqTokenizer that evaluation uses."""

    pad_token_id = PAD
    unk_token_id = None
    all_special_ids = (0, PAD, EOS)
    languages: dict[str, int] = {}  # noqa: RUF012
    first_target_id = None

    @property
    def tokenizer(self) -> "WordTokenizer":
        return self

    def decode(self, ids: list[int]) -> str:
        return " ".join(f"w{token}" for token in ids if token not in self.all_special_ids)

    def language_id(self, code: str) -> None:
        return None


class Tokens:
    """The part of TokenSet that evaluation uses."""

    num_rows = NUM_ROWS
    typed = None
    held_in_training: frozenset[int] = frozenset()

    def __init__(self) -> None:
        from dstrain.data.examples import Example

        rows = build_rows(num_rows=NUM_ROWS, seed=1)
        self.source = [source for source, _ in rows].__getitem__
        self.target = [target for _, target in rows].__getitem__
        self.source_lengths = np.array([len(source) for source, _ in rows], dtype=np.int32)
        self.target_lengths = np.array([len(target) for _, target in rows], dtype=np.int32)
        texts = [WordTokenizer().decode(target.tolist()) for _, target in rows]
        self.examples = [
            Example("source", text, "source", text, None, None, None, f"eval:{i}") for i, text in enumerate(texts)
        ]


def train_and_evaluate(ranks: Ranks, kind: str, stage: int, num_beams: int) -> Any:
    """The results on rank 0 before and after a step; three batches cannot be divided evenly between two ranks."""
    from dstrain.engine.build import build_engine
    from dstrain.evaluation.evaluate import evaluate
    from dstrain.models.loss import Seq2SeqLoss

    model = build_model(kind, dropout=0.1)
    with torch.no_grad():
        torch.manual_seed(3)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    config = build_config(
        machine__zero_stage=stage,
        training__warmup_steps=0,
        evaluation__batch_size=5,
        evaluation__num_beams=num_beams,
        training__learning_rate=1e-3,
    )
    if stage == 3:  # weights as small as these would otherwise never be partitioned
        config = config.model_copy(update={"machine": config.machine.model_copy(update={"deepspeed": SHARD_ALL})})
    engine = build_engine(config, module=Seq2SeqLoss(model), ranks=ranks, total_steps=TOTAL_STEPS)
    results = []
    for step in (1, 2):
        with engine.gathered() as whole:
            result = evaluate(
                whole,
                tokens=Tokens(),
                tokenizer=WordTokenizer(),
                config=config,
                ranks=ranks,
            )
        results.append(result)
        batch = build_batch(
            build_rows(), sizes=[5, 4, 7], rank=ranks.rank, world_size=ranks.world_size, start=START[kind]
        )
        engine.step(batch, step=step)
    return results


@pytest.mark.parametrize(("kind", "stage", "num_beams"), [("m2m100", 2, 1), ("m2m100", 3, 1), ("mt5", 3, 3)])
def test_scores_on_two_sharded_ranks_equal_those_of_one_rank(kind: str, stage: int, num_beams: int) -> None:
    alone = run_ranks(train_and_evaluate, kind, 0, num_beams, world_size=1)[0]
    ranks = run_ranks(train_and_evaluate, kind, stage, num_beams, world_size=2)
    assert ranks[1] == [None, None]
    assert len(set(alone[0].texts.hypotheses)) > 5
    assert ranks[0][0] == alone[0]
    assert ranks[0][1].scores.scores["loss"] == pytest.approx(alone[1].scores.scores["loss"], rel=1e-4)
    assert alone[1].scores.scores["loss"] != alone[0].scores.scores["loss"]
