"""Makes the tokenizer and the token sets, once, on rank 0, while the other ranks wait; or before a run, by itself."""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from dstrain.attempt.rank_records import Phases
from dstrain.cluster.process_group import Ranks
from dstrain.config.data import Source
from dstrain.config.metrics import is_of_set
from dstrain.config.recipe import Scratch
from dstrain.config.schema import RunConfig
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.counts import describe_set, warn_of_set
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.examples import Example, build_examples
from dstrain.data.hashes import hash_once
from dstrain.data.lookup import LocatedRow, locate_rows
from dstrain.data.mixture import Mixture, find_mixture
from dstrain.data.shards import BAD_ROWS, Beat, beating, no_beat
from dstrain.data.source_counts import describe_sources, warn_of_columns
from dstrain.data.sources import HashFile, build_rows, estimate_records, fingerprint_sources, read_records
from dstrain.data.tokens import FORMAT_VERSION, SetUp, TokenSet, load_token_set, prepare_token_set
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.bleu_tokenizer import check_bleu_tokenizer
from dstrain.evaluation.typed import find_typed_warning
from dstrain.models.scratch import train_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.cache import cache_dir
from dstrain.run.encode_together import Encoders, num_processes
from dstrain.run.languages import check_scratch_languages, check_tokenizer, marian_codes
from dstrain.run.note import note_token_sets
from dstrain.run.rank_0_work import SpokenProgress, made_by_rank_0
from dstrain.run.vocabulary import keep_vocabulary, load_vocabulary
from dstrain.run_folder.atomic import new_folder, open_new, write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.leftovers import remove_leftovers
from dstrain.run_folder.sealed import SEAL, copy_sealed, sealed_folder
from dstrain.tasks.own_code import code_file, load_code
from dstrain.tasks.own_task import code_fingerprint, load_task
from dstrain.tasks.parsing import task_tokens
from dstrain.tasks.words import place_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What training reads: the tokenizer and both token sets."""

    tokenizer: Seq2SeqTokenizer
    train: TokenSet
    eval: TokenSet
    vocabulary: Vocabulary = WHOLE
    """The ids for which the model has rows."""
    mixture: Mixture | None = None
    """How training sources are mixed, where not every row comes once."""

    @property
    def train_fingerprint(self) -> str:
        """Hash of the rows of an epoch."""
        tokens = self.train.fingerprint
        return tokens if self.mixture is None else self.mixture.fingerprint(tokens)

    @property
    def reports(self) -> dict[str, dict[str, Any]]:
        """What the token sets report of their rows, by split, and how training sources are mixed."""
        passes = {} if self.mixture is None else {"passes": self.mixture.passes}
        return {"train": self.train.report | passes, "eval": self.eval.report}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of both token sets, of every source, of the tokenizer and of the ids that are trained, if not all are.

        A run may only resume with the same hashes.
        """
        sources = {
            f"data.{split}.{number}": fingerprint
            for split, tokens in (("train", self.train), ("eval", self.eval))
            for number, fingerprint in enumerate(tokens.report["sources"])
        }
        sets = {"train": self.train_fingerprint, "eval": self.eval.fingerprint}
        kept = {} if self.vocabulary.is_whole else {"vocabulary": self.vocabulary.fingerprint}
        return sets | sources | {"tokenizer": self.tokenizer.fingerprint} | kept


def prepare(
    config: RunConfig,
    *,
    ranks: Ranks,
    whole: RunConfig | None = None,
    kept_tokenizer: str | None = None,
    kept_vocabulary: str | None = None,
    phases: Phases | None = None,
) -> Prepared:
    """The tokenizer and the token sets of a run, on every rank.

    `whole` is the recipe of which `config` has a few rows only: the tokenizer is that of all rows. A resumed run keeps
    the tokenizer and the vocabulary in its folder, whatever rows it has now: `kept_tokenizer` and `kept_vocabulary` are the
    fingerprints that these must have. Work on the data is progress in `phases`, on the ranks that wait too.

    Raises:
        UserError: data or tokenizer cannot be used; raised on rank 0, and the launcher then ends the others.
    """
    folder = RunFolder(Path(config.run_dir))
    beat = SpokenProgress(lambda: None if phases is None else phases.mark_progress())
    made = made_by_rank_0(
        lambda: _make_all(
            config, folder=folder, whole=whole or config, kept=(kept_tokenizer, kept_vocabulary), beat=beat
        ),
        run_dir=folder.path,
        ranks=ranks,
        phases=phases,
    )
    train, evaluation = (load_token_set(Path(each)) for each in made)
    tokenizer = load_tokenizer(str(folder.tokenizer))
    vocabulary, mixture = load_vocabulary(config, tokenizer=tokenizer), find_mixture(config.data, report=train.report)
    if mixture is not None and ranks.rank == 0:
        for number, (count, passes) in enumerate(zip(mixture.counts, mixture.passes, strict=True)):
            log.info("data.train.%d: %s rows in an epoch, %.3g passes over its rows", number, f"{count:,}", passes)
    return Prepared(tokenizer, train, evaluation, vocabulary, mixture)


