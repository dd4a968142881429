"""How many texts of the evaluation a small tokenizer segments as the whole one does, language by language."""

from pathlib import Path

from dstrain.data.examples import Example
from dstrain.models.scratch import write_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from dstrain.models.trim import trim_tokenizer
from dstrain.run.trim import _check_examples
from tests.unit.models.tiny_models import LANGUAGES, PAIRS, TEXTS


def test_the_texts_of_each_pair_of_languages_are_compared_in_their_own(tmp_path: Path) -> None:
    first, second = LANGUAGES["m2m100"]
    write_tokenizer(
        "m2m100",
        vocabulary_size=400,
        texts=TEXTS,
        languages=[first, second],
        task_tokens=(),
        folder=tmp_path / "whole",
    )
    tokenizer = load_tokenizer(str(tmp_path / "whole"))
    examples = []
    for number, (source, target) in enumerate(PAIRS[:4]):
        pair = (first, second) if number % 2 else (second, first)
        examples.append(Example(source, target, source, target, *pair, None, f"x.tsv:{number}"))
    ids = list(range(tokenizer.vocabulary_size))
    trimmed = trim_tokenizer(tokenizer, ids=ids, folder=tmp_path / "small")
    assert _check_examples(examples, tokenizer=tokenizer, trimmed=trimmed, ids=ids) == 2 * len(examples)
