"""Exports a checkpoint for CTranslate2: `dstrain export --to ctranslate2`.

The folder is made only if greedy search there has the hypotheses of the model; what quantisation costs is measured.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from dstrain.cluster.devices import choose_device
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.device_defaults import BATCH_TOKENS
from dstrain.config.recipe import Model
from dstrain.config.schema import RunConfig
from dstrain.data.tokens import TokenSet, load_token_set
from dstrain.data.vocabulary import WHOLE
from dstrain.evaluation.decode import read_rules
from dstrain.evaluation.evaluate import EvaluationPlan, plan_evaluation, score
from dstrain.evaluation.generate import Batch, BatchResult, read_sequence
from dstrain.evaluation.predict import Found, Search, Source
from dstrain.models.load import load_config, quiet_transformers
from dstrain.models.save import ExportError
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run.export import export_checkpoint, load_exported_model, load_run_tokenizer
from dstrain.run.predict import search_window
from dstrain.run.prepare import prepare_evaluation
from dstrain.run_folder.atomic import new_folder, remove
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.converted import PLAIN, Conversion, Cost, write_conversion
from dstrain.run_folder.layout import CONVERTED, RunFolder
from dstrain.run_folder.scores import Scores
from dstrain.serving.conversion import check_convertible, check_installed, convert, installed_version
from dstrain.serving.translator import Translator, load_translator

NUM_PROVED_ROWS = 64
WEIGHTS = (".safetensors", ".safetensors.index.json")
"""How the files of an exported folder end that a converted one does without."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A model as it was exported, in fp32 on the CPU, and the evaluation of its run."""

    config: RunConfig
    model: PreTrainedModel
    tokenizer: Seq2SeqTokenizer
    tokens: TokenSet
    plan: EvaluationPlan


def export_converted(folder: RunFolder, *, directory: Path, to: Path, quantization: str | None) -> str:
    """Write the model of one of a run's checkpoints as a folder that CTranslate2 and `dstrain predict` use; says what was shown.

    The folder holds what any exported one does, but in the place of the weights the converted model.

    Raises:
        ExportError: greedy search by CTranslate2, before quantisation, has another hypothesis than the model; no folder is left.
        UserError: as `export_checkpoint`; or CTranslate2 is not installed, or cannot compute a model of this family.
    """
    check_installed()
    quiet_transformers()
    config = read_run_config(folder)
    device = torch.device("cpu")
    if quantization is not None:
        device = choose_device(read_process_info({}), wanted=config.machine.device)
    if config.model.name is not None:  # all that are trained from scratch can be converted
        check_convertible(load_config(config.model.name, revision=config.model.revision))
    with new_folder(to, draft=to.with_name(f"{to.name}.tmp")) as draft, _parts(draft) as (exported, plain):
        export_checkpoint(folder, directory=directory, to=exported, check=True)
        case = _load_case(exported, config=config, tokenizer=load_run_tokenizer(folder))
        record = Conversion(installed_version(), PLAIN, num_proved=0)
        _convert(case, folder=plain, record=record)
        translator = load_translator(plain, device=torch.device("cpu"))
        record = replace(record, num_proved=prove(case, translator=translator))
        said = [f"{record.num_proved:,} evaluation rows: {translator.name} finds the greedy hypotheses of the model"]
        made = plain
        if quantization is not None:
            made = draft / "quantized"
            record = replace(record, quantization=quantization)
            _convert(case, folder=made, record=record)
            record = replace(record, cost=_measure(case, plain=plain, quantized=made, device=device))
            said.append(describe_cost(record.cost, quantization=quantization))
        write_conversion(made, record)
        made.rename(draft / CONVERTED)
        for file in exported.iterdir():
            if file.is_file() and not file.name.endswith(WEIGHTS):
                file.rename(draft / file.name)
    return "\n".join(said)


@contextmanager
def _parts(draft: Path) -> Iterator[tuple[Path, Path]]:
    """Places for the exported folder and for the conversion before quantisation; what is left there is removed at the end."""
    parts = draft / "exported", draft / "plain"
    yield parts
    for part in parts:
        remove(part)


def _load_case(exported: Path, *, config: RunConfig, tokenizer: Seq2SeqTokenizer) -> Case:
    tokens = load_token_set(prepare_evaluation(config, tokenizer=tokenizer))
    section = Model(name=str(exported))
    model = load_exported_model(section, tokenizer=tokenizer, seed=config.seed, vocabulary=WHOLE, report=log.info)
    plan = plan_evaluation(
        model, tokens=tokens, tokenizer=tokenizer, config=config, vocabulary=WHOLE, world_size=1, max_batches=None
    )
    return Case(config, model, tokenizer, tokens, plan)


