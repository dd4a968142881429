"""The metrics that any task may ask for by `evaluation.metrics`: a table from their names to functions. Works on texts alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF, TER

from dstrain import __version__
from dstrain.evaluation.metrics import Score, check_pairs, mean_score, one_line
from dstrain.evaluation.overlap import rouge_f1, token_f1


@dataclass(frozen=True, slots=True)
class Corpus:
    """Hypotheses, each with one reference or more."""

    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]
    bleu_tokenizer: str = "13a"


def text_scores(corpus: Corpus, *, wanted: Sequence[str]) -> list[Score]:
    """The scores of a corpus that these items of `evaluation.metrics` ask for, with their signatures.

    They are computed on `one_line` of each text, which is what the files hold. Raises UserError for an empty corpus, ValueError
    for sides of different length.
    """
    check_pairs(corpus.hypotheses, corpus.references)
    lines = [one_line(text) for text in corpus.hypotheses]
    answers = [[one_line(text) for text in texts] for texts in corpus.references]
    return [score for name in wanted for score in _FUNCTIONS[name](Corpus(lines, answers, corpus.bleu_tokenizer))]


def reference_columns(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """References by row as columns of one length, as sacreBLEU reads them: the first of every row, the second, and so on.

    A row with fewer repeats its first, which changes no score; sacreBLEU's command has no way to leave a reference out.
    """
    num_columns = max(map(len, references))
    return [
        [texts[column] if column < len(texts) else texts[0] for texts in references] for column in range(num_columns)
    ]


def _by_sacrebleu(name: str, metric: BLEU | CHRF | TER, corpus: Corpus) -> list[Score]:
    # the two steps of sacreBLEU's `corpus_score`, which does not return the counts of each row
    rows = metric._extract_corpus_statistics(corpus.hypotheses, reference_columns(corpus.references))
    return [Score(name, float(metric._aggregate_and_compute(rows).score), str(metric.get_signature()), rows)]


def _bleu(corpus: Corpus) -> list[Score]:
    """BLEU, 0 to 100 (Papineni et al. 2002, Post 2018)."""
    # `force` only silences sacreBLEU's warning that the text looks tokenised already
    return _by_sacrebleu("bleu", BLEU(tokenize=corpus.bleu_tokenizer, force=True), corpus)


def _chrf(corpus: Corpus) -> list[Score]:
    """chrF, 0 to 100 (Popović 2015)."""
    return _by_sacrebleu("chrf", CHRF(), corpus)


def _ter(corpus: Corpus) -> list[Score]:
    """TER, errors per 100 words of the reference (Snover et al. 2006)."""
    return _by_sacrebleu("ter", TER(), corpus)


def _rouge(corpus: Corpus) -> list[Score]:
    signature = f"f1|case:lc|words:unicode|stem:no|dstrain:{__version__}"
    found = rouge_f1(corpus.hypotheses, corpus.references)
    return [mean_score(name, rows, signature=signature) for name, rows in found.items()]


def _token_f1(corpus: Corpus) -> list[Score]:
    signature = f"squad|words:unicode|dstrain:{__version__}"
    return [mean_score("token_f1", token_f1(corpus.hypotheses, corpus.references), signature=signature)]


def _exact_match(corpus: Corpus) -> list[Score]:
    pairs = zip(corpus.hypotheses, corpus.references, strict=True)
    return [mean_score("exact_match", [text in texts for text, texts in pairs])]


def _accuracy(corpus: Corpus) -> list[Score]:
    def bare(text: str) -> str:
        return " ".join(text.casefold().split())

    pairs = zip(corpus.hypotheses, corpus.references, strict=True)
    return [mean_score("accuracy", [bare(text) in map(bare, texts) for text, texts in pairs])]


_FUNCTIONS: Mapping[str, Callable[[Corpus], list[Score]]] = {
    "bleu": _bleu,
    "chrf": _chrf,
    "ter": _ter,
    "rouge": _rouge,
    "token_f1": _token_f1,
    "exact_match": _exact_match,
    "accuracy": _accuracy,
}
"""Item of `evaluation.metrics` -> its function."""
