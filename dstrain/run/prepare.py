"""Makes the tokenizer and the token sets, once, on rank 0, while the other ranks wait; or before a run, by itself."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dstrain.attempt.rank_records import Phases
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.progress import phase
from dstrain.config.data import Source
from dstrain.config.metrics import is_of_set
from dstrain.config.schema import RunConfig
from dstrain.data.counts import describe_set, warn_of_set
from dstrain.data.drops import read_dropped
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.hashes import hash_once
from dstrain.data.lookup import LocatedRow, locate_rows
from dstrain.data.mixture import Mixture, find_mixture
from dstrain.data.shards import BAD_ROWS, Beat, no_beat
from dstrain.data.source_counts import describe_sources, warn_of_columns
from dstrain.data.sources import HashFile, estimate_records
from dstrain.data.tokens import SetUp, TokenSet, load_token_set, prepare_token_set
from dstrain.data.vocabulary import WHOLE, Vocabulary
from dstrain.errors import UserError
from dstrain.evaluation.bleu_tokenizer import check_bleu_tokenizer
from dstrain.evaluation.typed import find_typed_warning
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run.audit import add_near, build_audit, held_out_by, mark_held, overlap_of, say_audit
from dstrain.run.cache import cache_dir
from dstrain.run.encode_together import Encoders, num_processes
from dstrain.run.languages import check_tokenizer
from dstrain.run.note import note_token_sets
from dstrain.run.rank_0_work import made_by_rank_0
from dstrain.run.run_tokenizer import keep_tokenizer, make_tokenizer
from dstrain.run.vocabulary import keep_vocabulary, load_vocabulary
from dstrain.run_folder.atomic import open_new
from dstrain.run_folder.audit import Audit, Overlap
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.leftovers import remove_leftovers
from dstrain.tasks.own_code import code_file, load_code
from dstrain.tasks.own_task import load_task

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
    overlap: Overlap | None = None
    """Which evaluation rows are in training."""

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
    def audit(self) -> Audit | None:
        """What was found in the rows, if it was looked for."""
        if self.overlap is None:
            return None
        return build_audit(train=self.train, evaluation=self.eval, overlap=self.overlap)

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

    def beat(records: int) -> None:
        if phases is not None:
            phases.mark_progress()

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
    # rank 0 has written it into the cache
    overlap = overlap_of(config, train=train, evaluation=evaluation)
    evaluation.held_in_training = frozenset(overlap.held_in_training)
    return Prepared(tokenizer, train, evaluation, vocabulary, mixture, overlap)


def prepare_ahead(config: RunConfig, *, beat: Beat = no_beat) -> list[Path]:
    """The folders of the token sets of a recipe, made if they are not in the cache. Leaves nothing in the run folder.

    Raises UserError if data or tokenizer cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="dstrain-") as folder:
        return [
            Path(each) for each in _make(config, folder=RunFolder(Path(folder)), whole=config, kept=None, beat=beat)
        ]


def audit_ahead(config: RunConfig, *, beat: Beat = no_beat) -> Audit:
    """All that can be known of a recipe's data, near duplicates too. Makes what is not in the cache, and nothing else.

    Raises UserError if data or tokenizer cannot be used.
    """
    train, evaluation = map(load_token_set, prepare_ahead(config, beat=beat))
    overlap = overlap_of(config, train=train, evaluation=evaluation)
    overlap = add_near(config, overlap, train=train, evaluation=evaluation, beat=beat)
    return build_audit(train=train, evaluation=evaluation, overlap=overlap)


def prepare_evaluation(config: RunConfig, *, tokenizer: Seq2SeqTokenizer) -> Path:
    """The folder of the token set of the evaluation rows, made if it is not in the cache.

    Raises UserError if the rows or the tokenizer for BLEU cannot be used, or if the tokenizer lacks a language or a prefix of
    the recipe.
    """
    _check_code(config)
    check_tokenizer(config, tokenizer=tokenizer)
    return _tokenise(config, reading=_reading_rules(config, tokenizer=tokenizer, split="eval"))


