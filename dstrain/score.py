"""A finished model scored on a recipe's evaluation rows, in one process and without an engine."""

import logging
import os
from pathlib import Path

from dstrain.cluster.environment import discover_place
from dstrain.cluster.process_group import choose_device
from dstrain.config.schema import Model, RunConfig
from dstrain.data.tokens import load_token_set
from dstrain.evaluation.evaluate import EvaluationResult, evaluate, write_evaluation
from dstrain.models.families import generation_arguments
from dstrain.models.load import DTYPES, load_model
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.tokenizer import load_tokenizer
from dstrain.prepare import prepare_evaluation

log = logging.getLogger(__name__)


def evaluate_saved(model: str, *, config: RunConfig, output: Path) -> EvaluationResult:
    """Score a model folder or hub name as the recipe's evaluations do; writes scores and hypotheses under `output`.

    Raises:
        ValueError: the model, its tokenizer or the data cannot be used, or several ranks were started.
    """
    place = discover_place(os.environ)
    if place.world_size > 1:
        raise ValueError(f"evaluate runs one process, found {place.world_size}: start it without a launcher")
    device = choose_device(place)
    tokenizer = load_tokenizer(model)
    folder = prepare_evaluation(config, tokenizer=tokenizer)
    section = Model(name=model, layerdrop=config.model.layerdrop)
    loaded = load_model(section, tokenizer=tokenizer, seed=config.seed, report=log.warning)
    loaded = loaded.to(device=device, dtype=DTYPES[config.precision])
    result = evaluate(
        loaded,
        loss_module=Seq2SeqLoss(loaded),
        tokenizer=tokenizer,
        tokens=load_token_set(folder),
        config=config,
        generation_arguments=lambda language: generation_arguments(
            loaded, tokenizer=tokenizer, target_language=language
        ),
        rank=0,
        world_size=1,
        gather=lambda results: [results],
        device=device,
    )
    assert result is not None
    write_evaluation(result, run_dir=output, step=0)
    return result
