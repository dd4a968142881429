"""The example of a metric of one's own."""

from dstrain.tasks.demo.metric import left_alone


def test_right_sentences_count_and_no_others() -> None:
    sources = ["a b", "a  b", "c d", "e"]
    references = [["a b"], ["a b"], ["x", "c d"], ["f"]]
    assert left_alone(["a b", "a b", "c", "e"], references, sources) == 0.5
    assert left_alone(["f"], [["f"]], ["e"]) is None