def share_evaluation(
    config: RunConfig, *, tokenizer: Seq2SeqTokenizer, ranks: Ranks, folder: Path, run: RunFolder | None
) -> TokenSet:
    """The token set of the evaluation rows, on every rank, with what is known of them from `run`; all ranks must see `folder`."""

    def make() -> list[str]:
        return [str(prepare_evaluation(config, tokenizer=tokenizer))]

    (made,) = made_by_rank_0(make, run_dir=folder, ranks=ranks)
    tokens = load_token_set(Path(made))
    mark_held(tokens, run=run)
    return tokens


def list_bad_rows(tokens: Path, *, path: Path) -> None:
    """Copy the list of the rows of a token set that were skipped or changed to `path`."""
    with (tokens / BAD_ROWS).open("rb") as listed, open_new(path) as file:
        shutil.copyfileobj(listed, file)


def locate_training_rows(
    rows: Iterable[int], *, config: RunConfig, tokenizer: Seq2SeqTokenizer, tokens: TokenSet
) -> dict[int, LocatedRow]:
    """Place and text of rows of the training token set, found by reading the sources again."""
    reading = _reading_rules(config, tokenizer=tokenizer, split="train")
    dropped = read_dropped(tokens.folder).tolist()
    return locate_rows(set(rows), sources=config.data.train, reading=reading, dropped=dropped)


def _reading_rules(config: RunConfig, *, tokenizer: Seq2SeqTokenizer, split: Split) -> ReadingRules:
    rules = config.data.rules.model_copy(update={"unknown_token": config.unknown_token_rule})
    return ReadingRules(task=config.task, rules=rules, encoder=tokenizer, split=split)


def _tokenise(
    config: RunConfig,
    *,
    reading: ReadingRules,
    beat: Beat = no_beat,
    encoders: Callable[[Beat], Encoders | None] = lambda beat: None,
) -> Path:
    """The folder of a token set, made if it is not in the cache: a phase of the set-up."""
    sources = _sources(config, split=reading.split)
    what = f"reading and tokenising the {'training' if reading.split == 'train' else 'evaluation'} rows"
    with phase(what, unit="rows", total=lambda: estimate_records(sources)) as progress:

        def count(records: int) -> None:
            beat(records)
            progress.advance(records)

        set_up = SetUp(_hash_once(config, beat=count), count, encode_elsewhere=encoders(count))
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
    with phase("making the tokenizer"):
        set_up = SetUp(_hash_once(config, beat=beat), beat)
        tokenizer = keep_tokenizer(whole, folder=folder.tokenizer, fingerprint=kept)
        tokenizer = tokenizer or make_tokenizer(whole, folder=folder.tokenizer, fingerprint=kept, set_up=set_up)
    fingerprint = tokenizer.fingerprint

    def encoders(beat: Beat) -> Encoders | None:
        return Encoders(config, folder.tokenizer, fingerprint, beat) if num_processes(config) > 1 else None

    held_out = _held_out(config, tokenizer=tokenizer, beat=beat)
    reading = replace(_reading_rules(config, tokenizer=tokenizer, split="train"), held_out=held_out)
    made = [str(_tokenise(config, reading=reading, beat=beat, encoders=encoders))]
    _say(load_token_set(Path(made[0])), config=config, split="train")
    reading = _reading_rules(config, tokenizer=tokenizer, split="eval")
    made.append(str(_tokenise(config, reading=reading, beat=beat)))
    _say(load_token_set(Path(made[1])), config=config, split="eval")
    train, evaluation = (load_token_set(Path(each)) for each in made)
    _check_best_set(config, tokens=evaluation)
    overlap = overlap_of(config, train=train, evaluation=evaluation)
    say_audit(build_audit(train=train, evaluation=evaluation, overlap=overlap), config=config)
    note_token_sets(config, train=Path(made[0]), evaluation=Path(made[1]), tokenizer=tokenizer)
    return made


def _held_out(config: RunConfig, *, tokenizer: Seq2SeqTokenizer, beat: Beat) -> bytes:
    """The sources that training leaves out, if it does."""
    if config.data.rules.overlap != "skip_train":
        return b""
    reading = _reading_rules(config, tokenizer=tokenizer, split="eval")
    return held_out_by(load_token_set(_tokenise(config, reading=reading, beat=beat)))


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
