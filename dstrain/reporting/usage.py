"""How to use a model: the code on its card, and what it needs. Pure functions of a RunRecord; a test runs the code as printed."""

from collections.abc import Iterable, Sequence
from typing import Any

from dstrain.config.paths import BASE
from dstrain.config.recipe import Task
from dstrain.reporting.markdown import Markdown, code, join, phrase, program
from dstrain.reporting.metadata import hub_model, pairs_of
from dstrain.run_folder.layout import ADAPTER, AVERAGE, BEST, FINAL
from dstrain.run_folder.record import RunRecord
from dstrain.tasks.pairs import TrainedPair
from dstrain.tasks.translation import Languages

HERE = "."
"""What the code on the card of a model loads: the folder of the card."""
LOADING = """\
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForSeq2SeqLM.from_pretrained({folder!r})
{language}"""
WITH_LANGUAGE_TOKENS = ("M2M100", "MBart", "PLBart")
"""How the architectures begin whose tokenizers have a source language."""
UNKNOWN_TO_M2M100 = """\
tokenizer.lang_code_to_token[{code!r}] = {token!r}  # a language that was added: the class does not know it
tokenizer.lang_token_to_id[{token!r}] = tokenizer.convert_tokens_to_ids({token!r})
"""
GENERATION = """\
inputs = tokenizer({sources}, padding=True, return_tensors="pt")
hypotheses = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"])
found = tokenizer.batch_decode(hypotheses, skip_special_tokens=True, clean_up_tokenization_spaces=False)
"""
TEXT = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

{LOADING}
texts = [{{sample!r}}]
{GENERATION}print(found)"""
POINTER = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

{{imports}}

{LOADING}
utterances = ["set an alarm for 7 am"]
texts = [{{cut}} for utterance in utterances]
{GENERATION}print([from_pointer(parse, source=text) for parse, text in zip(found, texts)])"""
PLAIN = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dstrain.tasks.parsing import respace_plain

{LOADING}
texts = ["set an alarm for 7 am"]
{GENERATION}print([respace_plain(parse) for parse in found])"""
OWN = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from {{module}} import {{name}}

{LOADING}
task = {{name}}()
sources = [{{sample!r}}]
texts = [task.source(source) for source in sources]
{GENERATION}print([task.answer(text, source) for text, source in zip(found, sources)])"""

BY_TOKEN = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

{LOADING}
# language of the sources, token of the language to translate into, texts
for source_language, target_token, texts in [
{{examples}}
]:
    tokenizer.src_lang = source_language
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    target = tokenizer.convert_tokens_to_ids(target_token)
    hypotheses = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], {{key}}=target)
    print(tokenizer.batch_decode(hypotheses, skip_special_tokens=True, clean_up_tokenization_spaces=False))"""
BY_PREFIX = f"""\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

{LOADING}
# the text before a source says which translation is wanted
texts = [
{{examples}}
]
inputs = tokenizer(texts, padding=True, return_tensors="pt")
hypotheses = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"])
found = tokenizer.batch_decode(hypotheses, skip_special_tokens=True, clean_up_tokenization_spaces=False)
print(found)"""
MOST_PAIRS = 4
"""Pairs of languages in the code."""
ADAPTER_CODE = """\
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM{more}

