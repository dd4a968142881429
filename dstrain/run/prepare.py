"""Makes the tokenizer and the token sets, once, on rank 0, while the other ranks wait.

They wait for a file instead of in a collective operation, because large data would exceed the time limit of that.
"""

import hashlib
import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from dstrain.cluster.process_group import Ranks
from dstrain.config.metrics import is_of_set
from dstrain.config.recipe import Scratch, Source
from dstrain.config.schema import RunConfig
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.counts import describe_set, warn_of_set
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.examples import Example, build_examples
from dstrain.data.lookup import LocatedRow, locate_rows
from dstrain.data.source_counts import describe_sources, warn_of_columns
from dstrain.data.sources import fingerprint_sources, read_rows
from dstrain.data.tokens import BAD_ROWS, TokenSet, load_token_set, prepare_token_set
from dstrain.errors import UserError
from dstrain.evaluation.bleu_tokenizer import check_bleu_tokenizer
from dstrain.evaluation.typed import find_typed_warning
from dstrain.models.scratch import train_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.cache import cache_dir
from dstrain.run.languages import check_scratch_languages, check_tokenizer, marian_codes
from dstrain.run_folder.atomic import new_folder, open_new, shared_folder, write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.tasks.parsing import task_tokens
from dstrain.tasks.words import place_tokens

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What training reads: the tokenizer and both token sets."""

    tokenizer: Seq2SeqTokenizer
    train: TokenSet
    eval: TokenSet

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hashes of both token sets, of every source and of the tokenizer; a run may only resume with the same hashes."""
        sources = {
            f"data.{split}.{number}": fingerprint
            for split, tokens in (("train", self.train), ("eval", self.eval))
            for number, fingerprint in enumerate(tokens.report["sources"])
        }
        sets = {"train": self.train.fingerprint, "eval": self.eval.fingerprint}
        return sets | sources | {"tokenizer": self.tokenizer.fingerprint}


def prepare(config: RunConfig, *, ranks: Ranks, whole: RunConfig | None = None) -> Prepared:
    """The tokenizer and the token sets of a run, on every rank.

    `whole` is the recipe of which `config` has a few rows only: the tokenizer is that of all rows.

    Raises:
        UserError: data or tokenizer cannot be used; raised on rank 0, and the launcher then ends the others.
    """
    folder = RunFolder(Path(config.run_dir))
    made = _made_by_rank_0(
        lambda: _make(config, folder=folder, whole=whole or config), run_dir=folder.path, ranks=ranks
    )
    train, evaluation = (load_token_set(Path(each)) for each in made)
    return Prepared(load_tokenizer(str(folder.tokenizer)), train, evaluation)


def prepare_evaluation(config: RunConfig, *, tokenizer: Seq2SeqTokenizer) -> Path:
    """The folder of the token set of the evaluation rows, made if it is not in the cache.

    Raises UserError if the rows or the tokenizer for BLEU cannot be used, or if the tokenizer lacks a language or a prefix of
    the recipe.
    """
    _check_bleu_tokenizer(config)
    check_tokenizer(config, tokenizer=tokenizer)
    return _prepare_set(config, reading=_reading_rules(config, tokenizer=tokenizer, split="eval"))


def share_evaluation(config: RunConfig, *, tokenizer: Seq2SeqTokenizer, ranks: Ranks, folder: Path) -> TokenSet:
    """The token set of the evaluation rows, on every rank; all ranks must see `folder`."""

    def make() -> list[str]:
        return [str(prepare_evaluation(config, tokenizer=tokenizer))]

    (made,) = _made_by_rank_0(make, run_dir=folder, ranks=ranks)
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


def _prepare_set(config: RunConfig, *, reading: ReadingRules) -> Path:
    sources = _sources(config, split=reading.split)
    return prepare_token_set(sources, reading=reading, cache_dir=cache_dir(config) / "tokens")


def _sources(config: RunConfig, *, split: Split) -> tuple[Source, ...]:
    return config.data.train if split == "train" else config.data.eval


def _check_bleu_tokenizer(config: RunConfig) -> None:
    if config.evaluation.bleu_tokenizer is not None:
        check_bleu_tokenizer(config.evaluation.bleu_tokenizer)


