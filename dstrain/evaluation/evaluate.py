"""One evaluation, from rows to scores: the order of its parts, and the check that every row was scored once.

Does not know when to evaluate, and writes nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from dstrain.cluster.device_errors import explained_memory
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.progress import Progress
from dstrain.config.device_defaults import BATCH_TOKENS
from dstrain.config.evaluation import Evaluation
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.decode import unserved
from dstrain.evaluation.generate import (
    Batch,
    BatchResult,
    Cap,
    Hypothesis,
    build_generation_config,
    deal_batches,
    evaluate_batch,
    evaluation_mode,
    plan_batches,
    plan_cap,
    search_settings,
)
from dstrain.evaluation.own_metrics import MetricFailed
from dstrain.evaluation.result import EvaluationResult, build_result
from dstrain.evaluation.scoring import find_warnings, find_wrong_start, read_rows
from dstrain.evaluation.typed import plan_typed_batches
from dstrain.models.families import decoder_start_id, generation_arguments, max_positions
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.tokenizer import Seq2SeqTokenizer


class IncompleteEvaluationError(RuntimeError):
    """The ranks did not return every row exactly once, so a score would be wrong."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """The batches and settings of an evaluation, computed by every rank beforehand; the same on all ranks."""

    batches: list[Batch]
    typed_batches: list[Batch]
    """Those of the rows that are searched once more with the source as typed (`typed.py`)."""
    shares: list[list[Batch]]
    """The batches of each rank, of both kinds."""
    cap: Cap
    generation: dict[str | None, GenerationConfig]
    """Generation config by target language."""
    settings: dict[str, Any]
    """Generation settings that are recorded with the scores, as JSON values."""
    warnings: list[str]
    is_rehearsal: bool
    """Whether a fault ends it that later becomes a warning."""

    def is_typed(self, index: int) -> bool:
        """Whether the batch of that index is one of `typed_batches`."""
        return index >= len(self.batches)


def evaluate(
    model: PreTrainedModel,
    *,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    config: RunConfig,
    ranks: Ranks,
    vocabulary: Vocabulary = WHOLE,
    should_stop: Callable[[], bool] = lambda: False,
    max_batches: int | None = None,
) -> EvaluationResult | None:
    """Scores of the evaluation set on rank 0, None on the others; the same on any number of ranks. All ranks call it.

    `model` holds its full weights (`Engine.gathered`), with a row for each id in `vocabulary`. `should_stop` is called before
    every batch; if it returns True on any rank, every rank returns None. `max_batches` limits the evaluation to the first
    batches, those with the longest sources: a rehearsal.

    Raises:
        IncompleteEvaluationError: a row is missing, or came twice.
        MetricFailed: in a rehearsal; a metric of the user's own failed. Later it has no score, and a warning says why.
        UserError: in a rehearsal; hypotheses do not begin with the token that is forced. Later a warning says so.
    """
    # a loss module of its own: under ZeRO-3 the engine's is collective, and ranks have different numbers of batches
    loss = Seq2SeqLoss(model)
    plan = plan_evaluation(
        model,
        tokens=tokens,
        tokenizer=tokenizer,
        config=config,
        vocabulary=vocabulary,
        world_size=ranks.world_size,
        max_batches=max_batches,
    )
    share = plan.shares[ranks.rank]

    def evaluate_one(batch: Batch) -> BatchResult:
        searched = tokens.typed if plan.is_typed(batch.index) else tokens
        assert searched is not None
        with explained_memory(partial(_describe, batch, tokens=tokens, config=config)):
            return evaluate_batch(
                batch,
                model=model,
                loss=loss if config.evaluation.loss and searched is tokens else None,
                tokens=searched,
                vocabulary=vocabulary,
                pad_id=vocabulary.row(tokenizer.pad_token_id),
                decoder_start_id=decoder_start_id(model),
                generation=plan.generation[batch.target_language],
                device=ranks.device,
            )

    shown = _shown(share, is_rehearsal=plan.is_rehearsal, ranks=ranks)
    with evaluation_mode(model, loss_module=loss), closing(shown):
        results = [evaluate_one(batch) for batch in takewhile(lambda _: not should_stop(), shown)]
    gathered = ranks.gather(results if len(results) == len(share) else None, list[BatchResult] | None)
    if gathered is None or None in gathered:
        return None
    found = [result for share in gathered for result in share]
    return score(found, plan=plan, tokens=tokens, tokenizer=tokenizer, config=config, vocabulary=vocabulary)


def _shown(share: Sequence[Batch], *, is_rehearsal: bool, ranks: Ranks) -> Generator[Batch, None, None]:
    """The batches of a rank; rank 0 shows how far it is with them, because it does not know how far the others are."""
    what = "rehearsal" if is_rehearsal else "evaluation"
    unit = "rows" if ranks.world_size == 1 else "rows of rank 0"
    with closing(Progress(what, unit=unit, total=sum(len(batch.rows) for batch in share))) as progress:
        for batch in share:
            yield batch
            progress.advance(len(batch.rows))


def score(
    found: Sequence[BatchResult],
    *,
    plan: EvaluationPlan,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    config: RunConfig,
    vocabulary: Vocabulary,
) -> EvaluationResult:
    """The scores of what all ranks have found for the batches of a plan; raises what `evaluate` does."""
    collected = collect_results(plan.batches, results=(result for result in found if not plan.is_typed(result.index)))
    typed = collect_results(plan.typed_batches, results=(result for result in found if plan.is_typed(result.index)))
    rows = read_rows(_by_row(collected), typed=_by_row(typed), tokens=tokens, tokenizer=tokenizer, task=config.task)
    if plan.is_rehearsal and (problem := find_wrong_start(rows, tokens=tokens, tokenizer=tokenizer)):
        raise UserError(
            f"evaluation.rehearsal: {problem}. The model is not made to begin with it: take the tokenizer that belongs to the "
            "model, or its published files. `evaluation.rehearsal: false` trains all the same"
        )
    signature = None if vocabulary.is_whole else f"over {len(vocabulary):,} of {tokenizer.vocabulary_size:,} token ids"
    warnings = [] if vocabulary.is_whole else find_unwritable(collected, tokens=tokens)
    warnings += find_warnings(
        rows,
        tokens=tokens,
        tokenizer=tokenizer,
        task=config.task,
        cap=plan.cap,
        evaluation=config.evaluation,
    )
    result = build_result(
        rows,
        loss=mean_loss(collected),
        loss_signature=signature,
        config=config,
        generation=plan.settings,
        warnings=plan.warnings + warnings,
        held=tokens.held_in_training,
    )
    if plan.is_rehearsal and result.failures:
        raise MetricFailed("\n".join(map(str, result.failures))) from result.failures[0]
    return result


def _by_row(results: Iterable[BatchResult]) -> list[Hypothesis]:
    return sorted((each for result in results for each in result.hypotheses), key=lambda hypothesis: hypothesis.row)


def _describe(batch: Batch, *, tokens: TokenSet, config: RunConfig) -> str:
    """Which batch did not fit into memory, and what to change."""
    longest = max(int(tokens.source_lengths[row]) for row in batch.rows)
    key = "machine.evaluation_tokens" if config.evaluation.batch_size is None else "evaluation.batch_size"
    num_beams = config.evaluation.num_beams
    found = config.evaluation.batch_size or f"{len(batch.rows) * num_beams * longest} or more"
    return (
        f"in an evaluation: a batch of {len(batch.rows)} rows with {num_beams} beams and sources of up to {longest} tokens did "
        f"not fit. Lower {key} (now {found})"
    )


def plan_evaluation(
    model: PreTrainedModel,
    *,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    config: RunConfig,
    vocabulary: Vocabulary,
    world_size: int,
    max_batches: int | None,
) -> EvaluationPlan:
    """The batches and the generation settings of every target language; only `shares` depends on the number of ranks."""
    evaluation = config.evaluation
    num_rows = min(tokens.num_rows, evaluation.max_rows or tokens.num_rows)
    batch_tokens = config.machine.evaluation_tokens or BATCH_TOKENS[model.device.type]
    lengths = tokens.source_lengths[:num_rows]
    size: dict[str, Any] = {"batch_size": evaluation.batch_size, "max_tokens": batch_tokens // evaluation.num_beams}
    languages = [example.target_language for example in tokens.examples[:num_rows]]
    batches = plan_batches(lengths, languages=languages, **size)[:max_batches]
    typed_batches = plan_typed_batches(batches, tokens=tokens, **size)
    cap = plan_cap(
        evaluation,
        longest_reference=int(tokens.target_lengths.max()),
        max_positions=max_positions(model.config).target,
    )
    arguments = {
        language: dict(
            generation_arguments(model, tokenizer=tokenizer, target_language=language, row_of=vocabulary.row)
        )
        for language in dict.fromkeys(batch.target_language for batch in batches)
    }
    generation = {
        language: build_generation_config(
            model,
            evaluation=evaluation,
            max_new_tokens=cap.max_new_tokens,
            arguments=given | search_settings(vocabulary),
        )
        for language, given in arguments.items()
    }
    settings = describe_generation(evaluation, cap=cap, arguments=arguments, vocabulary=vocabulary)
    if evaluation.batch_size is None:
        settings["batch_tokens"] = batch_tokens
    warnings = [
        f"hypotheses come from transformers' generate(), which is slower: the built-in search does not support {reason}"
        for reason in dict.fromkeys(unserved(model, generation=settled) for settled in generation.values())
        if reason is not None
    ]
    if cap.max_new_tokens < (evaluation.max_new_tokens or 0):
        warnings.append(f"hypotheses were limited to {cap.max_new_tokens} tokens by {cap.reason}")
    if num_rows < tokens.num_rows:
        warnings.append(f"only the first {num_rows} of {tokens.num_rows} evaluation rows were scored")
    shares = deal_batches(batches, source_lengths=lengths, world_size=world_size)
    if tokens.typed is not None:
        more = deal_batches(typed_batches, source_lengths=tokens.typed.source_lengths, world_size=world_size)
        shares = [share + others for share, others in zip(shares, more, strict=True)]
    return EvaluationPlan(
        batches, typed_batches, shares, cap, generation, settings, warnings, is_rehearsal=max_batches is not None
    )


def describe_generation(
    evaluation: Evaluation,
    *,
    cap: Cap,
    arguments: Mapping[str | None, Mapping[str, int | None]],
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """The generation settings that are recorded with the scores, as JSON values; `arguments` by target language."""
    settings: dict[str, Any] = {
        "num_beams": evaluation.num_beams,
        "length_penalty": evaluation.length_penalty,
        "max_new_tokens": cap.max_new_tokens,
        "max_new_tokens_from": cap.reason,
        "do_sample": False,
        "early_stopping": False,
        "batch_size": evaluation.batch_size,
    }
    if any(arguments.values()):
        settings["target_languages"] = {
            language or "any": {key: None if row is None else vocabulary.id(row) for key, row in given.items()}
            for language, given in arguments.items()
        }
    if not vocabulary.is_whole:
        settings["vocabulary"] = len(vocabulary)
    return settings


def collect_results(batches: Sequence[Batch], *, results: Iterable[BatchResult]) -> list[BatchResult]:
    """The results in batch order, proved to hold each planned row exactly once; raises IncompleteEvaluationError."""
    collected = sorted(results, key=lambda result: result.index)
    counts = Counter(hypothesis.row for result in collected for hypothesis in result.hypotheses)
    planned = {row for batch in batches for row in batch.rows}
    faults = {
        "missing": sorted(planned - counts.keys()),
        "more than once": sorted(row for row, count in counts.items() if count > 1),
        "not in any batch": sorted(counts.keys() - planned),
    }
    if any(faults.values()):
        found = "; ".join(f"{fault}: {len(rows)} rows, {rows[:10]}" for fault, rows in faults.items() if rows)
        raise IncompleteEvaluationError(
            f"the ranks must return each of the {len(planned)} evaluation rows exactly once; found (0-based rows) {found}. "
            "No score is computed. Check that all ranks read the same evaluation data and the same configuration"
        )
    return collected


def mean_loss(results: Sequence[BatchResult]) -> float | None:
    """Mean cross-entropy per target token; None if the recipe switches the loss off.

    The sum is exact, so the order of the ranks does not change it.
    """
    sums = [result.loss_sum for result in results if result.loss_sum is not None]
    return math.fsum(sums) / sum(result.num_target_tokens for result in results) if sums else None


def find_unwritable(results: Iterable[BatchResult], *, tokens: TokenSet) -> list[str]:
    """A warning if references hold tokens for which the model has no row."""
    found = [
        (int(tokens.target_lengths[[each.row for each in result.hypotheses]].sum()), result.num_target_tokens)
        for result in results
    ]
    total = sum(length for length, _ in found)
    left_out = total - sum(counted for _, counted in found)
    if left_out == 0:
        return []
    return [
        f"{left_out:,} of the {total:,} tokens of the references are not among the token ids that are trained "
        "(model.vocabulary is `seen`): the loss leaves them out, and no hypothesis holds them"
    ]
