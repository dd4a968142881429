"""The tokenizer class of every family, trained from scratch and used through one interface."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, M2M100Tokenizer

from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from tests.unit.models.tiny_models import FAMILIES, LANGUAGES, PAIRS, TASK_TOKENS

ORDINARY_CLASS = {
    "m2m100": "M2M100Tokenizer",
    "nllb": "NllbTokenizer",
    "mbart": "MBartTokenizer",
    "mbart50": "MBart50Tokenizer",
    "marian": "MarianTokenizer",
    "t5": "T5Tokenizer",
    "mt5": "T5Tokenizer",  # transformers 5 has no class of mT5's own
}
FolderOf = Callable[[str], Path]


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(family: str, tokenizer_folder: FolderOf) -> Seq2SeqTokenizer:
    return load_tokenizer(str(tokenizer_folder(family)))


def encoded(tokenizer: Seq2SeqTokenizer, family: str, texts: list[str]) -> list[list[int]]:
    source, target = LANGUAGES.get(family, (None, None))
    return tokenizer.encode(texts, texts, source_language=source, target_language=target)[1]


def without_spaces(text: str) -> str:
    return "".join(text.split())


def test_auto_tokenizer_loads_the_familys_ordinary_class(family: str, tokenizer_folder: FolderOf) -> None:
    loaded = AutoTokenizer.from_pretrained(str(tokenizer_folder(family)))
    assert type(loaded).__name__ == ORDINARY_CLASS[family]
    assert {token for pair in PAIRS[:4] for token in loaded.tokenize(pair[1])} <= loaded.get_vocab().keys()


def test_text_survives_encoding_and_decoding(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    plain = [text for pair in PAIRS[:4] for text in pair]
    assert [tokenizer.decode(ids) for ids in encoded(tokenizer, family, plain)] == plain


def test_parses_survive_except_for_white_space_and_have_no_unknown_tokens(
    tokenizer: Seq2SeqTokenizer, family: str
) -> None:
    parse = "[IN:CREATE_ALARM [SL:DATE_TIME <pt-11> <pt-1> ] ]"
    (ids,) = encoded(tokenizer, family, [parse])
    assert tokenizer.unk_token_id not in ids
    assert without_spaces(tokenizer.decode(ids)) == without_spaces(parse)
    assert {tokenizer.tokenizer.convert_tokens_to_ids(token) for token in parse.split() if token != "]"} <= set(ids)


def test_language_tokens_are_where_the_family_puts_them(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    source, target = LANGUAGES.get(family, (None, None))
    sources, targets = tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target)
    eos = tokenizer.tokenizer.eos_token_id
    for ids, language in ((sources[0], source), (targets[0], target)):
        code = tokenizer.language_id(language)
        if family == "mbart":
            assert ids[-2:] == [eos, code]
        else:
            assert ids[-1] == eos
            assert code is None or ids[0] == code


def test_languages_of_one_call_do_not_leak_into_the_next(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    if family not in LANGUAGES:
        pytest.skip("a family without language tokens")
    source, target = LANGUAGES[family]
    first = tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target)
    turned = tokenizer.encode(["네"], ["yes"], source_language=target, target_language=source)
    assert turned != first
    assert tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target) == first


def test_an_unknown_language_is_refused_with_valid_ones(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    if family not in LANGUAGES:
        assert tokenizer.language_id("klingon") is None
        return
    with pytest.raises(ValueError, match=f"language `kor` is not a code of .*`{LANGUAGES[family][0]}`"):
        tokenizer.encode(["네"], ["yes"], source_language="kor", target_language=LANGUAGES[family][1])


def test_padding_end_and_language_tokens_are_removed_and_unknown_tokens_stay(
    tokenizer: Seq2SeqTokenizer, family: str
) -> None:
    (ids,) = encoded(tokenizer, family, ["yes"])
    unknown = tokenizer.unk_token_id
    assert unknown is not None
    assert tokenizer.decode([tokenizer.pad_token_id, *ids, tokenizer.pad_token_id, -100]) == "yes"
    assert "<unk>" in tokenizer.decode([*ids, unknown])
    assert "<unk>" in tokenizer.decode([tokenizer.vocabulary_size + 3])
    assert tokenizer.decode([]) == ""


def test_truncation_keeps_the_special_tokens_at_both_ends(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    (ids,) = encoded(tokenizer, family, ["half past three in the afternoon"])
    head = 1 if family in ("m2m100", "nllb", "mbart50") else 0
    tail = 2 if family == "mbart" else 1
    cut = tokenizer.truncate(ids, max_tokens=6)
    assert len(cut) == 6
    assert cut[: 6 - tail] == ids[: 6 - tail]
    assert cut[-tail:] == ids[-tail:]
    assert tokenizer.truncate(ids, max_tokens=len(ids)) == ids
    with pytest.raises(ValueError, match="no room"):
        tokenizer.truncate(ids, max_tokens=head + tail - 1)


def test_vocabulary_size_covers_every_id_and_ids_are_distinct(tokenizer: Seq2SeqTokenizer) -> None:
    vocabulary = {**tokenizer.tokenizer.get_vocab(), **tokenizer.tokenizer.get_added_vocab()}
    assert tokenizer.vocabulary_size == 1 + max([*vocabulary.values(), *tokenizer.languages.values()])
    assert len(set(vocabulary.values())) == len(vocabulary)
    task_ids = {tokenizer.tokenizer.convert_tokens_to_ids(token) for token in TASK_TOKENS}
    assert len(task_ids) == len(TASK_TOKENS)
    assert task_ids.isdisjoint(tokenizer.languages.values())


def test_tokens_added_on_loading_are_reported_as_new_once(family: str, tokenizer_folder: FolderOf) -> None:
    folder = str(tokenizer_folder(family))
    before = load_tokenizer(folder)
    after = load_tokenizer(folder, added_tokens=[*TASK_TOKENS, "<pt-12>"])
    assert after.vocabulary_size == before.vocabulary_size + 1
    assert after.fingerprint != before.fingerprint


def test_a_saved_folder_remembers_languages_and_encodes_to_the_same_ids(
    family: str, tokenizer: Seq2SeqTokenizer, tmp_path: Path
) -> None:
    source, target = LANGUAGES.get(family, (None, None))
    tokenizer.save(tmp_path, source_language=source, target_language=target)
    plain = AutoTokenizer.from_pretrained(str(tmp_path))
    expected = tokenizer.encode(["네"], ["yes"], source_language=source, target_language=target)
    assert [plain("네")["input_ids"]] == expected[0]
    assert [plain(text_target="yes")["input_ids"]] == expected[1]
    assert load_tokenizer(str(tmp_path)).fingerprint == tokenizer.fingerprint


def test_fingerprints_are_the_same_in_another_process(tokenizer_folder: FolderOf) -> None:
    expected = []
    for family in FAMILIES:
        tokenizer = load_tokenizer(str(tokenizer_folder(family)))
        encoded(tokenizer, family, ["yes"])  # the languages set at the moment must not matter
        expected.append(tokenizer.fingerprint)
    program = (
        "import sys; from dstrain.models.tokenizer import load_tokenizer\n"
        "print(*(load_tokenizer(folder).fingerprint for folder in sys.argv[1:]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *(str(tokenizer_folder(family)) for family in FAMILIES)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert result.stdout.split() == expected


def test_added_tokens_do_not_take_language_ids_of_a_folder_that_does_not_list_them(
    tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    files = tokenizer_folder("m2m100")
    bare = M2M100Tokenizer(vocab_file=str(files / "vocab.json"), spm_file=str(files / "sentencepiece.bpe.model"))
    bare.save_pretrained(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path), added_tokens=["[IN:X"])
    assert loaded.tokenizer.convert_tokens_to_ids("[IN:X") not in loaded.languages.values()
    bare.add_tokens(["[IN:X"])
    with pytest.raises(ValueError, match="share id"):
        Seq2SeqTokenizer(bare)


def test_the_old_form_of_nllb_with_the_language_at_the_end_is_not_used(
    tokenizer_folder: FolderOf, tmp_path: Path
) -> None:
    load_tokenizer(str(tokenizer_folder("nllb"))).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "legacy_behaviour": True}))
    tokenizer = load_tokenizer(str(tmp_path))
    (ids,) = encoded(tokenizer, "nllb", ["yes"])
    assert ids[0] == tokenizer.language_id("eng_Latn")
