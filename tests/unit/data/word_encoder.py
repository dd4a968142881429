"""A small tokenizer and rows for it, for the tests of this room."""

from collections.abc import Sequence

from dstrain.data.examples import Example

PAD_ID, UNKNOWN_ID, END_ID, FIRST_LANGUAGE_ID, FIRST_WORD_ID = 0, 1, 2, 3, 10


class WordEncoder:
    """An id for every known word, the language's id in front where there is one, the end behind."""

    def __init__(self, words: str, *, languages: Sequence[str] = ("ko", "en", "de")) -> None:
        self.words = {word: FIRST_WORD_ID + place for place, word in enumerate(words.split())}
        self.languages = list(languages)
        self.unk_token_id: int | None = UNKNOWN_ID
        self.num_calls = 0

    @property
    def fingerprint(self) -> str:
        return " ".join([*self.words, *self.languages])

    @property
    def vocabulary_size(self) -> int:
        return 1 + max(self.words.values())

    def encode(
        self, sources: list[str], targets: list[str], *, source_language: str | None, target_language: str | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        self.num_calls += 1
        return [self._ids(s, source_language) for s in sources], [self._ids(t, target_language) for t in targets]

    def decode(self, ids: list[int]) -> str:
        spelt = {i: word for word, i in self.words.items()}
        return " ".join(spelt.get(i, "<unk>") for i in ids if i == UNKNOWN_ID or i in spelt)

    def is_empty(self, ids: list[int]) -> bool:
        return all(i == END_ID or FIRST_LANGUAGE_ID <= i < FIRST_WORD_ID for i in ids)

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], END_ID]

    def _ids(self, text: str, language: str | None) -> list[int]:
        front = [] if language is None else [FIRST_LANGUAGE_ID + self.languages.index(language)]
        return [*front, *(self.words.get(word, UNKNOWN_ID) for word in text.split()), END_ID]


def make_example(
    source: str,
    target: str,
    *,
    where: str = "file:1",
    repeat: int = 1,
    language: str | None = None,
    data_source: int = 0,
) -> Example:
    return Example(
        source=source,
        target=target,
        raw_source=source,
        raw_target=target,
        source_language=language,
        target_language=language,
        group=None,
        where=where,
        repeat=repeat,
        data_source=data_source,
    )
