"""Rows to a tokenizer and token sets: made once by rank 0, while the others wait without a collective operation.

A wait inside a collective would run into its time limit on large data; the others look at a file instead.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig, Source
from dstrain.data.examples import Example, build_examples
from dstrain.data.sources import BadRow, fingerprint_sources, read_rows
from dstrain.data.tokens import TokenSet, build_token_set, load_token_set
from dstrain.models.scratch import train_tokenizer
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.tasks.parsing import task_tokens

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What training reads."""

    tokenizer: Seq2SeqTokenizer
    train: TokenSet
    eval: TokenSet


def prepare(config: RunConfig, *, ranks: Ranks) -> Prepared:
    """The tokenizer and the token sets of a run, on every rank.

    Raises:
        ValueError: data or tokenizer cannot be used; on every rank, so that all of them end.
    """
    folders = _made_by_rank_0(lambda: _make(config), run_dir=Path(config.run_dir), ranks=ranks)
    tokenizer = load_tokenizer(folders["tokenizer"], revision=None, added_tokens=())
    train = load_token_set(Path(folders["train"]))
    evaluation = load_token_set(Path(folders["eval"]))
    return Prepared(tokenizer, train, evaluation)