def _convert(case: Case, *, folder: Path, record: Conversion) -> None:
    """Write a case's model for CTranslate2, with this record."""
    first, *_ = case.plan.generation.values()  # those of the other languages forbid the same
    convert(
        case.model,
        tokenizer=case.tokenizer,
        forbidden_ids=read_rules(first).forbidden_ids,
        folder=folder,
        quantization=None if record.quantization == PLAIN else record.quantization,
    )
    write_conversion(folder, record)


def prove(case: Case, *, translator: Translator) -> int:
    """The number of evaluation rows for which greedy search by CTranslate2 had the hypotheses of the model.

    Raises:
        ExportError: names the first row that has another, and both.
    """
    tokens = case.tokens
    search = Search(
        model=case.model,
        tokenizer=case.tokenizer,
        vocabulary=WHOLE,
        evaluation=case.config.evaluation.model_copy(update={"num_beams": 1}),
        max_new_tokens=case.plan.cap.max_new_tokens,
        batch_tokens=BATCH_TOKENS["cpu"],
        num_best=None,
        device=torch.device("cpu"),
    )
    sources = [
        Source(tokens.source(row).tolist(), tokens.examples[row].target_language)
        for row in range(min(NUM_PROVED_ROWS, tokens.num_rows))
    ]
    ranks = Ranks(process=read_process_info({}), device=search.device, group=None)
    expected = search_window(sources, search=search, ranks=ranks)
    found = search_window(sources, search=replace(search, engine=translator), ranks=ranks)
    for one, other in zip(expected, found, strict=True):
        if one.candidates[0].token_ids != other.candidates[0].token_ids:
            raise ExportError(_describe_difference(one, other, case=case, name=translator.name))
    return len(sources)


def _describe_difference(expected: Found, found: Found, *, case: Case, name: str) -> str:
    decode = case.tokenizer.decode
    sides = [list(each.candidates[0].token_ids) for each in (expected, found)]
    texts = [decode(ids) for ids in sides]
    if texts[0] == texts[1]:
        texts = [" ".join(map(str, ids)) for ids in sides]
    return (
        f"{case.tokens.examples[expected.row].where}: greedy search by {name} finds {texts[1]!r}, and by the model {texts[0]!r}: "
        "the conversion is not the model, and no folder is made; export without --to, and predict with the model itself"
    )


def _measure(case: Case, *, plain: Path, quantized: Path, device: torch.device) -> Cost | None:
    """Compare both conversions in the recipe's metric over the evaluation rows."""
    translators = [load_translator(each, device=device) for each in (plain, quantized)]
    scores = [evaluate_by(each, case=case) for each in translators]
    return compare(*scores, config=case.config, computed_in=translators[1].computed_in)


def evaluate_by(translator: Translator, *, case: Case) -> Scores:
    """The scores of a converted model on the evaluation rows, with the recipe's search by CTranslate2."""
    (share,) = case.plan.shares
    results = [_search_batch(batch, translator=translator, case=case) for batch in share]
    return score(
        results,
        plan=case.plan,
        tokens=case.tokens,
        tokenizer=case.tokenizer,
        config=case.config,
        vocabulary=WHOLE,
    ).scores


def _search_batch(batch: Batch, *, translator: Translator, case: Case) -> BatchResult:
    tokens = case.tokens.typed if case.plan.is_typed(batch.index) else case.tokens
    assert tokens is not None
    generation = case.plan.generation[batch.target_language]
    sequences, _ = translator.generate([tokens.source(row) for row in batch.rows], generation=generation, num_best=None)
    hypotheses = tuple(
        read_sequence(best, row=row, pad_id=case.tokenizer.pad_token_id, generation=generation)
        for row, (best,) in zip(batch.rows, sequences, strict=True)
    )
    return BatchResult(batch.index, loss_sum=None, num_target_tokens=0, hypotheses=hypotheses)


def compare(plain: Scores, quantized: Scores, *, config: RunConfig, computed_in: str) -> Cost | None:
    """What quantisation costs in the recipe's metric, or where that is the loss, in the first other; None if there is none."""
    wanted = dict.fromkeys((config.best_metric, *config.choosing))
    metric = next((name for name in wanted if name in plain.scores and name in quantized.scores), None)
    if metric is None or plain.num_rows is None:
        return None
    values = plain.scores[metric], quantized.scores[metric]
    return Cost(metric, *values, plain.num_rows, config.evaluation.num_beams, computed_in)


def describe_cost(cost: Cost | None, *, quantization: str) -> str:
    """What quantisation costs, in one line."""
    if cost is None:
        return f"what {quantization} costs was not measured: the recipe has no metric but the loss"
    return f"{cost.metric} {cost.plain:.4f} → {cost.quantized:.4f} with {quantization} ({cost.num_rows:,} rows, same search)"
