"""How a run ended, in outcome.json, and how every attempt at it ended, in `lease/`. No torch.

The two differ where a start was refused before it began, or failed on a finished run: that is the end of this attempt, and
the run is as it was. torchrun hides exit codes, so these files say the same.

    python -m dstrain.run_folder.outcome --code 1 --since 1780000000 -- --config …

exits with the code of the attempt that was started with these arguments of launch/train.py, or with `--code` if none has
ended since that time, in seconds since 1970. Called by launch/torchrun.sh.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.atomic import NO_ROOM, overwrite, write_file
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The outcome of an attempt. `running` without a living process means that it was killed: start it again."""

    outcome: Literal["running", "finished", "preempted", "lost", "failed", "killed", "refused"]
    """`killed` and `refused` are never in outcome.json: the next attempt finds the first out, and the second leaves the run as it
    was."""
    exit_code: int | None
    """0 finished, 85 start me again (preempted: saved; lost: a rank hung or died), anything else failed."""
    message: str = ""
    step: int | None = None
    """Optimizer steps done, if the writer knew it."""
    attempt: int = 0
    """Number of the lease."""
    time: str = ""
    unwritten_from: int | None = None
    """Only in `lease/`: the step of the first row of metrics.jsonl that could not be written, as on a full disk, or None."""


_OUTCOME = TypeAdapter(RunOutcome)
RESERVED_BYTES = 4096
"""Room that an attempt takes on the disk at its start, for its last word."""
MAX_DETAILS = 240
"""Most characters of what `summarize` adds to a first line."""
MORE_TELLING = ("killed", "lost", "refused", "failed", "preempted", "finished")
"""Of what several ranks say about the end of an attempt the last in this order is kept, and of equal words the first."""


def write_outcome(run_dir: Path, outcome: RunOutcome) -> None:
    """Replace the outcome of a run; on a full disk the older one stays. A folder that was removed is not made again."""
    if not run_dir.is_dir():
        return
    _write(RunFolder(run_dir).outcome, outcome)
    write_end(run_dir, outcome)


def reserve_end(run_dir: Path, *, attempt: int) -> None:
    """Take the room for the end of an attempt, so that it can still be written when the disk is full."""
    content = _encode(RunOutcome("running", None, attempt=attempt))
    with suppress(OSError):
        write_file(RunFolder(run_dir).end(attempt), content.ljust(RESERVED_BYTES - 1) + b"\n", durable=True)


def write_end(run_dir: Path, outcome: RunOutcome) -> None:
    """Keep how an attempt ended, unless it runs, has no number, or more is known already."""
    if outcome.outcome == "running" or not outcome.attempt or not run_dir.is_dir():
        return
    path = RunFolder(run_dir).end(outcome.attempt)
    before = _read(path)
    known = before.outcome if before is not None else "running"
    if known != "running" and MORE_TELLING.index(known) >= MORE_TELLING.index(outcome.outcome):
        return
    _write(path, replace(outcome, unwritten_from=before.unwritten_from if before else None))


def mark_unwritten(run_dir: Path, *, attempt: int, step: int | None) -> None:
    """Keep that rows of metrics.jsonl wait in memory since `step`, or, with None, that none do: a kill would lose them unseen."""
    path = RunFolder(run_dir).end(attempt)
    before = _read(path)
    if before is not None:
        _write(path, replace(before, unwritten_from=step))


def read_ends(run_dir: Path) -> dict[int, RunOutcome]:
    """How attempts ended, by their number; damaged files are left out."""
    return {end.attempt: end for end in _read_words(run_dir) if end.outcome != "running"}


def read_unwritten(run_dir: Path) -> dict[int, int]:
    """The attempts, ended or not, that could not write rows of metrics.jsonl, and the step of the first of these rows."""
    return {end.attempt: end.unwritten_from for end in _read_words(run_dir) if end.unwritten_from is not None}


def _read_words(run_dir: Path) -> list[RunOutcome]:
    return [end for path in RunFolder(run_dir).ends() if (end := _read(path))]


def _write(path: Path, outcome: RunOutcome) -> None:
    with suppress(OSError):
        try:
            write_file(path, _encode(outcome))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            overwrite(path, _encode(outcome, max_bytes=RESERVED_BYTES))


