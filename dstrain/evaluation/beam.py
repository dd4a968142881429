"""Beam search with the hypotheses of transformers' `generate()`. Owns the beams of every source; does not know how a
decoder computes.

The arithmetic follows `_beam_search` of transformers' generation/utils.py, for `early_stopping=False`, number for number. It
differs in three points: a source leaves the batch once none of its running hypotheses can win, the first step is computed
once per source, and candidates are chosen within each beam before they are compared across beams.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dstrain.evaluation.decode import Decoder, Rules, num_candidates, should_compact

NEVER = -1.0e9
"""Added to the score of what must not be chosen, as transformers does: forbidden candidates keep their order."""


@dataclass(slots=True)
class Beams:
    """The state of all sources still in the batch: running and ended hypotheses, each best first.

    running and ended are `[sources, beams, 1 + max_new_tokens]` tokens, their scores `[sources, beams]`.
    """

    rows: Tensor
    """Index of each source in the full batch, `[sources]`."""
    running: Tensor
    running_scores: Tensor
    ended: Tensor
    ended_scores: Tensor
    is_ended: Tensor
    """Whether an entry of `ended` holds a hypothesis, `[sources, beams]`."""
    is_open: Tensor
    """Whether a running hypothesis may still beat the worst ended one, `[sources, 1]`."""

    def select(self, sources: Tensor) -> "Beams":
        """The same for these sources alone."""
        return Beams(*(getattr(self, name)[sources] for name in self.__slots__))


def beam_search(decoder: Decoder, *, rules: Rules, num_rows: int, device: torch.device) -> Tensor:
    """The best hypothesis of every source: `[rows, 1 + max_new_tokens]`, start token, tokens, end token, padding."""
    return search_beams(decoder, rules=rules, num_rows=num_rows, device=device, num_best=1)[0][:, 0]


def search_beams(
    decoder: Decoder, *, rules: Rules, num_rows: int, device: torch.device, num_best: int
) -> tuple[Tensor, Tensor]:
    """The hypotheses of every source, best first, `[rows, num_best, 1 + max_new_tokens]`, and their scores `[rows, num_best]`.

    A score is the sum of the tokens' log-probabilities divided by their number to the power of the length penalty, as
    `sequences_scores` of `generate()`; at most NEVER where a source has fewer hypotheses.
    """
    best = torch.full((num_rows, num_best, 1 + rules.max_new_tokens), rules.pad_id, device=device)
    best_scores = torch.full((num_rows, num_best), NEVER, device=device)
    beams = _begin(rules, num_rows=num_rows, device=device)
    ends, forbidden = (
        torch.tensor(ids, dtype=torch.int64, device=device) for ids in (rules.end_ids, rules.forbidden_ids)
    )
    tokens = beams.running[:, 0, 0]
    num_distinct = 1  # all beams of a source begin with the same tokens: until they differ, one is computed
    for place in range(1, 1 + rules.max_new_tokens):
        states = decoder.advance(tokens)
        if place == 1 and rules.forced_first_id is not None:
            beams.running[:, :, 1] = tokens = torch.full_like(beams.running[:, :, 0], rules.forced_first_id)
            tokens = tokens[:, 0]
            continue
        log_probs = torch.log_softmax(decoder.logits(states), dim=-1)
        log_probs.index_fill_(1, forbidden, -torch.inf)
        if rules.renormalizes:
            log_probs = torch.log_softmax(log_probs, dim=-1)
        scores, origins, choices = best_continuations(
            log_probs.view(len(beams.rows), num_distinct, -1), beams.running_scores, rules=rules
        )
        kept = extend(beams, scores=scores, origins=origins, choices=choices, ends=ends, place=place, rules=rules)
        if place == rules.max_new_tokens:
            break
        num_left = int(beams.is_open.sum())
        if num_left == 0:
            break
        parents = kept + num_distinct * torch.arange(len(beams.rows), device=device)[:, None]
        sources = None
        if should_compact(num_left, num_held=len(beams.rows)):
            # final for the sources that leave the batch
            best[beams.rows], best_scores[beams.rows] = beams.ended[:, :num_best], beams.ended_scores[:, :num_best]
            sources = beams.is_open.flatten().nonzero().flatten()
            beams, parents = beams.select(sources), parents[sources]
        decoder.select(parents.flatten(), sources=sources)
        tokens, num_distinct = beams.running[:, :, place].flatten(), rules.num_beams
    best[beams.rows], best_scores[beams.rows] = beams.ended[:, :num_best], beams.ended_scores[:, :num_best]
    return best, best_scores


def _begin(rules: Rules, *, num_rows: int, device: torch.device) -> Beams:
    shape = (num_rows, rules.num_beams)
    running = torch.full((*shape, 1 + rules.max_new_tokens), rules.pad_id, device=device)
    running[:, :, 0] = rules.start_id
    return Beams(
        rows=torch.arange(num_rows, device=device),
        running=running,
        running_scores=torch.zeros(shape, device=device),
        ended=running.clone(),
        ended_scores=torch.full(shape, NEVER, device=device),
        is_ended=torch.zeros(shape, dtype=torch.bool, device=device),
        is_open=torch.ones((num_rows, 1), dtype=torch.bool, device=device),
    )


def best_continuations(log_probs: Tensor, running_scores: Tensor, *, rules: Rules) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, beams of origin and tokens of each source's best continuations, best first: `[sources, candidates]` each.

    log_probs is `[sources, beams, vocabulary]`, with one beam as long as all beams are the same. The best continuations of
    a source are among the best of each of its beams.
    """
    num_beams = log_probs.shape[1]
    count = num_candidates(rules.num_beams, num_ends=len(rules.end_ids))
    values, tokens = torch.topk(log_probs, k=count)
    values = values + running_scores[:, :num_beams, None]
    scores, places = torch.topk(values.flatten(1), k=count)
    return scores, places // count, tokens.flatten(1).gather(1, places)


