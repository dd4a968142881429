"""Exports the small model of a run that trained part of its vocabulary, with a small tokenizer: `dstrain export --trim`."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.data.examples import Example
from dstrain.data.tokens import load_token_set
from dstrain.models.load import quiet_transformers
from dstrain.models.save import export_model
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.models.trim import check_alike, trim_tokenizer
from dstrain.run.directions import find_directions
from dstrain.run.export import checked_sources, generation_settings, load_checkpoint_model, load_run_tokenizer
from dstrain.run.prepare import prepare_evaluation
from dstrain.run.task_settings import write_task_settings
from dstrain.run.vocabulary import load_vocabulary
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import counted_pairs


def export_trimmed(folder: RunFolder, *, directory: Path, to: Path) -> str:
    """Write the small model of a run that trained part of its vocabulary, with a small tokenizer; says what was compared.

    Raises:
        ExportError: as `export_checkpoint`.
        UserError: as `export_checkpoint`; or the tokenizer cannot be trimmed.
    """
    quiet_transformers()
    config = read_run_config(folder)
    tokenizer = load_run_tokenizer(folder)
    vocabulary = load_vocabulary(config, tokenizer=tokenizer)
    assert vocabulary.kept is not None
    tokens = load_token_set(prepare_evaluation(config, tokenizer=tokenizer))
    with tempfile.TemporaryDirectory() as small:
        trimmed = trim_tokenizer(tokenizer, ids=vocabulary.kept, folder=Path(small))
        num_alike = _check_examples(tokens.examples, tokenizer=tokenizer, trimmed=trimmed, ids=vocabulary.kept)
        model = load_checkpoint_model(directory, config=config, tokenizer=tokenizer, vocabulary=vocabulary)
        counted = counted_pairs(folder)
        settings = generation_settings(model, config=config, tokenizer=trimmed, tokens=tokens, counted=counted)
        name = parse_checkpoint_name(directory)
        assert name
        sources = [vocabulary.inputs(np.asarray(source)).tolist() for source in checked_sources(tokens)]
        export_model(
            model,
            tokenizer=trimmed,
            folder=to,
            generation=settings,
            step=name.step,
            sources=sources,
            directions=find_directions(config, counted=counted, tokens=tokens, tokenizer=trimmed),
            save_more=partial(write_task_settings, config=config),
        )
    others = 2 * tokens.num_rows - num_alike
    return (
        f"{len(vocabulary.kept):,} of {tokenizer.vocabulary_size:,} tokens; the small tokenizer segments {num_alike:,} of "
        f"{2 * tokens.num_rows:,} texts of the evaluation rows as the whole one does"
        + (f", and {others:,}, which have further tokens, otherwise" if others else "")
        + f"; the hypotheses of {len(sources)} rows are those of the checkpoint"
    )


def _check_examples(
    examples: Sequence[Example], *, tokenizer: Seq2SeqTokenizer, trimmed: Seq2SeqTokenizer, ids: Sequence[int]
) -> int:
    groups: dict[tuple[str | None, str | None], list[Example]] = {}
    for example in examples:
        groups.setdefault((example.source_language, example.target_language), []).append(example)
    return sum(
        check_alike(
            [example.source for example in group],
            [example.target for example in group],
            tokenizer=tokenizer,
            trimmed=trimmed,
            ids=ids,
            languages=languages,
        )
        for languages, group in groups.items()
    )
