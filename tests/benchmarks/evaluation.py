"""Compares this project's evaluation with the usual one: duration, hypotheses and scores.

`python -m tests.benchmarks.evaluation [RECIPE] [key=value …] [--steps 300] [--size mt5-small] [--beams 1 5] [--rounds 3]`. The
usual one is that of `Seq2SeqTrainer`: rows in file order, 16 at a time, transformers' `generate()`, then a second complete
forward pass for the loss, and the scores over all rows. Ours is the whole of `evaluate()`, including scores by group. The model
is that of the recipe from scratch, trained for `--steps` steps, so that its hypotheses end like the references. `--size` (mT5
only) pads its weights with zeros to a larger shape, which has the cost of that shape and the same hypotheses. Both run in turn
in one process; the results are ratios of medians. `--keep FOLDER` stores the weights there and reuses them in later calls,
`--json FILE` writes all figures.
"""

import argparse
import copy
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.evaluation import Evaluation
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.data.collate import MicroBatch, collate
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.evaluation.evaluate import evaluate
from dstrain.evaluation.generate import build_generation_config, evaluation_mode, read_sequence
from dstrain.evaluation.result import EvaluationResult
from dstrain.evaluation.scoring import read_rows, score_rows
from dstrain.models.families import decoder_start_id, generation_arguments
from dstrain.models.load import DTYPES, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.restrict import keep_rows
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run.prepare import prepare
from dstrain.run.vocabulary import choose_vocabulary

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The device of evaluations; the training before them is short and runs on the CPU."""
STOCK_BATCH_SIZE = 16
TRAINING_BATCH_SIZE = 64
MT5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
SIZES = {"mt5-small": MT5_SMALL | {"vocab_size": 250112}, "mt5-small-32k": MT5_SMALL | {"vocab_size": 32128}}
"""Published shapes: mT5-small (Xue et al., 2021), and the same with the vocabulary of T5."""


@dataclass(frozen=True)
class Case:
    """A trained model and its evaluation rows."""

    config: RunConfig
    tokenizer: Seq2SeqTokenizer
    tokens: TokenSet
    model: PreTrainedModel
    vocabulary: Vocabulary
    """That of a run with `model.vocabulary: seen`."""

    def batch(self, rows: Sequence[int], *, tokens: TokenSet) -> MicroBatch:
        """These rows as tensors."""
        return collate(
            [tokens.source(row) for row in rows],
            [tokens.target(row) for row in rows],
            pad_id=self.tokenizer.pad_token_id,
            decoder_start_id=decoder_start_id(self.model),
        )

    def arguments(self, language: str | None) -> dict[str, Any]:
        """Generation arguments of the family."""
        return generation_arguments(self.model, tokenizer=self.tokenizer, target_language=language)


def build_case(config: RunConfig, *, folder: Path, num_steps: int, size: str | None) -> Case:
    """The recipe's model after `num_steps` of plain AdamW, or as saved in the folder; grown to `size` unless that is None."""
    config = config.model_copy(update={"output_dir": str(folder / "run")})
    prepared = prepare(config, ranks=Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None))
    model = load_model(config.model, tokenizer=prepared.tokenizer, seed=config.seed, report=print)
    kept = choose_vocabulary(prepared.tokenizer, train=prepared.train, evaluation=prepared.eval)
    case = Case(config, prepared.tokenizer, prepared.eval, model, kept)
    weights = folder / f"weights-{num_steps}.pt"
    if weights.exists():
        model.load_state_dict(torch.load(weights, weights_only=True))
    else:
        train(case, tokens=prepared.train, num_steps=num_steps)
        torch.save(model.state_dict(), weights)
    model = grow(model, sizes=SIZES[size]) if size else model
    return replace(case, model=model.to(DEVICE, DTYPES[config.precision]))


