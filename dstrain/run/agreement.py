"""All ranks of a run must have been started alike: a stale recipe on one node would train replicas that drift apart.

Knows what a rank was started with; not how ranks meet.
"""

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from dstrain.cluster.process_group import Ranks
from dstrain.config.differences import differences
from dstrain.config.section import Section
from dstrain.errors import UserError
from dstrain.run.info import list_versions

MAX_NAMED = 3
"""Most keys that are named in the message."""

Start = Mapping[str, Any]
"""What a rank was started with: `host`, `recipe`, `options` and `versions` of packages."""


def check_same_start(config: Section, *, options: Mapping[str, Any], ranks: Ranks) -> None:
    """Check that all ranks have the same recipe, options and packages; a collective call.

    Raises:
        UserError: they have not; on every rank.
    """
    own = {
        "host": socket.gethostname(),
        "recipe": config.model_dump(mode="json"),
        "options": dict(options),
        "versions": list_versions(config),
    }
    starts = ranks.gather(own, dict[str, Any])
    refusal = ranks.broadcast(find_difference(starts) if starts is not None else None, str | None)
    if refusal is not None:
        raise UserError(refusal)


def find_difference(starts: Sequence[Start]) -> str | None:
    """In what the first rank that differs from rank 0 was started differently, and the way out; None if all are alike."""
    first = starts[0]
    for rank, start in enumerate(starts):
        for name, remedy in (
            ("recipe", "give every rank the same recipe and the same key=value"),
            ("options", "give every rank the same options"),
            ("versions", "install the same packages on every node"),
        ):
            if found := list(differences(first[name], start[name])):
                named = [
                    f"{key} is {_text(there)}, and {_text(here)} on rank 0" for key, here, there in found[:MAX_NAMED]
                ]
                more = f"; {len(found) - MAX_NAMED} more differ" if len(found) > MAX_NAMED else ""
                return f"rank {rank} on {start['host']} was started differently: {'; '.join(named)}{more}. To go on, {remedy}"
    return None


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