base = AutoModelForSeq2SeqLM.from_pretrained({base})
{grow}model = PeftModel.from_pretrained(base, {folder!r}, subfolder={adapter!r})"""
GROW = "base.resize_token_embeddings(len(AutoTokenizer.from_pretrained({folder!r})))\n"
"""Before an adapter with the rows of new tokens is put in."""

NEEDS_VERSION_5 = "transformers 4 will not scale"
"""In the warning about a head that only transformers 5 reads as it was trained."""


def build_usage(record: RunRecord) -> Markdown | None:
    """The code that loads the exported model and generates; None if there is no model yet."""
    folder = _folder(record)
    if folder is None:
        return None
    task, pairs = record.config.task, pairs_of(record)
    if task.kind == "translation" and len(pairs) > 1 and (text := _pairs_code(record, pairs, folder=folder)):
        return program(text, language="python")
    prefix = pairs[0].prefix if pairs else task.source_prefix
    sources = f"[{prefix!r} + text for text in texts]" if prefix else "texts"
    sample = "the text to translate" if task.kind == "translation" else "a source text"
    module, _, name = (task.own or "").partition(":")
    text = _template(task).format(
        folder=folder,
        sources=sources,
        language=_source_language(record),
        sample=sample,
        module=module,
        name=name,
        **_cutting(task),
    )
    return program(text, language="python")


def build_adapter_usage(record: RunRecord) -> Markdown | None:
    """The code that puts the adapter of the exported model into its base model with peft; None if it has none."""
    config, folder = record.config.model, _folder(record)
    if config.adapter is None or folder is None or record.subject == AVERAGE:
        return None
    on_hub = hub_model(record)
    base = repr(on_hub or (BASE if config.from_run is not None else config.name))
    if on_hub is not None and config.revision is not None:
        base += f", revision={config.revision!r}"
    has_rows = bool(record.info.model.new_tokens)
    text = ADAPTER_CODE.format(
        more=", AutoTokenizer" if has_rows else "",
        base=base,
        grow=GROW.format(folder=folder) if has_rows else "",
        folder=folder,
        adapter=ADAPTER,
    )
    return program(text, language="python")


def explain_usage(record: RunRecord) -> list[Markdown]:
    """Sentences before the code: what it needs, and how other languages are chosen."""
    folder, task = _folder(record), record.config.task
    if folder is None:
        return [Markdown("No model has been exported yet.")]
    needed = "5" if any(NEEDS_VERSION_5 in warning for warning in record.info.warnings) else "4.57 or 5"
    needs = Markdown("")
    if task.kind == "parsing":
        needs = Markdown(", and dstrain, which restores the parse")
    elif task.own:
        needs = phrase(", and the class {} of the user's own", code(task.own))
    read_by = phrase("is read by transformers {}. The code needs sentencepiece too{}.", needed, needs)
    if folder == HERE:
        return [*_explain_languages(record), phrase("The model {}", read_by)]
    return [*_explain_languages(record), phrase("The folder {} {} Beside this card:", code(f"{folder}/"), read_by)]


def load_from_hub(card: str, *, repo: str, revision: str | None) -> str:
    """The card of a model with the model's name on the Hub in its code, in place of the folder that it lay in."""
    given = repr(repo) if revision is None else f"{repo!r}, revision={revision!r}"
    for before in ("from_pretrained(", "from_pretrained(base, "):
        card = card.replace(f"{before}{HERE!r}", f"{before}{given}")
    return card


def _folder(record: RunRecord) -> str | None:
    if record.subject is not None:
        return HERE
    return next((name for name in (BEST, FINAL) if name in record.exports), None)


def _template(task: Task) -> str:
    if task.kind != "parsing":
        return OWN if task.own else TEXT
    return POINTER if task.has_pointers else PLAIN


def _source_language(record: RunRecord) -> str:
    """The lines that set it, which an added language needs: the folder cannot have one as its default."""
    pairs = pairs_of(record)
    source = pairs[0].languages.source if pairs else record.config.languages[0]
    if source is None or not _has_tokens(record):
        return ""
    return f"{_added_languages(record, [source])}tokenizer.src_lang = {source!r}\n"


def _has_tokens(record: RunRecord) -> bool:
    return (record.info.model.architecture or "").startswith(WITH_LANGUAGE_TOKENS)


def _added_languages(record: RunRecord, codes: Iterable[str]) -> str:
    """The lines with which M2M100's class knows those of these languages that were added."""
    # NLLB's class, of the same architecture, takes any token for a language
    added = [
        each
        for each in dict.fromkeys(codes)
        if each in (record.config.model.add_languages or {}) and _language_token(record, each) != each
    ]
    if not (record.info.model.architecture or "").startswith("M2M100"):
        return ""
    return "".join(UNKNOWN_TO_M2M100.format(code=each, token=f"__{each}__") for each in added)