def grow(model: PreTrainedModel, *, sizes: Mapping[str, int]) -> PreTrainedModel:
    """A larger mT5 that computes the same as a small one: all new weights are zero, except for one channel.

    That channel is the same for all tokens and too small to affect any norm; it gives the new tokens of the vocabulary
    logits that are too low for any hypothesis. So the model has the cost of the large size and the hypotheses of the small one.
    """
    small = model.config
    share = small.d_model / sizes["d_model"]
    norms = {"layer_norm_epsilon": small.layer_norm_epsilon * share}
    config = type(small)(**(small.to_dict() | dict(sizes) | norms))
    large: PreTrainedModel = type(model)(config)
    faint, width = 1e-3, small.d_model

    def heads(shape: PreTrainedConfig) -> tuple[int, int]:
        return shape.num_heads, shape.d_kv

    old = model.state_dict()
    with torch.no_grad():
        for name, whole in large.state_dict().items():
            whole.zero_()
            if name not in old:  # an additional layer
                continue
            source, target = old[name], whole
            if name.endswith((".q.weight", ".k.weight", ".v.weight")):
                source, target = source.view(*heads(small), -1), whole.view(*heads(config), -1)
            elif name.endswith(".o.weight"):
                source, target = source.view(-1, *heads(small)), whole.view(-1, *heads(config))
            elif source.ndim == 1:  # a norm, whose mean is now over more channels
                source = source * math.sqrt(share)
            target[tuple(slice(size) for size in source.shape)] = source
        large.get_input_embeddings().weight[:, width] = faint
        large.get_output_embeddings().weight[small.vocab_size :, width] = -1e3 / faint
        large.decoder.final_layer_norm.weight[width] = 1.0
    return large


