"""What names of models say of family and size."""

import pytest

from dstrain.config.conflicts import T5_ARCHITECTURES
from dstrain.draft.families import FAMILIES, named_family, named_other, named_size, other_pipeline


@pytest.mark.parametrize(
    ("model", "family", "size"),
    [
        ("facebook/m2m100_418M", "m2m100", 418e6),
        ("google/mt5-small", "mt5", 80e6),
        ("t5-small", "t5", 80e6),
        ("google/t5-v1_1-large", "t5", 800e6),
        ("./save/cnndm_t5_large", "t5", 800e6),
        ("google/flan-t5-base", "t5", 250e6),
        ("google/byt5-small", "t5", 80e6),
        ("facebook/nllb-200-distilled-600M", "nllb", 600e6),
        ("facebook/nllb-200-1.3B", "nllb", 1.3e9),
        ("facebook/mbart-large-50-many-to-many-mmt", "mbart", 800e6),
        ("Helsinki-NLP/opus-mt-en-de", "marian", None),
        ("facebook/bart-base", "bart", 250e6),
        ("mT5_multilingual_XLSum", "mt5", None),
        ("roberta-large", None, 800e6),
        ("distilled-model", None, None),
        ("", None, None),
    ],
)
def test_a_name_speaks_of_a_family_and_a_size(model: str, family: str | None, size: float | None) -> None:
    found = named_family(model)
    assert (found.name if found else None, named_size(model)) == (family, size)


def test_the_t5_family_is_the_one_that_recipes_refuse_in_fp16() -> None:
    assert {family.name for family in FAMILIES if family.is_t5} == {*T5_ARCHITECTURES}


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("bert-base-uncased", "BERT"),
        ("distilbert-base-cased", "BERT"),
        ("FacebookAI/xlm-roberta-base", "RoBERTa"),
        ("gpt2", "GPT"),
        ("meta-llama/Llama-3.2-1B", "Llama"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "Llama"),
        ("Qwen/Qwen2.5-0.5B", "Qwen"),
        ("facebook/opt-125m", "OPT"),
        ("openai/whisper-small", "Whisper"),
        ("patrickvonplaten/bert2bert_cnn_daily_mail", None),
        ("Helsinki-NLP/opus-mt-en-ko", None),
        ("google/t5gemma-2b", None),
        ("facebook/m2m100_418M", None),
        ("google/mt5-small", None),
    ],
)
def test_models_of_other_kinds_are_known_by_their_names(name: str, title: str | None) -> None:
    assert named_other(name) == title


@pytest.mark.parametrize(
    ("tag", "is_other"),
    [
        ("text-classification", True),
        ("automatic-speech-recognition", True),
        ("image-to-text", True),
        ("translation", False),
        ("text2text-generation", False),
        ("summarization", False),
        ("generated_from_trainer", False),
    ],
)
def test_pipelines_of_other_kinds_are_known(tag: str, is_other: bool) -> None:
    assert (other_pipeline(["transformers", tag]) is not None) == is_other