def _encode(outcome: RunOutcome, *, max_bytes: int | None = None) -> bytes:
    """An outcome as JSON; its message is cut where the whole would have more than `max_bytes`."""
    values = asdict(outcome) | {"time": outcome.time or datetime.now(UTC).isoformat(timespec="seconds")}
    if outcome.unwritten_from is None:
        del values["unwritten_from"]
    while len(content := f"{json.dumps(values, indent=1)}\n".encode()) > (max_bytes or math.inf) and values["message"]:
        values["message"] = values["message"][: len(values["message"]) // 2]
    return content


def has_begun(run_dir: Path) -> bool:
    """Whether there is the outcome of a run that began. It stays until another attempt begins, since that may be refused."""
    before = read_outcome(run_dir)
    return before is not None and (before.outcome == "finished" or RunFolder(run_dir).config.is_file())


def write_bad_end(run_dir: Path, outcome: RunOutcome, *, is_refusal: bool = False) -> None:
    """Write that a rank failed or lost its peers, unless the file belongs to another attempt.

    That is the case if it names a later attempt, if it says `running` and this rank has no number yet (attempt 0), or if the
    run is finished: an attempt that continues a finished run first sets the outcome to `running`. A lost peer is not news
    either where another rank of this attempt has said more. If the user can mend what is wrong (`is_refusal`) and the attempt had
    not begun, the run stays what it was, and only the attempt was refused.
    """
    before = read_outcome(run_dir)
    is_later = before is not None and (outcome.attempt == 0 or outcome.attempt > before.attempt)
    if is_refusal and is_later and has_begun(run_dir):
        write_end(run_dir, replace(outcome, outcome="refused"))
        return
    write_end(run_dir, outcome)
    if before is None:
        write_outcome(run_dir, outcome)
    elif before.outcome != "finished":
        if outcome.attempt == 0 and before.outcome != "running":
            # not of that attempt: this start ended before it became one
            _write(RunFolder(run_dir).outcome, replace(outcome, attempt=before.attempt))
        elif outcome.attempt >= max(before.attempt, 1) and not _says_more(before, than=outcome):
            write_outcome(run_dir, outcome)


def _says_more(before: RunOutcome, *, than: RunOutcome) -> bool:
    return before.attempt == than.attempt and than.outcome == "lost" and before.outcome in ("lost", "failed")


def read_outcome(run_dir: Path) -> RunOutcome | None:
    """How the run ended; None if there was none or the file is damaged."""
    return _read(RunFolder(run_dir).outcome)


def read_last_word(run_dir: Path) -> RunOutcome | None:
    """How the newest attempt ended, refused or not; None if it has not said so."""
    outcome = read_outcome(run_dir)
    newest = max((claim.number for claim in read_claims(run_dir) if claim.is_start), default=0)
    if outcome is not None and (outcome.attempt == 0 or outcome.attempt >= newest) and outcome.outcome != "running":
        return outcome
    return read_ends(run_dir).get(newest)


def summarize(message: str) -> str:
    """A message as one line: its first, and where others are indented below it, what each of them says first.

    So a list of what has changed keeps the names and the values.
    """
    first, *others = message.split("\n")
    said = [line.strip().partition(". ")[0] for line in others if line.startswith(" ") and line.strip()]
    details = "; ".join(said)
    if len(details) > MAX_DETAILS:
        details = f"{details[: MAX_DETAILS - 1].rstrip()}…"
    return f"{first.rstrip()} {details}" if details else first


def _read(path: Path) -> RunOutcome | None:
    try:
        outcome: RunOutcome = _OUTCOME.validate_json(read_bytes(path))
    except (OSError, ValidationError):
        return None
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of an attempt that a launcher has started, from how it ended."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m dstrain.run_folder.outcome")
    parser.add_argument("--code", type=int, required=True)
    parser.add_argument("--since", type=float, required=True)
    given, options = parser.parse_args(own), parse_arguments(training)
    try:
        outcome = read_last_word(Path(load_config(options.config, overrides=options.overrides).run_dir))
    except UserError:
        return int(given.code)
    if outcome is None or outcome.exit_code is None or not outcome.time:
        return int(given.code)
    is_new = datetime.fromisoformat(outcome.time).timestamp() >= given.since
    return outcome.exit_code if is_new else int(given.code)


if __name__ == "__main__":
    sys.exit(main())