def extend(
    beams: Beams, *, scores: Tensor, origins: Tensor, choices: Tensor, ends: Tensor, place: int, rules: Rules
) -> Tensor:
    """Update `beams` with the candidates `[sources, candidates]`: each ends or keeps running.

    `place` is the position of the candidates' last token. Returns the beam that each running hypothesis extends,
    `[sources, beams]`.
    """
    candidates = _take(beams.running, origins)
    candidates[:, :, place] = choices
    is_cut = place == rules.max_new_tokens
    does_end = torch.ones_like(choices, dtype=torch.bool) if is_cut else torch.isin(choices, ends)
    running = scores + does_end.float() * NEVER
    chosen = torch.topk(running, k=rules.num_beams)[1]

    is_among_best = torch.arange(scores.shape[1], device=scores.device) < rules.num_beams
    ends_now = does_end & is_among_best
    final = scores / (place**rules.length_penalty)
    final += (~beams.is_open).float() * NEVER
    final += (~ends_now) * NEVER
    merged_scores = torch.cat((beams.ended_scores, final), dim=1)
    best = torch.topk(merged_scores, k=rules.num_beams)[1]
    beams.ended = _take(torch.cat((beams.ended, candidates), dim=1), best)
    beams.ended_scores = _take(merged_scores, best)
    beams.is_ended = _take(torch.cat((beams.is_ended, ends_now), dim=1), best)

    beams.running, beams.running_scores = _take(candidates, chosen), _take(running, chosen)
    # the best score that a running hypothesis would have if it ended here: the heuristic of `early_stopping=False`
    best_possible = beams.running_scores[:, :1] / (place**rules.length_penalty)
    worst = torch.where(beams.is_ended, beams.ended_scores.amin(dim=1, keepdim=True), NEVER)
    beams.is_open = beams.is_open & (best_possible > worst).any(dim=-1, keepdim=True)
    return origins.gather(1, chosen)


def _take(values: Tensor, places: Tensor) -> Tensor:
    """Entries of `[sources, n, ...]` at `[sources, m]`."""
    return values.take_along_dim(places if values.ndim == 2 else places[:, :, None], dim=1)
