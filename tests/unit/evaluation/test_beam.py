"""Beam search on decoders small enough to follow by hand; test_decode compares it with transformers' `generate()`."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dstrain.evaluation.beam import NEVER, Beams, beam_search, best_continuations, extend
from dstrain.evaluation.decode import Rules, greedy_search

PAD, END, START, A, B, C = range(6)
RULES = Rules(
    start_id=START,
    forced_first_id=None,
    end_ids=(END,),
    forbidden_ids=(),
    pad_id=PAD,
    max_new_tokens=4,
    num_beams=2,
    length_penalty=0.0,
    renormalizes=False,
)
CPU = torch.device("cpu")
TRAP = {START: {A: 0.6, B: 0.4}, A: {END: 0.3, A: 0.25, B: 0.25, C: 0.2}, B: {END: 0.95, A: 0.05}, C: {END: 1.0}}
"""The likeliest first token leads to a worse hypothesis."""
PLAIN = {START: {C: 0.9, A: 0.1}, A: {END: 1.0}, B: {END: 1.0}, C: {C: 0.6, END: 0.4}}


class ChainDecoder:
    """A decoder whose next token depends on the source and on the last token alone; one table of probabilities a source."""

    def __init__(self, *tables: dict[int, dict[int, float]]) -> None:
        self._tables = tables
        self.sources = torch.arange(len(tables))
        self.num_held: list[int] = []

    def advance(self, token_ids: torch.Tensor) -> torch.Tensor:
        self.num_held.append(len(token_ids))
        pairs = zip(self.sources.tolist(), token_ids.tolist(), strict=True)
        rows = [
            [self._tables[source].get(token, {END: 1.0}).get(each, 0.0) for each in range(6)] for source, token in pairs
        ]
        return torch.tensor(rows)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return states.clamp_min(1e-9).log()

    def select(self, hypotheses: torch.Tensor, *, sources: torch.Tensor | None) -> None:
        self.sources = self.sources[hypotheses]


def search(*tables: dict[int, dict[int, float]], **changes: Any) -> list[list[int]]:
    decoder: Any = ChainDecoder(*tables)
    found = beam_search(decoder, rules=replace(RULES, **changes), num_rows=len(tables), device=CPU)
    return [[token for token in row if token != PAD] for row in found.tolist()]


def test_a_better_hypothesis_is_found_behind_a_less_likely_first_token() -> None:
    decoder: Any = ChainDecoder(TRAP)
    greedy = greedy_search(decoder, rules=replace(RULES, num_beams=1), num_rows=1, device=CPU)
    assert greedy[0, :3].tolist() == [START, A, END]
    assert search(TRAP) == [[START, B, END]]


def test_sources_of_a_batch_do_not_disturb_each_other() -> None:
    alone = [search(TRAP), search(PLAIN)]
    assert alone[0] != alone[1]
    assert search(TRAP, PLAIN, PLAIN, TRAP) == [*alone[0], *alone[1], *alone[1], *alone[0]]


def test_the_first_step_is_computed_once_per_source() -> None:
    decoder: Any = ChainDecoder(TRAP, PLAIN)
    beam_search(decoder, rules=RULES, num_rows=2, device=CPU)
    assert decoder.num_held[:2] == [2, 4]


def test_forbidden_tokens_are_never_chosen_and_a_forced_one_always_is() -> None:
    assert search(TRAP, forbidden_ids=(B,)) == [[START, A, END]]
    assert search(TRAP, forced_first_id=C) == [[START, C, END]]


def test_the_length_cap_ends_a_hypothesis_without_an_end_token() -> None:
    endless = {START: {A: 1.0}, A: {A: 1.0}}
    assert search(endless, max_new_tokens=3) == [[START, A, A, A]]


def build_beams(*, num_beams: int = 2) -> Beams:
    """One source after its start token."""
    running = torch.full((1, num_beams, 5), PAD)
    running[:, :, 0] = START
    return Beams(
        rows=torch.tensor([0]),
        running=running,
        running_scores=torch.zeros(1, num_beams),
        ended=running.clone(),
        ended_scores=torch.full((1, num_beams), NEVER),
        is_ended=torch.zeros(1, num_beams, dtype=torch.bool),
        is_open=torch.ones(1, 1, dtype=torch.bool),
    )


@pytest.mark.parametrize("num_beams", [1, 2])
def test_the_best_continuations_are_those_of_all_beams_and_tokens(num_beams: int) -> None:
    generator = torch.Generator().manual_seed(num_beams)
    log_probs = torch.log_softmax(torch.randn(3, num_beams, 9, generator=generator), dim=-1)
    running = torch.randn(3, 2, generator=generator)
    scores, origins, tokens = best_continuations(log_probs, running, rules=RULES)
    assert scores.shape == origins.shape == tokens.shape == (3, 4)
    for source in range(3):
        every = sorted(
            (
                (float(log_probs[source, beam, token] + running[source, beam]), beam, token)
                for beam, token in itertools.product(range(num_beams), range(9))
            ),
            reverse=True,
        )[:4]
        assert scores[source].tolist() == pytest.approx([score for score, _, _ in every])
        assert [*zip(origins[source].tolist(), tokens[source].tolist(), strict=True)] == [each[1:] for each in every]


def extend_once(beams: Beams, scores: list[float], choices: list[int], *, place: int = 1, **changes: Any) -> list[int]:
    origins = extend(
        beams,
        scores=torch.tensor([scores]),
        origins=torch.tensor([[0, 1, 0, 1]]),
        choices=torch.tensor([choices]),
        ends=torch.tensor([END]),
        place=place,
        rules=replace(RULES, **changes),
    )
    found: list[int] = origins[0].tolist()
    return found


def test_candidates_with_an_end_token_end_and_the_best_others_keep_running() -> None:
    beams = build_beams()
    assert extend_once(beams, [-1.0, -2.0, -3.0, -4.0], [A, END, B, C]) == [0, 0]
    assert beams.running[0, :, 1].tolist() == [A, B]
    assert beams.running_scores[0].tolist() == [-1.0, -3.0]
    assert (beams.is_ended[0].tolist(), float(beams.ended_scores[0, 0])) == ([True, False], -2.0)
    assert beams.ended[0, 0, :2].tolist() == [START, END]


def test_an_end_counts_only_among_the_best_of_as_many_candidates_as_beams() -> None:
    beams = build_beams()
    extend_once(beams, [-1.0, -2.0, -3.0, -4.0], [A, B, END, C])
    assert beams.is_ended[0].tolist() == [False, False]


def test_a_source_is_closed_when_no_running_hypothesis_can_beat_its_worst_ended_one() -> None:
    beams = build_beams()
    extend_once(beams, [-1.0, -2.0, -3.0, -4.0], [END, END, A, B])
    assert not bool(beams.is_open)
    beams = build_beams()
    extend_once(beams, [-1.0, -2.0, -3.0, -4.0], [END, A, END, B])
    assert bool(beams.is_open)


def test_at_the_length_cap_every_candidate_ends() -> None:
    beams = build_beams()
    extend_once(beams, [-1.0, -2.0, -3.0, -4.0], [A, B, C, A], place=4)
    assert beams.is_ended[0].tolist() == [True, True]
    assert beams.ended[0, :, 4].tolist() == [A, B]


def test_a_longer_hypothesis_has_its_score_divided_by_the_power_of_its_length() -> None:
    beams = build_beams()
    extend_once(beams, [-1.0, -6.0, -7.0, -8.0], [A, END, B, C], place=3, length_penalty=2.0)
    assert float(beams.ended_scores[0, 0]) == pytest.approx(-6.0 / 9)
    assert not math.isinf(float(beams.running_scores.sum()))


def test_a_selection_of_sources_keeps_every_field_of_them() -> None:
    one, other = build_beams(), build_beams()
    other.rows, other.running_scores = torch.tensor([7]), torch.tensor([[-1.0, -2.0]])
    both = Beams(*(torch.cat([getattr(one, name), getattr(other, name)]) for name in Beams.__slots__))
    selected = both.select(torch.tensor([1]))
    for name in Beams.__slots__:
        assert torch.equal(getattr(selected, name), getattr(other, name)), name
