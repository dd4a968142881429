"""Why the attempt before this one ended, where its processes were killed before they could say so."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dstrain.attempt.rank_records import RankRecord
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.outcome import RunOutcome, read_ends, read_outcome, summarize, write_end


def keep_last_end(run_dir: Path, *, before: int, records: Sequence[RankRecord]) -> None:
    """Keep the end of the newest start before attempt `before`, unless it is known; `records` are what its ranks left."""
    claims = [claim for claim in read_claims(run_dir) if claim.is_start and claim.number < before]
    if not claims or claims[-1].released or claims[-1].number in read_ends(run_dir):
        return
    number = claims[-1].number
    outcome = read_outcome(run_dir)
    if outcome is None or outcome.attempt != number or outcome.outcome == "running":
        outcome = _find_kill(number, records=[record for record in records if record.attempt == number])
    write_end(run_dir, outcome)


def _find_kill(number: int, *, records: Sequence[RankRecord]) -> RunOutcome:
    if not records:
        return RunOutcome("killed", None, "it left no record: its ranks had not connected", attempt=number)
    last_sign = max(max(record.heartbeat, record.changed) for record in records)
    return RunOutcome(
        "killed",
        None,
        describe_kill(records),
        step=max((record.step for record in records if record.step is not None), default=None),
        attempt=number,
        time=_as_time(last_sign),
    )


def _as_time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # of a damaged record
        return ""


def describe_kill(records: Sequence[RankRecord]) -> str:
    """One line: the reasons that ranks recorded, or else what the ranks were doing last."""
    if reasons := [f"rank {record.rank}: {summarize(record.ended)}" for record in records if record.ended]:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return f"{reasons[0]}{more}"
    phases = Counter(record.tracks.get("main", "?") for record in records)
    listed = ", ".join(f"{count} in '{phase}'" for phase, count in phases.most_common())
    steps = [record.step for record in records if record.step is not None]
    where = f"after step {max(steps)}" if steps else "before the first step"
    return f"no rank recorded a reason; last seen {where}: {listed}"