def _language_token(record: RunRecord, language: str) -> str:
    """The token of a language: M2M100 and PLBart put its code between underscores, mBART and NLLB have the code itself."""
    architecture = record.info.model.architecture or ""
    is_nllb = architecture.startswith("M2M100") and "_" in language
    return language if architecture.startswith("MBart") or is_nllb else f"__{language}__"


def _target_argument(record: RunRecord) -> str:
    """How `generate` is told the target language: mBART-cc25 and PLBart begin with it, as the evaluations recorded."""
    scratch = record.config.model.scratch
    recorded = [row.generation.get("target_languages") for row in record.eval_rows[-1:]]
    given: Any = next((each for of_row in recorded if isinstance(of_row, dict) for each in of_row.values()), None)
    begins = isinstance(given, dict) and "forced_bos_token_id" in given and given["forced_bos_token_id"] is None
    begins = begins or (scratch is not None and scratch.architecture == "mbart")
    return "decoder_start_token_id" if begins else "forced_bos_token_id"


def _pairs_code(record: RunRecord, pairs: Sequence[TrainedPair], *, folder: str) -> str | None:
    """The code that translates in each of the first pairs; None where nothing tells them apart."""
    shown, others = pairs[:MOST_PAIRS], len(pairs) - len(pairs[:MOST_PAIRS])
    more = f"\n    # and {others} more" if others else ""

    def text(pair: TrainedPair) -> str:
        return f"{pair.prefix}the text to translate"  # which names no language: some codes are tokens

    if _has_tokens(record):
        lines, codes = [], []
        for pair in shown:
            source, target = pair.languages.source, pair.languages.target
            if source is None or target is None:
                return None
            codes.append(source)
            lines.append(f"    ({source!r}, {_language_token(record, target)!r}, [{text(pair)!r}]),")
        language, key = _added_languages(record, codes), _target_argument(record)
        return BY_TOKEN.format(folder=folder, language=language, examples="\n".join(lines) + more, key=key)
    if len({pair.prefix for pair in pairs}) == 1:
        return None
    lines = [f"    {text(pair)!r}," for pair in shown]
    return BY_PREFIX.format(folder=folder, language="", examples="\n".join(lines) + more)


def _cutting(task: Task) -> dict[str, str]:
    """How an utterance becomes the text whose words the pointers count."""
    if task.segmentation == "published":  # a new utterance has no parse to cut it by
        return {"imports": "from dstrain.tasks.parsing import as_typed, from_pointer", "cut": "as_typed(utterance)"}
    imports = "from dstrain.tasks.parsing import from_pointer\nfrom dstrain.tasks.words import cut_words"
    return {"imports": imports, "cut": '" ".join(cut_words(utterance))'}


def _explain_languages(record: RunRecord) -> list[Markdown]:
    pairs = pairs_of(record)
    if record.config.task.kind != "translation" or len(pairs) < 2:
        return []
    shown, others = pairs[:MOST_PAIRS], len(pairs) - len(pairs[:MOST_PAIRS])
    more = f", and {others} more" if others else ""
    if len({pair.prefix for pair in pairs}) > 1:
        listed = [phrase("{} for {}", code(repr(pair.prefix)), _name(pair.languages)) for pair in shown]
        text = "The text before a source says which translation is wanted: {}{}."
        return [phrase(text, join(listed, separator=", "), more)]
    listed = [_name(pair.languages) for pair in shown]
    text = "The model was trained to translate {}{}. By default the folder translates {}: name the languages."
    return [phrase(text, join(listed, separator=", "), more, _name(pairs[0].languages))]


def _name(pair: Languages) -> Markdown:
    return phrase(
        "{} to {}", *(code(side) if side else Markdown("any language") for side in (pair.source, pair.target))
    )
