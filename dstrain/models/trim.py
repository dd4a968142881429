"""A tokenizer with fewer pieces that segments alike: for `dstrain export --trim`.

Two kinds can be trimmed. A unigram model chooses the likeliest segmentation of a text: if that has only pieces that are kept, it
is the likeliest of those that are left, too. A tokenizer in Python (M2M100, Marian) segments with sentencepiece and looks the
pieces up in a table: without its line a piece is unknown, and nothing else changes. Byte-pair merges, as those of NLLB,
build pieces out of pieces that would be missing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dstrain.errors import UserError
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.run_folder.atomic import write_file

TABLES = ("vocab.json", "added_tokens.json")
SEPARATE_TABLE = "target_vocab.json"
SENTENCEPIECE = "*.model"
"""In the folder of a fast tokenizer: transformers 4 would make a slow one of it, with the old ids."""


def trim_tokenizer(tokenizer: Seq2SeqTokenizer, *, ids: Sequence[int], folder: Path) -> Seq2SeqTokenizer:
    """Write the tokenizer with the pieces of these ascending ids alone, numbered in their order, to an empty folder.

    Raises:
        UserError: it cannot be trimmed, or its class numbers the pieces otherwise.
    """
    row_of = {token_id: row for row, token_id in enumerate(ids)}
    tokenizer.save(folder)
    if tokenizer.tokenizer.is_fast:
        _edit(folder / "tokenizer.json", lambda content: _trim_pipeline(content, row_of=row_of))
        for file in folder.glob(SENTENCEPIECE):
            file.unlink()
    elif (folder / SEPARATE_TABLE).exists():
        raise UserError(
            "--trim: this tokenizer has a vocabulary for each side, and the model one for both: export without it"
        )
    else:
        for name in TABLES:
            if (folder / name).exists():
                _edit(folder / name, lambda content: _renumber(content, row_of=row_of))
    _edit(folder / "tokenizer_config.json", lambda content: _trim_config(content, row_of=row_of))
    trimmed = load_tokenizer(str(folder))
    wanted = {piece: row_of[i] for piece, i in tokenizer.tokenizer.get_vocab().items() if i in row_of}
    wanted |= {code: row_of[i] for code, i in tokenizer.languages.items()}
    found = {**trimmed.tokenizer.get_vocab(), **trimmed.languages}
    different = next((piece for piece, row in wanted.items() if found.get(piece) != row), None)
    if different is not None or trimmed.vocabulary_size != len(ids):
        shown = "" if different is None else f", `{different}` first"
        raise UserError(
            f"--trim: {type(tokenizer.tokenizer).__name__} numbers its pieces otherwise{shown}: export without it"
        )
    return trimmed


def check_alike(
    sources: list[str],
    targets: list[str],
    *,
    tokenizer: Seq2SeqTokenizer,
    trimmed: Seq2SeqTokenizer,
    ids: Sequence[int],
    languages: tuple[str | None, str | None],
) -> int:
    """How many of these texts have only pieces that are kept; both tokenizers segment them alike.

    Raises:
        UserError: names the first text that they segment otherwise.
    """
    row_of, num_alike = {token_id: row for row, token_id in enumerate(ids)}, 0
    before, after = (
        each.encode(sources, targets, source_language=languages[0], target_language=languages[1])
        for each in (tokenizer, trimmed)
    )
    for texts, old_ids, new_ids in zip((sources, targets), before, after, strict=True):
        for text, old, new in zip(texts, old_ids, new_ids, strict=True):
            if not row_of.keys() >= set(old):
                continue
            if [row_of[i] for i in old] != new:
                raise UserError(f"--trim: the small tokenizer segments {text[:80]!r} otherwise: export without it")
            num_alike += 1
    return num_alike


def _trim_pipeline(content: dict[str, Any], *, row_of: Mapping[int, int]) -> dict[str, Any]:
    """The content of tokenizer.json, as the library `tokenizers` writes it."""
    model, after = content["model"], content["post_processor"]
    if model["type"] != "Unigram":
        raise UserError(
            f"--trim: this tokenizer is of the kind {model['type']}, whose pieces are built out of others: export without it"
        )
    if after is not None and after["type"] != "TemplateProcessing":
        raise UserError(f"--trim: a tokenizer with {after['type']} cannot be trimmed: export without it")
    unknown = model["unk_id"]
    model = {
        **model,
        "vocab": [piece for i, piece in enumerate(model["vocab"]) if i in row_of],
        "unk_id": None if unknown is None else row_of[unknown],
    }
    added = [{**token, "id": row_of[token["id"]]} for token in content["added_tokens"] if token["id"] in row_of]
    if after is not None:
        special = {
            name: {**token, "ids": [row_of[i] for i in token["ids"]]} for name, token in after["special_tokens"].items()
        }
        after = {**after, "special_tokens": special}
    return {**content, "model": model, "added_tokens": added, "post_processor": after}


def _trim_config(content: dict[str, Any], *, row_of: Mapping[int, int]) -> dict[str, Any]:
    """The content of tokenizer_config.json, in which older versions of transformers list added tokens by their ids."""
    added = content.get("added_tokens_decoder")
    if added is None:
        return content
    kept = {str(row_of[int(i)]): token for i, token in added.items() if int(i) in row_of}
    return {**content, "added_tokens_decoder": kept}


def _renumber(content: dict[str, int], *, row_of: Mapping[int, int]) -> dict[str, int]:
    """A table of pieces."""
    return {piece: row_of[i] for piece, i in content.items() if i in row_of}


def _edit(file: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = edit(json.loads(file.read_text(encoding="utf-8")))
    write_file(file, json.dumps(content, ensure_ascii=False))
