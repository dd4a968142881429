"""Tokenises a share of a run's training rows.

`python -m dstrain.run.encode_shards REQUEST.json FIRST` is started by `dstrain.run.encode_together`. It writes shards, and on its
standard output a line of JSON for every few records: their number, or at last what made it fail.
"""

import json
import os
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dstrain.config.schema import RunConfig
from dstrain.data.encoding import ReadingRules
from dstrain.data.shards import Share, encode_shards
from dstrain.errors import UserError
from dstrain.models.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Request:
    """What several processes tokenise together."""

    config: RunConfig
    tokenizer: str
    """Folder of the tokenizer."""
    fingerprint: str
    """That of the tokenizer, which must be the same when it is loaded here."""
    folder: str
    """Where the shards are made."""
    num_processes: int


def main(path: Path, *, first: int) -> int:
    """Make the shards of one process; returns its exit code."""
    try:
        _encode(TypeAdapter(Request).validate_json(path.read_bytes()), first=first)
    except UserError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    except BrokenPipeError:  # the process that waited for this one is gone
        return 1
    return 0


def _encode(request: Request, *, first: int) -> None:
    config, tokenizer = request.config, load_tokenizer(request.tokenizer)
    if tokenizer.fingerprint != request.fingerprint:
        raise RuntimeError(f"{request.tokenizer} is another tokenizer when it is loaded again")
    rules = config.data.rules.model_copy(update={"unknown_token": config.unknown_token_rule})
    reading = ReadingRules(task=config.task, rules=rules, encoder=tokenizer, split="train")
    share = Share(first, of=request.num_processes)
    made = encode_shards(config.data.train, reading=reading, folder=Path(request.folder), share=share, beat=_say)
    deque(made, maxlen=0)


def _say(records: int) -> None:
    print(json.dumps(records), flush=True)


if __name__ == "__main__":
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches all processes of a terminal: the one that waits decides
    code = main(Path(sys.argv[1]), first=int(sys.argv[2]))
    os._exit(code)  # a normal exit would write to a pipe that may be broken
