"""The second search of a pointer form that cuts sources by their references: the same utterances as users type them.

Only rows whose source the reference cut are searched again. Owns the score of these hypotheses and what is said about it; does
not know how they are generated.
"""

from collections.abc import Sequence
from dataclasses import replace

from dstrain.data.examples import Example
from dstrain.data.tokens import TokenSet
from dstrain.evaluation.generate import Batch, plan_batches
from dstrain.tasks.parsing import as_typed, from_pointer

TYPED_SCORE = "exact_match_typed"


def plan_typed_batches(
    batches: Sequence[Batch], *, tokens: TokenSet, batch_size: int | None, max_tokens: int
) -> list[Batch]:
    """Batches of the rows in `batches` whose source the reference cut, numbered on from them; none for other token sets.

    `batch_size` and `max_tokens` are those of `plan_batches`.
    """
    if tokens.typed is None:
        return []
    planned = {row for batch in batches for row in batch.rows}
    rows = [row for row in tokens.cut_rows if row in planned]
    found = plan_batches(
        [tokens.typed.source_lengths[row] for row in rows],
        languages=[tokens.examples[row].target_language for row in rows],
        batch_size=batch_size,
        max_tokens=max_tokens,
    )
    return [
        replace(batch, index=len(batches) + batch.index, rows=tuple(rows[place] for place in batch.rows))
        for batch in found
    ]


def is_typed_match(hypothesis: str, *, example: Example) -> bool:
    """Whether a hypothesis for the utterance as typed equals the parse in the data after pointers are replaced by words."""
    return from_pointer(hypothesis, source=as_typed(example.raw_source)).split() == example.raw_target.split()


def find_typed_warning(*, num_cut: int, num_rows: int) -> str:
    """What a reader of the other scores should know."""
    return (
        f"task.segmentation `published` cut {num_cut} of {num_rows} evaluation sources at the words of their references, "
        f"which no new utterance has: `{TYPED_SCORE}` is the score on the same utterances as typed"
    )
