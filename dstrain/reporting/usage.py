"""How to use a model: the code on its card, and what it needs. Pure functions of a RunRecord; a test runs the code as printed."""

from dstrain.config.paths import BASE
from dstrain.config.recipe import Task
from dstrain.reporting.markdown import Markdown, code, join, phrase, program
from dstrain.reporting.metadata import hub_model
from dstrain.run_folder.layout import ADAPTER, AVERAGE, BEST, FINAL
from dstrain.run_folder.record import RunRecord
from dstrain.tasks.translation import Languages, choose_languages, choose_prefix

HERE = "."
"""What the code on the card of a model loads: the folder that the card lies in."""
LOADING = """\
tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForSeq2SeqLM.from_pretrained({folder!r})
{language}"""
WITH_LANGUAGE_TOKENS = ("M2M100", "MBart")
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
    task = record.config.task
    first = record.config.data.train[0]
    languages = choose_languages(task, source=first.source_language, target=first.target_language)
    prefix = choose_prefix(task, prefix=first.source_prefix, languages=languages)
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
    code, architecture = record.config.languages[0], record.info.model.architecture or ""
    if code is None or not architecture.startswith(WITH_LANGUAGE_TOKENS):
        return ""
    is_added = code in (record.config.model.add_languages or {})
    is_nllb = "_" in code  # whose class, of the same architecture, takes any token for a language
    known = (
        UNKNOWN_TO_M2M100.format(code=code, token=f"__{code}__")
        if is_added and architecture.startswith("M2M100") and not is_nllb
        else ""
    )
    return f"{known}tokenizer.src_lang = {code!r}\n"


def _cutting(task: Task) -> dict[str, str]:
    """How an utterance becomes the text whose words the pointers count."""
    if task.segmentation == "published":  # a new utterance has no parse to cut it by
        return {"imports": "from dstrain.tasks.parsing import as_typed, from_pointer", "cut": "as_typed(utterance)"}
    imports = "from dstrain.tasks.parsing import from_pointer\nfrom dstrain.tasks.words import cut_words"
    return {"imports": imports, "cut": '" ".join(cut_words(utterance))'}


def _explain_languages(record: RunRecord) -> list[Markdown]:
    task, sources = record.config.task, record.config.data.train
    if task.kind != "translation":
        return []
    pairs: dict[Languages, str] = {}
    for source in sources:
        languages = choose_languages(task, source=source.source_language, target=source.target_language)
        pairs.setdefault(languages, choose_prefix(task, prefix=source.source_prefix, languages=languages))
    if any(source.target_language_column is not None for source in sources):
        return [
            phrase(
                "Each training row names its languages. For a pair set {} and pass {} to {} (mBART-cc25: {}); a model without "
                "language tokens reads it in the text before the source.",
                *map(code, ("tokenizer.src_lang", "forced_bos_token_id", "generate", "decoder_start_token_id")),
            )
        ]
    if len(pairs) == 1:
        return []
    if len(set(pairs.values())) > 1:
        listed = [phrase("{} for {}", code(repr(prefix)), _name(pair)) for pair, prefix in pairs.items()]
        return [phrase("The text before a source says which translation is wanted: {}.", join(listed, separator=", "))]
    stored = Languages(*record.config.languages)
    return [
        phrase(
            "The folder translates from {}. For another pair of its training set {} and pass {} to {} (mBART-cc25: {}).",
            _name(stored),
            *map(code, ("tokenizer.src_lang", "forced_bos_token_id", "generate", "decoder_start_token_id")),
        )
    ]


def _name(pair: Languages) -> Markdown:
    return phrase(
        "{} to {}", *(code(side) if side else Markdown("any language") for side in (pair.source, pair.target))
    )
