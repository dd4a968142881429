"""Scores of parses and lengths against hand-computed tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dstrain.evaluation.metrics import (
    Score,
    length_scores,
    one_line,
    parsing_scores,
)
from dstrain.tasks.parsing import to_pointer


def values(scores: list[Score]) -> dict[str, float]:
    return {score.name: score.value for score in scores}


def test_an_empty_corpus_and_uneven_sides_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.eval"):
        parsing_scores([], [], hypothesis_ids=[], reference_ids=[])
    with pytest.raises(ValueError, match="found 2 and 1"):
        parsing_scores(["a", "b"], ["a"], hypothesis_ids=[], reference_ids=[])


def test_a_text_is_one_line_whatever_line_breaks_it_has() -> None:
    assert one_line("  a\r\nb\u2028c\x85d\n") == "a b c d"
    assert one_line("\n") == ""
    assert len(one_line("".join(map(chr, range(0x3100)))).splitlines()) == 1


def test_exact_match_of_a_hand_computed_table() -> None:
    sources = ["call Ann now", "call Ann now", "wake me at seven", "wake me at seven", "call Ann now"]
    parses = [
        "[IN:CREATE_CALL [SL:CONTACT Ann ] ]",
        "[IN:CREATE_CALL [SL:CONTACT Ann ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME at seven ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME at seven ] ]",
        "[IN:CREATE_CALL [SL:CONTACT Ann ] ]",
    ]
    references = [
        "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]",
        "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME <pt-2> <pt-3> ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME <pt-2> <pt-3> ] ]",
        "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]",
    ]
    hypotheses = [
        "[IN:CREATE_CALL[SL:CONTACT<pt-1> ] ]",  # right, decoded without spaces
        "[IN:CREATE_CALL [SL:CONTACT <pt-0> ] ]",  # a different word
        "[IN:CREATE_ALARM [SL:DATE_TIME <pt-2> <pt-3> ]",  # one bracket is missing
        "[IN:CREATE_ALARM [SL:DATE_TIME at seven ] ]",  # words in place of pointers: right once the pointers are undone
        "[IN:CREATE_CALL [SL:CONTACT <pt-9> ] ]",  # beyond the utterance
    ]
    ids = [[1, 2, 3, 4, 4], [1, 2, 3, 4, 4], [5, 6, 7, 8, 4, 4], [5, 6, 7, 8, 4, 4], [1, 2, 3, 4, 4]]
    hypothesis_ids = [[1, 2, 3, 4, 4], [1, 2, 9, 4, 4], [5, 6, 7, 8, 4], [5, 6, 10, 11, 4, 4], [1, 2, 12, 4, 4]]
    scores = parsing_scores(
        hypotheses, references, hypothesis_ids=hypothesis_ids, reference_ids=ids, sources=sources, parses=parses
    )
    assert values(scores) == {
        "exact_match": 1 / 5,
        "exact_match_tokens": 1 / 5,
        "exact_match_disagreements": 0,
        "exact_match_parse": 2 / 5,
        "valid_brackets": 4 / 5,
    }
    assert all(score.signature is None for score in scores)


def test_rows_on_which_text_and_tokens_disagree_are_counted() -> None:
    parse = "[IN:GET_WEATHER ]"
    scores = parsing_scores(
        [parse, "[IN:GET_WEATHER]", parse],
        [parse, parse, "[IN:GET_INFO ]"],
        hypothesis_ids=[[1, 2], [1, 3], [1, 2]],  # the second spells the bracket with another piece
        reference_ids=[[1, 2], [1, 2], [1, 2]],
    )
    assert values(scores)["exact_match_disagreements"] == 2
    assert values(scores)["exact_match"] == values(scores)["exact_match_tokens"] == 2 / 3


def test_the_plain_form_has_no_pointers_to_undo() -> None:
    scores = parsing_scores(["[IN:A ]"], ["[IN:A ]"], hypothesis_ids=[[1]], reference_ids=[[1]])
    assert "exact_match_parse" not in values(scores)


def test_lengths_and_the_share_of_truncated_hypotheses_are_means_over_rows() -> None:
    scores = length_scores([3, 5, 10, 10], was_cut=[False, False, False, True])
    assert values(scores) == {"gen_len": 7.0, "hit_cap_rate": 0.25}
    with pytest.raises(ValueError, match=r"data\.eval"):
        length_scores([], was_cut=[])


def test_the_exact_match_of_a_real_reference_with_itself_is_one() -> None:
    parse = "[IN:GET_MESSAGE [SL:CONTACT <pt-1> <pt-2> ] [SL:TYPE_CONTENT <pt-3> ] [SL:RECIPIENT <pt-4> ] ]"
    source = "Has Angelika Kratzer video me ssaged me?"
    scores = parsing_scores(
        [parse],
        [parse],
        hypothesis_ids=[[1]],
        reference_ids=[[1]],
        sources=[source],
        parses=["[IN:GET_MESSAGE [SL:CONTACT Angelika Kratzer ] [SL:TYPE_CONTENT video ] [SL:RECIPIENT me ] ]"],
    )
    assert values(scores)["exact_match_parse"] == values(scores)["valid_brackets"] == 1.0


@pytest.mark.real_data
def test_every_real_parse_matches_itself_although_decoding_removed_its_spaces(real_data: Path) -> None:
    rows = [line.split("\t") for line in (real_data / "mtop" / "eval.tsv").read_text(encoding="utf-8").splitlines()]
    pairs = [to_pointer(utterance, parse=parse) for utterance, parse in rows]
    ids = [[number] for number in range(len(rows))]
    scores = parsing_scores(
        [re.sub(r" (?=[\[<])|(?<=>) ", "", pair.target) for pair in pairs],
        [pair.target for pair in pairs],
        hypothesis_ids=ids,
        reference_ids=ids,
        sources=[pair.source for pair in pairs],
        parses=[parse for _, parse in rows],
    )
    assert len(rows) == 2235
    assert values(scores) == {
        "exact_match": 1.0,
        "exact_match_tokens": 1.0,
        "exact_match_disagreements": 0.0,
        "exact_match_parse": 1.0,
        "valid_brackets": 1.0,
    }


def test_metrics_need_no_torch() -> None:
    code = "import sys, dstrain.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