def estimate_rows(config: RunConfig) -> int | None:
    """About how many rows the data of a recipe have; None if that takes as long as reading them."""
    return estimate_records([*config.data.train, *config.data.eval])


def prepare_ahead(config: RunConfig, *, beat: Beat) -> list[Path]:
    """The folders of the token sets of a recipe, made if they are not in the cache. Leaves nothing in the run folder.

    Raises UserError if data or tokenizer cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="dstrain-") as folder:
        return [
            Path(each) for each in _make(config, folder=RunFolder(Path(folder)), whole=config, kept=None, beat=beat)
        ]


def prepare_evaluation(config: RunConfig, *, tokenizer: Seq2SeqTokenizer) -> Path:
    """The folder of the token set of the evaluation rows, made if it is not in the cache.

    Raises UserError if the rows or the tokenizer for BLEU cannot be used, or if the tokenizer lacks a language or a prefix of
    the recipe.
    """
    _check_code(config)
    check_tokenizer(config, tokenizer=tokenizer)
    reading = _reading_rules(config, tokenizer=tokenizer, split="eval")
    return _prepare_set(config, reading=reading, set_up=SetUp(hash_file=_hash_once(config, beat=no_beat)))


def share_evaluation(config: RunConfig, *, tokenizer: Seq2SeqTokenizer, ranks: Ranks, folder: Path) -> TokenSet:
    """The token set of the evaluation rows, on every rank; all ranks must see `folder`."""

    def make() -> list[str]:
        return [str(prepare_evaluation(config, tokenizer=tokenizer))]

    (made,) = made_by_rank_0(make, run_dir=folder, ranks=ranks)
    return load_token_set(Path(made))


def list_bad_rows(tokens: Path, *, path: Path) -> None:
    """Copy the list of the rows of a token set that were skipped or changed to `path`."""
    with (tokens / BAD_ROWS).open("rb") as listed, open_new(path) as file:
        shutil.copyfileobj(listed, file)


def locate_training_rows(
    rows: Iterable[int], *, config: RunConfig, tokenizer: Seq2SeqTokenizer
) -> dict[int, LocatedRow]:
    """Place and text of rows of the training token set, found by reading the sources again."""
    reading = _reading_rules(config, tokenizer=tokenizer, split="train")
    return locate_rows(set(rows), sources=config.data.train, reading=reading)


def _reading_rules(config: RunConfig, *, tokenizer: Seq2SeqTokenizer, split: Split) -> ReadingRules:
    rules = config.data.rules.model_copy(update={"unknown_token": config.unknown_token_rule})
    return ReadingRules(task=config.task, rules=rules, encoder=tokenizer, split=split)


def _prepare_set(config: RunConfig, *, reading: ReadingRules, set_up: SetUp) -> Path:
    sources = _sources(config, split=reading.split)
    return prepare_token_set(sources, reading=reading, cache_dir=cache_dir(config) / "tokens", set_up=set_up)


def _hash_once(config: RunConfig, *, beat: Beat) -> HashFile:
    return partial(hash_once, folder=cache_dir(config) / "hashes", beat=lambda: beat(0))


def _sources(config: RunConfig, *, split: Split) -> tuple[Source, ...]:
    return config.data.train if split == "train" else config.data.eval


def _check_code(config: RunConfig) -> None:
    """Load what the recipe names of code, before any other work, and say from which files it comes."""
    if config.evaluation.bleu_tokenizer is not None:
        check_bleu_tokenizer(config.evaluation.bleu_tokenizer)
    for key, item in config.own_code:
        load_code(item, key=key)
        log.info("%s: `%s` is code of %s", key, item, code_file(item))
    load_task(config.task)


def _make_all(
    config: RunConfig, *, folder: RunFolder, whole: RunConfig, kept: tuple[str | None, str | None], beat: Beat
) -> list[str]:
    """The folders of both token sets; tokenizer and vocabulary are written to the run folder."""
    made = _make(config, folder=folder, whole=whole, kept=kept[0], beat=beat)
    if config.model.vocabulary == "seen":
        train, evaluation = (load_token_set(Path(each)) for each in made)
        tokenizer = load_tokenizer(str(folder.tokenizer))
        keep_vocabulary(config, tokenizer=tokenizer, train=train, evaluation=evaluation, fingerprint=kept[1])
    return made


def _make(config: RunConfig, *, folder: RunFolder, whole: RunConfig, kept: str | None, beat: Beat) -> list[str]:
    _check_code(config)
    for name in ("tokenizers", "task_tokens", "hashes"):  # what `tokens` needs for itself it does itself
        remove_leftovers(cache_dir(config) / name)
    set_up = SetUp(_hash_once(config, beat=beat), beat)
    tokenizer = _keep_tokenizer(whole, folder=folder.tokenizer, fingerprint=kept)
    tokenizer = tokenizer or _make_tokenizer(whole, folder=folder.tokenizer, fingerprint=kept, set_up=set_up)
    encoders = Encoders(config, folder.tokenizer, tokenizer.fingerprint, beat) if num_processes(config) > 1 else None
    made = []
    splits: tuple[Split, ...] = ("train", "eval")
    for split in splits:
        reading = _reading_rules(config, tokenizer=tokenizer, split=split)
        helped = replace(set_up, encode_elsewhere=encoders if split == "train" else None)
        tokens = _prepare_set(config, reading=reading, set_up=helped)
        _say(load_token_set(tokens), config=config, split=split)
        made.append(str(tokens))
    _check_best_set(config, tokens=load_token_set(Path(made[-1])))
    note_token_sets(config, train=Path(made[0]), evaluation=Path(made[1]), tokenizer=tokenizer)
    return made


def _say(tokens: TokenSet, *, config: RunConfig, split: Split) -> None:
    """Say on the terminal what was read, left out and cut, before any time of a GPU is spent."""
    log.info("%s", describe_set(split, tokens.report))
    sources = _sources(config, split=split)
    for line in describe_sources(split, tokens.report, sources=sources):
        log.info("%s", line)
    for warning in warn_of_columns(split, tokens.report, sources=sources):
        log.warning("%s", warning)
    # only references can be too long, and sorting the lengths of a large training set would take memory and time
    usual = int(np.percentile(tokens.target_lengths, 99)) if split == "eval" else 0
    for warning in warn_of_set(split, tokens.report, usual_target=usual):
        log.warning("%s", warning)
    if num_cut := tokens.report.get("cut_by_reference"):
        log.warning("%s", find_typed_warning(num_cut=num_cut, num_rows=tokens.report["rows"]))


def _check_best_set(config: RunConfig, *, tokens: TokenSet) -> None:
    """Refuse a best metric of an evaluation set of which no row is scored."""
    if not is_of_set(config.best_metric):
        return
    name = config.best_metric.partition("/")[0]
    scored = tokens.examples[: config.evaluation.max_rows]
    if not any(example.eval_set == name for example in scored):
        raise UserError(
            f"evaluation.best_metric `{config.best_metric}`: no row of data.eval `{name}` is scored ({len(scored):,} rows in "
            "all): correct its rows, raise evaluation.max_rows, or choose by another metric"
        )


def _keep_tokenizer(config: RunConfig, *, folder: Path, fingerprint: str | None) -> Seq2SeqTokenizer | None:
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


def _make_tokenizer(config: RunConfig, *, folder: Path, fingerprint: str | None, set_up: SetUp) -> Seq2SeqTokenizer:
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
        config.data.rules.model_dump(),
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
    settings = [task.model_dump(), config.data.rules.model_dump(), FORMAT_VERSION]
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
