"""The sections of a first recipe that follow from its rows and the machine: model, task, training and evaluation. Pure."""

from dataclasses import dataclass, field

from dstrain.draft.families import NamedFamily, named_size
from dstrain.draft.guess_task import NAMED, Guess
from dstrain.draft.languages import family_that_spells, spell
from dstrain.draft.look import Asked, Rows
from dstrain.draft.machine import Machine
from dstrain.draft.recipe_text import Line, section
from dstrain.draft.sizes import (
    PERCENTILE,
    SHAPES,
    Plan,
    choose_length,
    choose_size,
    choose_vocabulary,
    count,
    plan_training,
)
from dstrain.draft.split import num_apart

CHARACTERS_PER_TOKEN = 2
"""Fewer than tokenizers make of an alphabet, so that a limit cuts less than it says; of other scripts each character is one."""
FEW_ROWS = 200
"""Training rows below which it is said that they are few."""
OPTIMIZER_BYTES = 16
"""Bytes of a parameter in training with Adam: weight, gradient and two moments in fp32."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the user says; None is to be found out."""

    files: tuple[str, ...]
    evaluation_files: tuple[str, ...] = ()
    asked: Asked = field(default_factory=Asked)
    kind: str | None = None
    model: str | None = None
    size: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Sections:
    """The sections of one recipe, but for `data`."""

    request: Request
    guess: Guess
    rows: Rows
    machine: Machine
    is_split: bool
    family: NamedFamily | None = None
    """That of the model which the user names."""

    @property
    def num_rows(self) -> int:
        """Rows for training, without those that are set apart."""
        apart = num_apart(self.rows.num_rows) if self.is_split else 0
        return max(1, self.rows.num_rows - apart)

    @property
    def plan(self) -> Plan:
        """How long the training is."""
        return plan_training(self.num_rows, machine=self.machine, from_scratch=self.request.model is None)

    @property
    def size(self) -> tuple[str, str]:
        """The size of a model from scratch, and why."""
        if self.request.size is not None:
            return self.request.size, NAMED
        return choose_size(self.num_rows, machine=self.machine)

    @property
    def codes(self) -> tuple[str | None, str | None]:
        """The languages as the model's family writes them; None for a family without codes, or for a language it lacks."""
        family = self.family.name if self.family else "" if self.request.model else self._family_of_codes
        if self.guess.kind != "translation":
            return None, None
        source, target = self.guess.source_language, self.guess.target_language
        return source and spell(source, family=family), target and spell(target, family=family)

    @property
    def _family_of_codes(self) -> str:
        """The family of a model from scratch that the codes of the languages are those of; M2M100's if they are none's."""
        named = {self.guess.source_language, self.guess.target_language} - {None}
        return family_that_spells(self.guess.codes or [code for code in named if code]) or "m2m100"

    @property
    def architecture(self) -> tuple[str, str]:
        """The family of a model from scratch, and why."""
        family, named = self._family_of_codes, (self.guess.source_language, self.guess.target_language)
        if self.guess.kind == "translation" and family != "m2m100":
            code = min(self.guess.codes) if self.guess.codes else named[0]
            return family, f"languages are named as it names them, such as `{code}`"
        if self.guess.kind == "translation" and None in self.codes and not self.guess.by_row:
            unknown = next(code for code, own in zip(named, self.codes, strict=True) if own is None)
            return "marian", f"it reads any text, and needs no codes of languages; M2M100 has none for `{unknown}`"
        return "m2m100", "its new tokenizer can write every character"

    def precision(self) -> Line:
        """`precision`."""
        if self.machine.has_gpu:
            return Line("precision", "bf16", "a GPU; one from before 2020 has only fp16, which overflows T5", "guess")
        why = "no GPU here, and a CPU has no fast 16-bit arithmetic; bf16 on a GPU"
        return Line("precision", "fp32", why, "guess")

    def model(self) -> list[Line]:
        """`model`: the one that the user names, else one from scratch."""
        if self.request.model is not None:
            return [
                Line("name", self.request.model, "as it was named; a name on the Hub, or a local folder"),
                Line("dropout", None, "the model's own"),
            ]
        architecture, why = self.architecture
        size, size_why = self.size
        shape = SHAPES[size]
        pieces, pieces_why = choose_vocabulary(self.rows.num_characters, distinct=self.rows.distinct)
        scratch = [
            Line("architecture", architecture, why, "guess"),
            Line("vocabulary_size", pieces, f"sentencepiece pieces, for {pieces_why}", "guess"),
            Line("hidden_size", shape.hidden_size, f"size {size}: {size_why}", "guess"),
            Line("feed_forward_size", 4 * shape.hidden_size, "width inside the feed-forward layers"),
            Line("num_layers", shape.num_layers, "of the encoder, and as many of the decoder"),
            Line("num_heads", shape.num_heads, f"attention heads, {shape.hidden_size // shape.num_heads} wide each"),
        ]
        longest = max(self._limit(side) for side in (0, 1))
        if architecture == "marian" and longest > 512:
            scratch.append(Line("max_positions", longest, "as long as the longest text"))
        suggested = "facebook/m2m100_418M" if self.guess.kind == "translation" else "google/mt5-small"
        why = (
            f"random weights, nothing is downloaded; `dstrain init --model {suggested}` begins with a pretrained model"
        )
        return [section("scratch", *scratch, why=why), Line("dropout", 0.1, "few rows, seen several times")]

    def task(self) -> list[Line]:
        """`task`."""
        guess = self.guess
        lines = [Line("kind", guess.kind, guess.why, "guess")]
        if guess.name is not None:
            lines.append(Line("name", guess.name, "what the card calls it", "guess"))
        if guess.kind == "parsing":
            form = "plain" if guess.has_pointers else "pointer"
            lines.append(
                Line("form", form, "words of the utterance become pointers <pt-N>; `plain` keeps the words", "guess")
            )
        named = (guess.source_language, guess.target_language)
        is_marian = self.request.model is None and guess.kind == "translation" and self.architecture[0] == "marian"
        for side, key in enumerate(("source_language", "target_language")):
            # for a Marian the code is only what the card says
            code = named[side] if is_marian else self.codes[side]
            if code is not None:
                lines.append(Line(key, code, guess.language_why[side], "guess"))
            elif (
                guess.kind == "translation"
                and not guess.by_row
                and self.family is not None
                and self.family.has_languages
            ):
                why = f"which code of {self.family.title} is `{named[side]}`?"
                lines.append(Line(key, None, why, "question"))
        if self.family is not None and self.family.reads_prefix:
            lines.append(
                Line("source_prefix", self._prefix(), "put before every source, as the model was pretrained", "guess")
            )
        for side, key in enumerate(("max_source_tokens", "max_target_tokens")):
            lines.append(Line(key, self._limit(side), self._limit_why(side), "guess"))
        return lines

    def _prefix(self) -> str:
        if self.guess.by_row:
            return "translate {source_language} to {target_language}: "
        if self.guess.kind == "translation":
            return f"translate {self.guess.source_language} to {self.guess.target_language}: "
        return "parse: " if self.guess.kind == "parsing" else f"{self.guess.name or 'text'}: "

    def _limit(self, side: int) -> int:
        counts_words = side == 1 and self.guess.kind == "parsing" and not self.guess.has_pointers
        per_token = 1 if "byt5" in (self.request.model or "").lower() else CHARACTERS_PER_TOKEN
        texts = (pair[side] for pair in self.rows.sample)
        most = self.family.positions if self.family is not None else None
        length = choose_length(
            [4 + (2 * len(text.split()) if counts_words else _tokens(text, per_token)) for text in texts]
        )
        return length if most is None else min(length, most)

    def _limit_why(self, side: int) -> str:
        cut = "longer ones are cut and counted" if side == 0 else "likewise, in training rows only"
        return f"{PERCENTILE:g} % are shorter; the longest has {count(self.rows.longest[side], 'character')}; {cut}"

    def training(self) -> list[Line]:
        """`training`."""
        plan, num_rows = self.plan, self.num_rows
        rate, why = (SHAPES[self.size[0]].learning_rate, "peak; a small model tolerates a large one")
        if self.request.model is not None:
            is_t5 = self.family is not None and self.family.is_t5
            rate, why = (3e-4, "peak, usual for T5") if is_t5 else (1e-4, "peak, usual for a pretrained model")
        return [
            Line("batch_size", plan.batch_size, "sequences in an optimizer step, over all ranks", "guess"),
            Line("max_steps", plan.max_steps, f"{plan.epochs:,.0f} times over about {count(num_rows, 'row')}", "guess"),
            Line("learning_rate", rate, why, "guess"),
            Line("schedule", "linear", "falls to 0 at the last step"),
            Line("warmup_steps", plan.warmup_steps, "optimizer steps from 0 to the peak: one in twenty", "guess"),
        ]

    def evaluation(self) -> list[Line]:
        """`evaluation`."""
        times = round(self.plan.max_steps / self.plan.evaluate_every)
        return [
            Line("every_steps", self.plan.evaluate_every, f"{times} evaluations", "guess"),
            Line("batch_size", None, "sequences generated together: as many as fit into machine.evaluation_tokens"),
            Line("num_beams", 1, "greedy search; 5 is usual for translation, and slower"),
        ]

    def machine_lines(self) -> list[Line]:
        """`machine`."""
        parts = 8 if self.machine.has_gpu else 2
        return [
            Line("zero_stage", 1, "shard optimizer state over the ranks"),
            Line("min_micro_batches", parts, f"every step can be shared by {parts} ranks"),
        ]

    def logging(self) -> Line:
        """`logging`."""
        return Line("every_steps", self.plan.log_every, "optimizer steps between rows of metrics.jsonl")

    def notes(self) -> list[str]:
        """Rows that cannot be used, and a model that may be too large."""
        found = []
        if self.rows.bad:
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.rows.bad.items())
            found.append(f"training rows that cannot be used: {reasons}; the first at {self.rows.first_bad}")
        if self.num_rows < FEW_ROWS:
            found.append(
                f"only {count(self.num_rows, 'training row')}: enough to try the way, and too few for a model of any use"
            )
        same = sum(source.strip() == target.strip() for source, target in self.rows.sample)
        if 2 * same >= len(self.rows.sample):
            share = (
                "every row"
                if same == len(self.rows.sample)
                else f"{100 * same / len(self.rows.sample):.0f} % of the rows"
            )
            found.append(f"the target equals the source in {share}: is it the column that you mean?")
        parameters = named_size(self.request.model or "")
        if parameters is not None:
            needed = parameters * OPTIMIZER_BYTES / 1e9
            found.append(f"about {parameters / 1e6:,.0f}M parameters by the model's name: {needed:,.0f} GB with Adam")
            memory = self.machine.memory_bytes
            if not self.machine.has_gpu and memory is not None and needed * 1e9 > memory:
                found.append(f"that is more than the memory of this machine: {self.machine}")
        return found


def _tokens(text: str, per_token: int) -> float:
    """A cautious count of the tokens of a text: a letter of an alphabet is a part of one, any other character is one."""
    alphabetic = sum(char < "\u0e00" for char in text)
    return len(text) - alphabetic + alphabetic / per_token
