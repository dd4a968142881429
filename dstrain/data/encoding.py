"""Token ids of examples, within the task's limits. Owns what becomes of an example that is too long or not in the vocabulary.

Streams: holds `BATCH_EXAMPLES` examples at a time. Knows nothing of files; the tokenizer enters as an `Encoder`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

from dstrain.config.data import Rules
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import OnBad, apply_rule, of_source
from dstrain.data.examples import Example
from dstrain.errors import UserError

Split = Literal["train", "eval"]

BATCH_EXAMPLES = 2000
"""Examples tokenised together."""


class Encoder(Protocol):
    """What a tokenizer must offer."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the ids."""

    @property
    def unk_token_id(self) -> int | None:
        """The id of text that is not in the vocabulary."""

    @property
    def vocabulary_size(self) -> int:
        """The highest id + 1."""

    def encode(
        self,
        sources: list[str],
        targets: list[str],
        *,
        source_language: str | None,
        target_language: str | None,
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of both sides with their special tokens, untruncated."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""

    def is_empty(self, ids: list[int]) -> bool:
        """Whether ids give no text: special tokens alone, or a blank beside them."""

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """The first ids, max_tokens in all, with the special tokens of both ends."""


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """All that decides how rows become token ids, besides the rows themselves."""

    task: Task
    rules: Rules
    """`data.rules`, with `unknown_token` set: the task's default must be filled in."""
    encoder: Encoder
    split: Split
    """Evaluation keeps the texts, and never cuts a reference."""
    held_out: bytes = b""
    """Training rows with these sources are left out: hashes of normalised sources, as in `identity.py`."""


@dataclass(slots=True)
class Encoded:
    """An example with the ids of both sides."""

    example: Example
    source_ids: list[int]
    target_ids: list[int]
    source_lost: int = 0
    """Tokens that were cut off."""
    target_lost: int = 0


def encode_examples(examples: Iterable[Example], *, reading: ReadingRules, on_bad: OnBad) -> Iterator[list[Encoded]]:
    """The usable examples in their order, encoded and cut to the task's limits, up to BATCH_EXAMPLES at a time.

    Raises UnusableRowError where a rule is `error`.
    """
    iterator = iter(examples)
    while batch := list(islice(iterator, BATCH_EXAMPLES)):
        fitted = (
            _fit(item, reading=reading, on_bad=of_source(on_bad, item.example.data_source))
            for item in _encode(batch, encoder=reading.encoder)
        )
        yield [item for item in fitted if item is not None]


def _encode(batch: Sequence[Example], *, encoder: Encoder) -> list[Encoded]:
    by_languages: dict[tuple[str | None, str | None], list[int]] = {}
    for index, example in enumerate(batch):
        by_languages.setdefault((example.source_language, example.target_language), []).append(index)
    encoded: dict[int, Encoded] = {}
    for (source_language, target_language), indices in by_languages.items():
        try:
            source_ids, target_ids = encoder.encode(
                [batch[index].source for index in indices],
                [batch[index].target for index in indices],
                source_language=source_language,
                target_language=target_language,
            )
        except UserError as error:  # a language that the tokenizer lacks, named in a column of the data
            raise UserError(f"{batch[indices[0]].where}: {error}") from error
        for index, source, target in zip(indices, source_ids, target_ids, strict=True):
            encoded[index] = Encoded(batch[index], source, target)
    return [encoded[index] for index in range(len(batch))]


def _fit(item: Encoded, *, reading: ReadingRules, on_bad: OnBad) -> Encoded | None:
    """The item cut to the task's limits, or None if a rule skips it."""
    if _is_empty(item, reading=reading, on_bad=on_bad) or _is_skipped_as_unknown(item, reading=reading, on_bad=on_bad):
        return None
    example, task, rule = item.example, reading.task, reading.rules.too_long
    source_over = len(item.source_ids) > task.max_source_tokens
    target_over = len(item.target_ids) > task.max_target_tokens
    if not (source_over or target_over):
        return item
    # scores against a shortened reference would be wrong
    keep_target = reading.split == "eval" and rule == "truncate"
    action = "keep" if keep_target and not source_over else rule
    problem = (
        f"{len(item.source_ids)} source tokens of at most {task.max_source_tokens}, "
        f"{len(item.target_ids)} target tokens of at most {task.max_target_tokens}"
    )
    text = example.source if source_over else example.target
    apply_rule(action, where=example.where, reason="too_long", problem=problem, text=text, on_bad=on_bad)
    if action == "skip":
        return None
    if source_over:
        whole, item.source_ids = item.source_ids, _truncate(item.source_ids, key="max_source_tokens", reading=reading)
        item.source_lost = len(whole) - len(item.source_ids)
    if target_over and not keep_target:
        whole, item.target_ids = item.target_ids, _truncate(item.target_ids, key="max_target_tokens", reading=reading)
        item.target_lost = len(whole) - len(item.target_ids)
    return item


def _truncate(ids: list[int], *, key: str, reading: ReadingRules) -> list[int]:
    try:
        return reading.encoder.truncate(ids, max_tokens=getattr(reading.task, key))
    except UserError as error:  # no room for special tokens; the tokenizer does not know the key
        raise UserError(f"task.{key}: {error}") from error


def _is_empty(item: Encoded, *, reading: ReadingRules, on_bad: OnBad) -> bool:
    """Applies the rule for rows with an empty side: some tokenizers drop characters that are drawn."""
    example, is_empty = item.example, reading.encoder.is_empty
    side = "source" if is_empty(item.source_ids) else "target" if is_empty(item.target_ids) else None
    if side is None:
        return False
    problem = f"the tokenizer makes nothing of the {side}"
    text = f"{example.raw_source}\t{example.raw_target}"
    apply_rule(reading.rules.empty, where=example.where, reason="empty", problem=problem, text=text, on_bad=on_bad)
    return True


def _is_skipped_as_unknown(item: Encoded, *, reading: ReadingRules, on_bad: OnBad) -> bool:
    """Applies the rule for targets with unknown tokens; sources may have them."""
    unknown, rule, example = reading.encoder.unk_token_id, reading.rules.unknown_token, item.example
    if unknown is None or unknown not in item.target_ids:
        return False
    assert rule is not None, "the task's default must be filled in before"
    problem = f"the target has characters that are not in the vocabulary (they become token {unknown})"
    apply_rule(rule, where=example.where, reason="unknown_token", problem=problem, text=example.target, on_bad=on_bad)
    return rule == "skip"
