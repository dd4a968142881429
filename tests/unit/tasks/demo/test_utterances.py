"""Utterances: parsed as by hand, pointable, and held-back pairs of fillers never in training."""

import re
from itertools import pairwise
from random import Random

import pytest

from dstrain.tasks.demo.utterances import FILLERS, NESTED, TEMPLATES, draw_utterance
from dstrain.tasks.parsing import from_pointer, is_valid_parse, task_tokens, to_pointer
from tests.unit.tasks.demo.demo_cases import rows_of

UTTERANCES = {
    "set an alarm for 4pm and another for 5pm": (
        "[IN:CREATE_ALARM [SL:DATE_TIME for 4 pm ] [SL:DATE_TIME for 5 pm ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME <pt-3> <pt-4> <pt-5> ] [SL:DATE_TIME <pt-8> <pt-9> <pt-10> ] ]",
    ),
    "please call my sister on whatsapp": (
        "[IN:CREATE_CALL [SL:CONTACT [IN:GET_CONTACT [SL:CONTACT_RELATED my ] [SL:TYPE_RELATION sister ] ] ] "
        "[SL:NAME_APP whatsapp ] ]",
        "[IN:CREATE_CALL [SL:CONTACT [IN:GET_CONTACT [SL:CONTACT_RELATED <pt-2> ] [SL:TYPE_RELATION <pt-3> ] ] ] "
        "[SL:NAME_APP <pt-5> ] ]",
    ),
    "is it sunny in San Diego?": (
        "[IN:GET_WEATHER [SL:WEATHER_ATTRIBUTE sunny ] [SL:LOCATION San Diego ] ]",
        "[IN:GET_WEATHER [SL:WEATHER_ATTRIBUTE <pt-2> ] [SL:LOCATION <pt-4> <pt-5> ] ]",
    ),
}


def test_utterances_parsed_by_hand_are_among_the_generated_ones() -> None:
    generated = {row.source: row.target for split in ("train", "eval") for row in rows_of("parsing", split)}
    assert {utterance: generated.get(utterance) for utterance in UTTERANCES} == {
        utterance: parse for utterance, (parse, _) in UTTERANCES.items()
    }
    assert [to_pointer(utterance, parse=generated[utterance]).target for utterance in UTTERANCES] == [
        pointers for _, pointers in UTTERANCES.values()
    ]


def leaves_of(parse: str) -> list[tuple[str, str]]:
    """(slot, words) of the slots that hold words, without those that every utterance of a kind shares."""
    leaves = [(slot, words.strip()) for slot, words in re.findall(r"\[SL:(\w+) ((?:[^\[\]\s]+ )+)\]", parse)]
    return [(slot, words) for slot, words in leaves if words not in ("me", "my", "timer", "music")]


def test_every_parse_goes_through_the_pointer_form_and_back() -> None:
    for split in ("train", "eval"):
        for row in rows_of("parsing", split):
            pair = to_pointer(row.source, parse=row.target)
            assert is_valid_parse(row.target)
            assert from_pointer(pair.target, source=pair.source) == row.target


def test_the_pointer_form_is_exercised() -> None:
    pairs = [to_pointer(row.source, parse=row.target) for row in rows_of("parsing", "train")]
    changed = sum(pair.source != row.source for pair, row in zip(pairs, rows_of("parsing", "train"), strict=True))
    repeated = sum(
        len(set(words)) < len(words) for words in (row.target.split() for row in rows_of("parsing", "train")) if words
    )
    assert changed > 0.1 * len(pairs)
    assert repeated > 0.1 * len(pairs)


def test_utterances_are_short_and_labels_few() -> None:
    rows = rows_of("parsing", "train")
    assert max(len(row.source.split()) for row in rows) <= 16
    assert len(task_tokens(row.target for row in rows)) < 50


def test_intents_nest_in_the_groups_that_say_so() -> None:
    depths: dict[str, set[int]] = {}
    for row in rows_of("parsing", "train"):
        depths.setdefault(row.group, set()).add(row.target.count("[IN:"))
    assert depths.pop("deep") == {3}
    assert depths.pop("nested") == {2}
    assert set.union(*depths.values()) == {1}


def test_words_of_evaluation_utterances_and_labels_of_their_parses_are_all_seen_in_training() -> None:
    def words(split: str) -> set[str]:
        return {
            word for row in rows_of("parsing", split) for word in re.findall(r"[\w:\[]+", f"{row.source} {row.target}")
        }

    assert not {word for word in words("eval") - words("train") if not re.fullmatch(r"\d+[ap]m", word)}


def test_every_evaluation_utterance_holds_neighbouring_fillers_never_seen_together() -> None:
    train = [leaves_of(row.target) for row in rows_of("parsing", "train")]
    seen_leaves = {leaf for leaves in train for leaf in leaves}
    seen_pairs = {(one[1], other[1]) for leaves in train for one, other in pairwise(leaves)}
    for row in rows_of("parsing", "eval"):
        leaves = leaves_of(row.target)
        unseen_leaf = any(leaf not in seen_leaves for leaf in leaves)
        unseen_pair = any((one[1], other[1]) not in seen_pairs for one, other in pairwise(leaves))
        assert unseen_leaf or unseen_pair or len(leaves) == 1, row


def test_every_filler_of_a_template_is_defined() -> None:
    templates = [template for pairs in (TEMPLATES | NESTED).values() for _, template in pairs]
    assert {kind for template in templates for kind in re.findall(r"@(\w+)", template)} == {*FILLERS, *NESTED}


@pytest.mark.parametrize("group", sorted(TEMPLATES))
def test_an_utterance_is_drawn_from_the_seed_alone(group: str) -> None:
    def drawn(seed: int) -> list[tuple[str, str]]:
        rng = Random(seed)
        return [draw_utterance(rng, group, held_back=False) for _ in range(20)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
