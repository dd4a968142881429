"""What the name of a model says: its family, and how large it is. A guess: a run looks at the model itself. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dstrain.config.conflicts import T5_ARCHITECTURES


@dataclass(frozen=True, slots=True)
class NamedFamily:
    """A family of encoder-decoders, as far as a recipe has to know it before the model is loaded."""

    name: str
    title: str
    marks: tuple[str, ...]
    """Parts of a name that speak of it."""
    has_languages: bool = False
    """Whether a translation needs codes of its own."""
    num_beams: int = 1
    """Beams with which its published models generate by default."""
    positions: int | None = None
    """The fewest positions of a published model of it; None where there is no limit."""
    drops_layers: bool = False
    """Whether its published models were trained with LayerDrop."""

    @property
    def is_t5(self) -> bool:
        """Whether fp16 overflows in it."""
        return self.name in T5_ARCHITECTURES

    @property
    def reads_prefix(self) -> bool:
        """Whether its published models were pretrained with a prefix that names the task."""
        return self.name in ("t5", "mt5", "umt5", "longt5", "byt5")


FAMILIES = (
    NamedFamily("m2m100", "M2M100", ("m2m100", "m2m"), has_languages=True, num_beams=5, drops_layers=True),
    NamedFamily("nllb", "NLLB", ("nllb",), has_languages=True),
    NamedFamily("mbart", "mBART", ("mbart",), has_languages=True, positions=1024),
    NamedFamily("marian", "Marian", ("opus-mt", "marian"), positions=512),
    NamedFamily("umt5", "umT5", ("umt5",)),
    NamedFamily("mt5", "mT5", ("mt5",)),
    NamedFamily("longt5", "LongT5", ("longt5", "long-t5")),
    NamedFamily("t5gemma", "T5Gemma", ("t5gemma",)),
    NamedFamily("t5", "T5", ("byt5", "codet5", "flan-t5", "t5")),
    NamedFamily("plbart", "PLBart", ("plbart",), positions=1024),
    NamedFamily("bart", "BART", ("bart",), positions=1024),
    NamedFamily("pegasus", "Pegasus", ("pegasus",), positions=512),
    NamedFamily("led", "LED", ("led",), positions=1024),
)
"""In the order in which a name is compared with them."""

OTHERS = {
    "BERT": r"[a-z]*bert",
    "RoBERTa": r"[a-z-]*roberta",
    "DeBERTa": r"[a-z]*deberta",
    "ELECTRA": r"electra",
    "XLNet": r"xlnet",
    "GPT": r"[a-z]*gpt\d*",
    "Llama": r"(?:tiny|code)?llama\d*",
    "Mistral": r"mi[sx]tral",
    "Qwen": r"qwen\d*",
    "Gemma": r"gemma\d*",
    "Phi": r"phi\d*",
    "Falcon": r"falcon",
    "BLOOM": r"bloomz?",
    "OPT": r"opt(?=-\d)",
    "Pythia": r"pythia",
    "Whisper": r"[a-z-]*whisper",
    "wav2vec": r"wav2vec\d*",
    "HuBERT": r"hubert",
    "ViT": r"vit",
    "CLIP": r"clip",
}
"""Well-known models that are not encoder-decoders of text to their marks in a name."""
OTHER_PIPELINES = re.compile(
    r"fill-mask|sentence-similarity|feature-extraction|automatic-speech-recognition|question-answering|text-to-speech"
    r"|(text|token|zero-shot|image|audio|video)-[a-z-]*classification|[a-z-]*image[a-z-]*|audio-[a-z-]+|object-detection"
)
"""Tags of pipelines that no encoder-decoder of text is for."""

SIZES = {"tiny": 15e6, "small": 80e6, "base": 250e6, "large": 800e6, "xl": 3e9, "xxl": 11e9}
"""Parameters of models that are called so, roughly: the tables of embeddings differ most."""


def named_family(model: str) -> NamedFamily | None:
    """The family that a model's name speaks of; None if it speaks of none in the table."""
    name = f"-{re.sub(r'[^a-z0-9]+', '-', model.lower())}-"
    found = (each for each in FAMILIES for mark in each.marks if re.search(rf"-{mark}(?![a-z])", name))
    return next(found, None)


def named_other(*names: str) -> str | None:
    """The model among OTHERS that one of these names speaks of; None if none does."""
    plain = [f"-{re.sub(r'[^a-z0-9]+', '-', name.lower())}-" for name in names]
    found = (title for title, mark in OTHERS.items() for name in plain if re.search(rf"-{mark}(?![a-z0-9])", name))
    return next(found, None)


def other_pipeline(tags: Iterable[str]) -> str | None:
    """The first tag of a pipeline that no encoder-decoder of text is for."""
    return next((tag for tag in tags if OTHER_PIPELINES.fullmatch(tag.lower())), None)


def named_size(model: str) -> float | None:
    """About how many parameters a model has by its name, such as `418M`, `1.3B` or `small`; None if it does not say."""
    number = re.search(r"(?<![A-Za-z\d.])(\d{1,4}(?:\.\d{1,3})?)([MB])(?![a-z])", model, flags=re.IGNORECASE)
    if number:
        return float(number[1]) * (1e9 if number[2].upper() == "B" else 1e6)
    words = re.split(r"[^a-z]+", model.lower())
    return next((size for word, size in SIZES.items() if word in words), None)
