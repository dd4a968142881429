"""One evaluation from rows to scores and files. Owns the order of its parts, the proof that every row was scored once,
and the folder that a score travels with; refuses to know when to evaluate and how ranks talk (`gather` is given)."""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from dstrain.config.recipe import Evaluation, Task
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet
from dstrain.evaluation.decode import unserved
from dstrain.evaluation.generate import (
    Batch,
    BatchResult,
    Cap,
    build_generation_config,
    deal_batches,
    evaluate_batch,
    evaluation_mode,
    plan_batches,
    plan_cap,
)
from dstrain.evaluation.metrics import one_line
from dstrain.evaluation.scoring import ScoredRow, find_faults, group_rows, read_rows, score_rows
from dstrain.models.families import decoder_start_id, max_positions
from dstrain.models.tokenizer import Seq2SeqTokenizer

GenerationArguments = Callable[[str | None], Mapping[str, Any]]
"""Target language -> what the model's family adds to the generation config, for example `forced_bos_token_id`."""


class IncompleteEvaluationError(RuntimeError):
    """The ranks did not hand over every row exactly once; a score of such rows would be false."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What every rank decides alike before any batch is computed."""

    batches: list[Batch]
    shares: list[list[Batch]]
    """The batches of each rank."""
    cap: Cap
    generation: dict[str | None, GenerationConfig]
    """By target language."""
    settings: dict[str, Any]
    """Without which the scores mean nothing, as JSON values."""
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Scores with everything that belongs to them; rows in the order of the evaluation set."""

    scores: dict[str, float]
    groups: dict[str, dict[str, float]]
    signatures: dict[str, str]
    generation: dict[str, Any]
    num_rows: int
    hypotheses: list[str]
    references: list[str]
    sources: list[str]
    warnings: list[str]


def evaluate(
    model: PreTrainedModel,
    *,
    loss_module: torch.nn.Module,
    tokenizer: Seq2SeqTokenizer,
    tokens: TokenSet,
    config: RunConfig,
    generation_arguments: GenerationArguments,
    rank: int,
    world_size: int,
    gather: Callable[[list[BatchResult] | None], list[list[BatchResult] | None] | None],
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
    max_rows: int | None = None,
    max_batches: int | None = None,
) -> EvaluationResult | None:
    """Scores of the evaluation set on rank 0, None on the others; the same on any number of ranks. All ranks call it.

    `loss_module` returns the sum of token cross-entropies of a batch; `gather` brings each rank's list to rank 0.
    `should_stop` is asked before every batch; if any rank stops, there is no result on any.
    `max_rows` (None: the recipe's `evaluation.max_rows`) takes the first rows, `max_batches` the batches with the longest
    sources. Under ZeRO-3 the caller gathers the weights around the call, and `loss_module` is not the one that the engine
    wraps: its forward waits for the other ranks. Raises IncompleteEvaluationError if a row is missing or came twice.
    """
    plan = plan_evaluation(
        model,
        tokens=tokens,
        config=config,
        generation_arguments=generation_arguments,
        world_size=world_size,
        max_rows=max_rows,
        max_batches=max_batches,
    )
    with evaluation_mode(model, loss_module=loss_module):
        results: list[BatchResult] = []
        for batch in plan.shares[rank]:
            if should_stop():
                break
            result = evaluate_batch(
                batch,
                model=model,
                loss=loss_module if config.evaluation.loss else None,
                tokens=tokens,
                pad_id=tokenizer.pad_token_id,
                decoder_start_id=decoder_start_id(model),
                generation=plan.generation[batch.target_language],
                device=device,
            )
            results.append(result)
    gathered = gather(results if len(results) == len(plan.shares[rank]) else None)
    if gathered is None or None in gathered:
        return None
    collected = collect_results(plan.batches, results=(result for share in gathered for result in share or ()))
    hypotheses = sorted((h for result in collected for h in result.hypotheses), key=lambda hypothesis: hypothesis.row)
    rows = read_rows(hypotheses, tokens=tokens, tokenizer=tokenizer, task=config.task)
    faults = find_faults(rows, tokens=tokens, tokenizer=tokenizer, task=config.task, cap=plan.cap)
    return build_result(rows, loss=mean_loss(collected), task=config.task, plan=plan, warnings=plan.warnings + faults)


def plan_evaluation(
    model: PreTrainedModel,
    *,
    tokens: TokenSet,
    config: RunConfig,
    generation_arguments: GenerationArguments,
    world_size: int,
    max_rows: int | None,
    max_batches: int | None,
) -> EvaluationPlan:
    """Batches and the generation settings of every target language; `shares` alone depends on the number of ranks."""
    evaluation = config.evaluation
    num_rows = min(tokens.num_rows, max_rows or evaluation.max_rows or tokens.num_rows)
    lengths = tokens.source_lengths[:num_rows]
    languages = [example.target_language for example in tokens.examples[:num_rows]]
    batches = plan_batches(
        lengths,
        languages=languages,
        batch_size=evaluation.batch_size,
        max_tokens=config.machine.evaluation_tokens // evaluation.num_beams,
    )[:max_batches]
    cap = plan_cap(
        evaluation,
        longest_reference=int(tokens.target_lengths.max()),
        max_positions=max_positions(model.config),
    )
    arguments = {batch.target_language: dict(generation_arguments(batch.target_language)) for batch in batches}
    generation = {
        language: build_generation_config(
            model, evaluation=evaluation, max_new_tokens=cap.max_new_tokens, arguments=given
        )
        for language, given in arguments.items()
    }
    shares = deal_batches(batches, source_lengths=lengths, world_size=world_size)
    settings = describe_generation(evaluation, cap=cap, arguments=arguments)
    if evaluation.batch_size is None:
        settings["batch_tokens"] = config.machine.evaluation_tokens
    warnings = [
        f"hypotheses come from transformers' generate(), at its own speed: {reason}"
        for reason in dict.fromkeys(unserved(model, generation=settled) for settled in generation.values())
        if reason is not None
    ]
    if cap.max_new_tokens < (evaluation.max_new_tokens or 0):
        warnings.append(f"hypotheses were limited to {cap.max_new_tokens} tokens by {cap.reason}")
    if num_rows < tokens.num_rows:
        warnings.append(f"only the first {num_rows} of {tokens.num_rows} evaluation rows were scored")
    return EvaluationPlan(batches, shares, cap, generation, settings, warnings)


def describe_generation(
    evaluation: Evaluation, *, cap: Cap, arguments: Mapping[str | None, Mapping[str, Any]]
) -> dict[str, Any]:
    """The settings without which the scores mean nothing, as JSON values; `arguments` by target language."""
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
        settings["target_languages"] = {language or "any": dict(given) for language, given in arguments.items()}
    return settings


def collect_results(batches: Sequence[Batch], *, results: Iterable[BatchResult]) -> list[BatchResult]:
    """The results in batch order, proved to hold each planned row exactly once; raises IncompleteEvaluationError."""
    collected = sorted(results, key=lambda result: result.index)
    counts = Counter(hypothesis.row for result in collected for hypothesis in result.hypotheses)
    planned = {row for batch in batches for row in batch.rows}
    faults = {
        "missing": sorted(planned - counts.keys()),
        "more than once": sorted(row for row, count in counts.items() if count > 1),
        "never asked for": sorted(counts.keys() - planned),
    }
    if any(faults.values()):
        found = "; ".join(f"{fault}: {len(rows)} rows, {rows[:10]}" for fault, rows in faults.items() if rows)
        raise IncompleteEvaluationError(
            f"each of {len(planned)} evaluation rows must arrive from the ranks once; found 0-based rows {found}. No "
            "score is given. Check that all ranks read the same evaluation data and the same configuration"
        )
    return collected


def mean_loss(results: Sequence[BatchResult]) -> float | None:
    """Sum of cross-entropies over target tokens; an exact sum, so that the ranks' order leaves no trace in it.

    None where no loss was asked for.
    """
    sums = [result.loss_sum for result in results if result.loss_sum is not None]
    return math.fsum(sums) / sum(result.num_target_tokens for result in results) if sums else None


def build_result(
    rows: Sequence[ScoredRow], *, loss: float | None, task: Task, plan: EvaluationPlan, warnings: list[str]
) -> EvaluationResult:
    """All scores of these rows, over all and by group. A group's signature is given where it differs."""
    overall = score_rows(rows, task=task)
    signatures = {score.name: score.signature for score in overall if score.signature}
    groups: dict[str, dict[str, float]] = {}
    for name, members in group_rows(rows).items():
        scores = score_rows(members, task=task)
        groups[name] = {score.name: score.value for score in scores} | {"num_rows": len(members)}
        for score in scores:
            if score.signature and score.signature != signatures[score.name]:
                signatures[f"{score.name} ({name})"] = score.signature
    return EvaluationResult(
        scores=({} if loss is None else {"loss": loss}) | {score.name: score.value for score in overall},
        groups=groups,
        signatures=signatures,
        generation=plan.settings,
        num_rows=len(rows),
        hypotheses=[row.text for row in rows],
        references=[row.reference for row in rows],
        sources=[one_line(row.example.raw_source) for row in rows],
        warnings=warnings,
    )


def write_evaluation(
    result: EvaluationResult,
    *,
    run_dir: Path,
    step: int,
    lease: int = 0,
    seconds: float | None = None,
    data: Mapping[str, Any] | None = None,
) -> str:
    """Writes `hypotheses/step-…/{hypotheses,references,sources}.txt`, a row a line, and `scores/step-….json`.

    Returns the folder's path relative to `run_dir`. The folder appears whole and the score file after it, so that a
    score that can be read has its hypotheses. The score file holds the sacrebleu command that gives the same numbers,
    `lease`, that of the checkpoint where the run left the evaluation to another job, and `data`, whose rows were scored.
    One process at a time may write there.
    """
    name = f"step-{step:08d}"
    relative = f"hypotheses/{name}"
    folder, score_file = run_dir / relative, run_dir / "scores" / f"{name}.json"
    draft, score_draft = folder.with_name(f"{name}.tmp"), score_file.with_suffix(".json.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    score_file.parent.mkdir(parents=True, exist_ok=True)
    for file in ("hypotheses", "references", "sources"):
        text = "".join(f"{line}\n" for line in getattr(result, file))
        (draft / f"{file}.txt").write_text(text, encoding="utf-8", newline="\n")
    score_file.unlink(missing_ok=True)  # it would belong to the earlier evaluation of this step
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(draft, folder)
    record = {
        "step": step,
        "lease": lease,
        "scores": result.scores,
        "groups": result.groups,
        "signatures": result.signatures,
        "generation": result.generation,
        "num_rows": result.num_rows,
        "data": data,
        "hypotheses": relative,
        "seconds": seconds,
        "command": sacrebleu_command(result),
        "warnings": result.warnings,
    }
    score_draft.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(score_draft, score_file)
    return relative


def sacrebleu_command(result: EvaluationResult) -> str | None:
    """The command that gives the same BLEU and chrF in the folder of the files; None where there is no BLEU."""
    if "bleu" not in result.signatures:
        return None
    tokenizer = dict(part.split(":", 1) for part in result.signatures["bleu"].split("|"))["tok"]
    # the signature names mecab's version and dictionary as well
    option = next(name for name in ("ja-mecab", "ko-mecab", tokenizer) if tokenizer.startswith(name))
    return f"sacrebleu references.txt -i hypotheses.txt -m bleu chrf -w 4 -tok {option}"