def train(case: Case, *, tokens: TokenSet, num_steps: int) -> None:
    """Steps of 64 random rows."""
    loss_module = Seq2SeqLoss(case.model).train()
    optimizer = torch.optim.AdamW(case.model.parameters(), lr=case.config.training.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 50))
    rng = np.random.default_rng(0)
    for step in range(num_steps):
        batch = case.batch(rng.integers(0, tokens.num_rows, TRAINING_BATCH_SIZE).tolist(), tokens=tokens)
        optimizer.zero_grad()
        loss = loss_module(batch.source_ids, batch.source_mask, batch.decoder_ids, batch.labels)
        loss = loss / (batch.labels != -100).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(case.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {float(loss):.3f}", flush=True)


def evaluate_ours(case: Case, *, model: PreTrainedModel, vocabulary: Vocabulary = WHOLE) -> EvaluationResult:
    """The complete evaluation of this project, including scores; `model` has a row for each id in the vocabulary."""
    result = evaluate(
        model,
        tokens=case.tokens,
        tokenizer=case.tokenizer,
        config=case.config,
        ranks=Ranks(process=read_process_info({}), device=DEVICE, group=None),
        vocabulary=vocabulary,
    )
    assert result is not None
    return result


def evaluate_stock(case: Case, *, max_new_tokens: int, num_rows: int) -> tuple[list[str], dict[str, float]]:
    """Hypotheses and scores as Seq2SeqTrainer computes them, with the settings of ours."""
    model, tokens, pad_id = case.model, case.tokens, case.tokenizer.pad_token_id
    hypotheses, losses = [], []
    generations = {
        language: build_generation_config(
            model,
            evaluation=case.config.evaluation,
            max_new_tokens=max_new_tokens,
            arguments=case.arguments(language),
        )
        for language in {example.target_language for example in tokens.examples}
    }
    with evaluation_mode(model, loss_module=model):
        for first in range(0, num_rows, STOCK_BATCH_SIZE):
            rows = range(first, min(num_rows, first + STOCK_BATCH_SIZE))
            generation = generations[tokens.examples[first].target_language]
            batch = case.batch(rows, tokens=tokens).to(DEVICE)
            sources = {"input_ids": batch.source_ids, "attention_mask": batch.source_mask}
            sequences = model.generate(**sources, generation_config=generation).cpu().numpy()
            loss = model(**sources, labels=batch.labels).loss
            losses.append(float(loss) * int((batch.labels != -100).sum()))
            hypotheses += [
                read_sequence(sequence, row=row, pad_id=pad_id, generation=generation)
                for row, sequence in zip(rows, sequences, strict=True)
            ]
    texts = read_rows(hypotheses, tokens=tokens, tokenizer=case.tokenizer, task=case.config.task)
    scores = {
        score.name: score.value for score in score_rows(texts, task=case.config.task, evaluation=case.config.evaluation)
    }
    return [row.text for row in texts], scores | {
        "loss": math.fsum(losses) / int(tokens.target_lengths[:num_rows].sum())
    }


def timed(action: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Wall-clock seconds, CPU seconds of all cores, and the result of `action`."""
    started, began = time.perf_counter(), time.process_time()
    result = action()
    return (time.perf_counter() - started, time.process_time() - began), result


def compare(case: Case, *, num_beams: int, num_rounds: int) -> dict[str, Any]:
    """Runs both evaluations in turn; returns seconds, ratios and the rows that differ."""
    given = case.config.evaluation.model_dump() | {"num_beams": num_beams}
    case = replace(case, config=case.config.model_copy(update={"evaluation": Evaluation(**given)}))
    assert case.vocabulary.kept is not None
    small = copy.deepcopy(case.model)
    keep_rows(small, case.vocabulary.kept)
    ours, seen, stock = [], [], []
    for _ in range(num_rounds):
        seconds, result = timed(partial(evaluate_ours, case, model=case.model))
        ours.append(seconds)
        seconds, of_seen = timed(partial(evaluate_ours, case, model=small, vocabulary=case.vocabulary))
        seen.append(seconds)
        settings = {"max_new_tokens": result.scores.generation["max_new_tokens"], "num_rows": result.scores.num_rows}
        seconds, (hypotheses, stock_scores) = timed(partial(evaluate_stock, case, **settings))
        stock.append(seconds)
        print(
            f"beams {num_beams}: stock {stock[-1][0]:.1f} s, ours {ours[-1][0]:.1f} s, seen {seen[-1][0]:.1f} s",
            flush=True,
        )
    with patch("dstrain.evaluation.generate.unserved", return_value="requested"):
        alike = evaluate_ours(case, model=case.model).texts.hypotheses
    differing, differing_in_same_batches, differing_of_seen = (
        [row for row, text in enumerate(texts) if text != result.texts.hypotheses[row]]
        for texts in (hypotheses, alike, of_seen.texts.hypotheses)
    )
    sides = {"stock": stock, "ours": ours, "seen": seen}
    return {
        "num_beams": num_beams,
        "num_rows": result.scores.num_rows,
        "num_ids": [len(case.vocabulary), case.model.get_input_embeddings().weight.shape[0]],
        "seconds": {name: [clock for clock, _ in times] for name, times in sides.items()},
        "core_seconds": {name: [cores for _, cores in times] for name, times in sides.items()},
        "ratio": median(clock for clock, _ in stock) / median(clock for clock, _ in ours),
        "core_ratio": median(cores for _, cores in stock) / median(cores for _, cores in ours),
        "ratios_by_round": [theirs / mine for (theirs, _), (mine, _) in zip(stock, ours, strict=True)],
        "seen_ratio": median(clock for clock, _ in stock) / median(clock for clock, _ in seen),
        "seen_ratios_by_round": [theirs / mine for (theirs, _), (mine, _) in zip(stock, seen, strict=True)],
        "differing_rows": differing,
        "differing_rows_of_seen": differing_of_seen,
        "differing_rows_in_same_batches": differing_in_same_batches,
        "scores_of_stock": stock_scores,
        "scores": result.scores.scores,
        "generation": result.scores.generation,
        "warnings": list(result.scores.warnings),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="configs/demo_translation.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args()
    config = load_config(options.recipe, overrides=["evaluation.batch_size=null", *options.overrides])
    with tempfile.TemporaryDirectory() as folder:
        case = build_case(config, folder=options.keep or Path(folder), num_steps=options.steps, size=options.size)
        found = [compare(case, num_beams=beams, num_rounds=options.rounds) for beams in options.beams]
    for entry in found:
        spread = ", ".join(f"{ratio:.2f}" for ratio in entry["ratios_by_round"])
        print(
            f"beams {entry['num_beams']}: {entry['ratio']:.2f} times as fast by wall-clock time ({spread}), "
            f"{entry['core_ratio']:.2f} times by core time; {entry['seen_ratio']:.2f} times as fast with the ids that occur; "
            f"{len(entry['differing_rows'])} of {entry['num_rows']} "
            f"hypotheses differ, {len(entry['differing_rows_in_same_batches'])} from those of generate() in the same batches; "
            f"mean length {entry['scores']['gen_len']:.1f}, {entry['scores']['hit_cap_rate']:.1%} truncated"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