def _make(config: RunConfig, *, folder: RunFolder, whole: RunConfig) -> list[str]:
    _check_bleu_tokenizer(config)
    tokenizer = _make_tokenizer(whole, folder=folder.tokenizer)
    made = []
    splits: tuple[Split, ...] = ("train", "eval")
    for split in splits:
        tokens = _prepare_set(config, reading=_reading_rules(config, tokenizer=tokenizer, split=split))
        _say(load_token_set(tokens), config=config, split=split)
        list_bad_rows(tokens, path=folder.bad_rows(split))
        made.append(str(tokens))
    _check_best_set(config, tokens=load_token_set(Path(made[-1])))
    return made


def _say(tokens: TokenSet, *, config: RunConfig, split: Split) -> None:
    """Say on the terminal what was read, left out and cut, before any time of a GPU is spent."""
    log.info("%s", describe_set(split, tokens.report))
    sources = _sources(config, split=split)
    for line in describe_sources(split, tokens.report, sources=sources):
        log.info("%s", line)
    for warning in warn_of_columns(split, tokens.report, sources=sources):
        log.warning("%s", warning)
    usual = int(np.percentile(tokens.target_lengths, 99))
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


def _make_tokenizer(config: RunConfig, *, folder: Path) -> Seq2SeqTokenizer:
    """The run's tokenizer, written to the run folder for the other ranks and for a resumed run."""
    check_scratch_languages(config)
    added = [*(_task_tokens(config) if config.task.kind == "parsing" else []), *marian_codes(config)]
    trained = None if config.model.scratch is None else _train_once(config, config.model.scratch, added=added)
    with new_folder(folder, draft=folder.with_name(f"{folder.name}.tmp"), keep_same=True) as draft:
        if trained is None:
            _save_pretrained(config, added=added, folder=draft)
        else:
            shutil.copytree(trained, draft, dirs_exist_ok=True)
    tokenizer = load_tokenizer(str(folder))
    check_tokenizer(config, tokenizer=tokenizer)
    return tokenizer


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


def _train_once(config: RunConfig, scratch: Scratch, *, added: list[str]) -> Path:
    """The folder of the cached tokenizer for this text and these settings, trained if it is not in the cache."""
    settings = [scratch.model_dump(), config.task.model_dump(), config.data.rules.model_dump(), added]
    key = hashlib.sha256(json.dumps([fingerprint_sources(config.data.train), settings]).encode()).hexdigest()
    cached = cache_dir(config) / "tokenizers" / key[:32]
    if not cached.exists():
        _check_rows(config)
        log.info("training a tokenizer of %d pieces on the training text", scratch.vocabulary_size)
        texts = (text for example in _train_examples(config) for text in (example.source, example.target))
        with shared_folder(cached) as folder:
            train_tokenizer(scratch, texts=texts, languages=_languages(config), task_tokens=added, folder=folder)
    return cached


def _check_rows(config: RunConfig) -> None:
    if next(_train_examples(config), None) is None:
        places = ", ".join(source.place for source in config.data.train)
        raise UserError(
            f"data.train ({places}) has no usable row: correct the data or the columns, or change data.rules"
        )


def _languages(config: RunConfig) -> list[str]:
    """Codes of the source and the target language, as far as the recipe names them."""
    return [code for code in config.languages if code is not None]


def _task_tokens(config: RunConfig) -> list[str]:
    """The labels and pointers of the training rows; of `words` every pointer that a source is long enough for."""
    task, targets = config.task, (example.target for example in _train_examples(config))
    is_cut_alone = task.has_pointers and not task.cuts_by_reference
    return task_tokens(chain(targets, place_tokens(task.max_source_tokens) if is_cut_alone else ()))


def _train_examples(config: RunConfig) -> Iterator[Example]:
    # not logged here: bad rows are counted and listed when the token set is made from the same rows
    ignored = BadRowLog()
    rows = read_rows(config.data.train, task=config.task, rules=config.data.rules, on_bad=ignored)
    return build_examples(rows, task=config.task, rules=config.data.rules, on_bad=ignored)


def _made_by_rank_0(make: Callable[[], list[str]], *, run_dir: Path, ranks: Ranks) -> list[str]:
    report = run_dir / f".prepared-{ranks.broadcast(secrets.token_hex(8))}"
    if ranks.rank == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        made = make()
        write_file(report, json.dumps(made))
    else:
        # rank 0's failure needs no message here: it ends the run, and the launcher ends this rank
        while not report.exists():
            time.sleep(POLL_SECONDS)
        made = json.loads(report.read_text())
    ranks.barrier()
    report.unlink(missing_ok=True)
    return made
