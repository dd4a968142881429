"""Whether the tokenizer has the languages and the prefixes that a recipe names; errors name the recipe's key."""

import re
from collections.abc import Collection, Iterator

from dstrain.config.conflicts import missing_languages
from dstrain.config.data import Source
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.models.languages import LANGUAGE_CODES
from dstrain.models.tokenizer import Seq2SeqTokenizer, describe_unknown_language
from dstrain.tasks.translation import Languages, choose_languages, choose_prefix

MARIAN_CODE = re.compile(r">>\S+?<<")
"""How a source tells a Marian model of several target languages which one is wanted."""


def check_scratch_languages(config: RunConfig) -> None:
    """Raise UserError for a language code that the family of a new model lacks, before its tokenizer is trained."""
    if config.model.scratch is not None:
        architecture = config.model.scratch.architecture
        _check_codes(
            config, known=LANGUAGE_CODES.get(architecture, ()), owner=f"model.scratch.architecture `{architecture}`"
        )


def check_tokenizer(config: RunConfig, *, tokenizer: Seq2SeqTokenizer) -> None:
    """Raise UserError for a language code or a prefix that the tokenizer lacks, and for a language that it needs."""
    owner = type(tokenizer.tokenizer).__name__
    if tokenizer.languages:
        for key, message in missing_languages(config.task, data=config.data, owner=owner):
            examples = ", ".join(f"`{code}`" for code in list(tokenizer.languages)[:3])
            raise UserError(f"{key}: {message}: name it, for example {examples}")
    _check_codes(config, known=tokenizer.languages, owner=owner)
    for code, like in (config.model.add_languages or {}).items():
        if like not in tokenizer.languages:
            message = describe_unknown_language(like, known=tokenizer.languages, owner=owner)
            raise UserError(f"model.add_languages.{code}: {message}")
    for prefix, key in _prefixes(config).items():
        if "_language}" in prefix:  # each row has its own
            continue
        (ids,), _ = tokenizer.encode([prefix], [""], source_language=None, target_language=None)
        if tokenizer.unk_token_id in ids:
            raise UserError(
                f"{key}: {prefix!r} has a code or characters that the tokenizer lacks, so that the model could not read "
                "it: take a prefix that it knows; codes of Marian, such as `>>fra<<`, are on the card of the model"
            )


def find_untaught(config: RunConfig) -> list[str]:
    """A sentence for each prefix or pair of languages of evaluation rows that no training row has, and each unused language."""
    data = config.data
    if any("language_column" in key for each in data.train for key in each.further_columns):
        return []  # the rows say which languages are taught
    pairs = {_languages(each, config=config) for each in data.train}
    prefixes = {_prefix(each, config=config) for each in data.train}
    found = []
    for number, source in enumerate(data.eval):
        pair, prefix = _languages(source, config=config), _prefix(source, config=config)
        if pair not in pairs:
            languages = f"from `{pair.source}` to `{pair.target}`"
            found.append(f"data.eval.{number} ({source.place}) is {languages}, which no training source is")
        if prefix not in prefixes:
            known = ", ".join(map(repr, sorted(prefixes)))
            found.append(
                f"data.eval.{number} ({source.place}) has the source_prefix {prefix!r}, which no training source has ({known})"
            )
    used = {code for pair in pairs for code in (pair.source, pair.target)}
    unused = [code for code in config.model.add_languages or {} if code not in used]
    return found + [f"model.add_languages.{code}: no training source is in `{code}`" for code in unused]


def marian_codes(config: RunConfig) -> list[str]:
    """Codes such as `>>fra<<` in the prefixes, which a new Marian tokenizer must have as tokens: its class looks for them."""
    is_marian = config.model.scratch is not None and config.model.scratch.architecture == "marian"
    prefixes = _prefixes(config) if is_marian else {}
    for prefix, key in prefixes.items():
        if "_language}" in prefix:
            raise UserError(
                f"{key}: {prefix!r} has other codes in other rows, and a new Marian tokenizer must have each as a token: make a "
                "source of each language, with its target_language"
            )
    return sorted({match[0] for prefix in prefixes if (match := MARIAN_CODE.match(prefix))})


def _languages(source: Source, *, config: RunConfig) -> Languages:
    return choose_languages(config.task, source=source.source_language, target=source.target_language)


def _prefix(source: Source, *, config: RunConfig) -> str:
    return choose_prefix(config.task, prefix=source.source_prefix, languages=_languages(source, config=config))


def _check_codes(config: RunConfig, *, known: Collection[str], owner: str) -> None:
    if not known:  # a family without language tokens
        return
    for key, code in _language_codes(config):
        if code not in known:
            raise UserError(f"{key}: {describe_unknown_language(code, known=known, owner=owner)}")


def _language_codes(config: RunConfig) -> Iterator[tuple[str, str]]:
    for place, section in [("task", config.task), *_sources(config)]:
        for side in ("source_language", "target_language"):
            code = getattr(section, side)
            if code is not None:
                yield f"{place}.{side}", code


def _prefixes(config: RunConfig) -> dict[str, str]:
    """Every prefix of a source that is not blank, with the first key that gives it."""
    found = dict[str, str]()
    for place, source in _sources(config):
        own = source.source_prefix is not None
        found.setdefault(_prefix(source, config=config), f"{place if own else 'task'}.source_prefix")
    return {prefix: key for prefix, key in found.items() if prefix.strip()}


def _sources(config: RunConfig) -> list[tuple[str, Source]]:
    sides = (("train", config.data.train), ("eval", config.data.eval))
    return [(f"data.{side}.{number}", source) for side, sources in sides for number, source in enumerate(sources)]
