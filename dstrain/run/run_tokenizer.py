"""The run's tokenizer: that of the base model with the tokens of the task, or one trained on the training text.

Trained ones and the tokens of the task are kept in the cache. Knows nothing of token sets.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dstrain.config.data import RULES_OF_ROWS
from dstrain.config.recipe import Scratch
from dstrain.config.schema import RunConfig
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.examples import Example, build_examples
from dstrain.data.shards import beating
from dstrain.data.sources import build_rows, fingerprint_sources, read_records
from dstrain.data.tokens import FORMAT_VERSION, SetUp
from dstrain.errors import UserError
from dstrain.models.scratch import train_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.cache import cache_dir
from dstrain.run.languages import check_scratch_languages, check_tokenizer, marian_codes
from dstrain.run_folder.atomic import new_folder, write_file
from dstrain.run_folder.sealed import SEAL, copy_sealed, sealed_folder
from dstrain.tasks.own_task import code_fingerprint
from dstrain.tasks.parsing import task_tokens
from dstrain.tasks.words import place_tokens

log = logging.getLogger(__name__)


def keep_tokenizer(config: RunConfig, *, folder: Path, fingerprint: str | None) -> Seq2SeqTokenizer | None:
    """The tokenizer in the run folder, if it is there and is the one with this fingerprint."""
    if fingerprint is None or not folder.is_dir():
        return None
    try:
        tokenizer = load_tokenizer(str(folder))
    except (UserError, OSError, ValueError) as error:
        log.warning("%s is damaged and made again (%s)", folder, error)
        return None
    if tokenizer.fingerprint != fingerprint:
        return None
    check_tokenizer(config, tokenizer=tokenizer)
    return tokenizer


def make_tokenizer(config: RunConfig, *, folder: Path, fingerprint: str | None, set_up: SetUp) -> Seq2SeqTokenizer:
    """The run's tokenizer, written to the run folder for the other ranks and for a resumed run.

    Raises UserError, and leaves the folder as it is, if the tokenizer has not the fingerprint that is wanted.
    """
    check_scratch_languages(config)
    added = [*(_task_tokens(config, set_up=set_up) if config.task.kind == "parsing" else []), *marian_codes(config)]
    scratch = config.model.scratch
    trained = None if scratch is None else _train_once(config, scratch, added=added, set_up=set_up)
    with new_folder(folder, draft=folder.with_name(f"{folder.name}.tmp"), keep_same=True) as draft:
        if trained is None:
            _save_pretrained(config, added=added, folder=draft)
        else:
            copy_sealed(trained, to=draft)
        _check_fingerprint(draft, wanted=fingerprint, folder=folder)
    tokenizer = load_tokenizer(str(folder))
    check_tokenizer(config, tokenizer=tokenizer)
    return tokenizer


def _check_fingerprint(draft: Path, *, wanted: str | None, folder: Path) -> None:
    if wanted is not None and load_tokenizer(str(draft)).fingerprint != wanted:
        raise UserError(
            f"{folder}: the tokenizer that the weights of this run belong to is lost, and from the present recipe and data "
            "another one is made: restore that folder, or the recipe and data that the run began with; or start a new run "
            "with another output_dir"
        )


def _save_pretrained(config: RunConfig, *, added: list[str], folder: Path) -> None:
    assert config.model.name is not None
    tokenizer = load_tokenizer(
        config.model.name,
        revision=config.model.revision,
        added_tokens=added,
        added_languages=config.model.add_languages or (),
    )
    check_tokenizer(config, tokenizer=tokenizer)  # before its default languages are set
    languages = _languages(config)
    first, last = (languages[0], languages[-1]) if languages else (None, None)
    tokenizer.save(folder, source_language=first, target_language=last)


def _train_once(config: RunConfig, scratch: Scratch, *, added: list[str], set_up: SetUp) -> Path:
    """The folder of the cached tokenizer for this text and these settings, trained if it is not in the cache."""
    # earlier versions sealed nothing: what they made is not used
    task = config.task
    settings = [
        scratch.model_dump(),
        task.model_dump(),
        config.data.rules.model_dump(include=set(RULES_OF_ROWS)),
        added,
        SEAL,
        *code_fingerprint(task),
    ]
    cached = cache_dir(config) / "tokenizers" / _text_key(config, settings, set_up=set_up)
    if not cached.exists():
        _check_rows(config, set_up=set_up)
        log.info("training a tokenizer of %d pieces on the training text", scratch.vocabulary_size)
        examples = _train_examples(config, set_up=set_up)
        texts = (text for example in examples for text in (example.source, example.target))
        with sealed_folder(cached) as folder:
            train_tokenizer(scratch, texts=texts, languages=_languages(config), task_tokens=added, folder=folder)
    return cached


def _text_key(config: RunConfig, settings: list[Any], *, set_up: SetUp) -> str:
    """The name in the cache of what follows from the training text and these settings."""
    content = fingerprint_sources(config.data.train, hash_file=set_up.hash_file)
    return hashlib.sha256(json.dumps([content, settings]).encode()).hexdigest()[:32]


def _check_rows(config: RunConfig, *, set_up: SetUp) -> None:
    if next(_train_examples(config, set_up=set_up), None) is None:
        places = ", ".join(source.place for source in config.data.train)
        raise UserError(
            f"data.train ({places}) has no usable row: correct the data or the columns, or change data.rules"
        )


def _languages(config: RunConfig) -> list[str]:
    """Codes of the source and the target language, as far as the recipe names them."""
    return [code for code in config.languages if code is not None]


def _task_tokens(config: RunConfig, *, set_up: SetUp) -> list[str]:
    """The labels and pointers of the training rows; of `words` every pointer that a source is long enough for.

    They are kept in the cache, because finding them takes nearly as long as tokenising the rows.
    """
    task = config.task
    settings = [task.model_dump(), config.data.rules.model_dump(include=set(RULES_OF_ROWS)), FORMAT_VERSION]
    file = cache_dir(config) / "task_tokens" / f"{_text_key(config, settings, set_up=set_up)}.json"
    if not file.is_file():
        targets = (example.target for example in _train_examples(config, set_up=set_up))
        is_cut_alone = task.has_pointers and not task.cuts_by_reference
        found = task_tokens(chain(targets, place_tokens(task.max_source_tokens) if is_cut_alone else ()))
        write_file(file, json.dumps(found))
    return TypeAdapter(list[str]).validate_json(file.read_bytes())


def _train_examples(config: RunConfig, *, set_up: SetUp) -> Iterator[Example]:
    # not logged here: bad rows are counted and listed when the token set is made from the same rows
    ignored = BadRowLog()
    records = beating(read_records(config.data.train), lambda records: set_up.beat(0))
    rows = build_rows(records, task=config.task, rules=config.data.rules, on_bad=ignored)
    return build_examples(rows, task=config.task, rules=config.data.rules, on_bad=ignored)
