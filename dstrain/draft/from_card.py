"""A published model card as a recipe: what is stated, the defaults of its trainer, guesses from evidence, and questions. Pure.

Every line says where its value comes from. What is known to be harmful in the card's own settings is named and avoided.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dstrain.config.arguments import shell_command
from dstrain.config.metrics import METRICS, choosing_metrics, wanted_metrics
from dstrain.config.paths import MAX_RUN_NAME
from dstrain.draft.card import ModelCard
from dstrain.draft.families import NamedFamily, named_family, named_other, other_pipeline
from dstrain.draft.hyperparameters import (
    STATED,
    evaluation_batch_size,
    framework,
    precision,
    seed,
    steps,
    training_lines,
)
from dstrain.draft.languages import language_pair, spell
from dstrain.draft.published import Results, best_step, cadence, read_results
from dstrain.draft.recipe_text import Items, Line, Rows, Section, section, write_recipe

OLD_CAP = 20
"""Tokens at which `generate()` of transformers cuts a hypothesis by default, the first of them included."""
EXAMPLE_TOKENS = 1024
"""The longest source in the examples of transformers by default."""
CUT_SCORES = ("exact_match", "bleu", "rouge_l", "rouge_1")
"""Scores that a hypothesis cut too early lowers."""
PARSES = frozenset({"mtop", "top", "topv2", "parse", "parsing", "parser", "pointer", "semantic", "slurp"})
SUMMARIES = frozenset(
    {"xsum", "cnn", "dailymail", "samsum", "summarization", "summarisation", "summary", "summ", "xlsum", "billsum"}
)
"""Words of names that speak of a task."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe that was drafted, and what is to be said of it."""

    name: str
    lines: tuple[Line, ...]
    text: str
    harm: tuple[str, ...]
    """What is known to be harmful in the card's own settings, and what the recipe does instead."""


def draft_from_card(card: ModelCard, *, file: str | None = None) -> Draft:
    """The recipe of a card; `file` is where it will lie, by default NAME.yaml."""
    results = read_results(card)
    family = named_family(card.base_model or "")
    name = recipe_name(card)
    kind, why = _kind(card, family=family, results=results)
    precise, overflow = precision(card, family)
    evaluation, harm = _evaluation(card, results, kind=kind, family=family)
    lines = (
        Line("name", name, f"names the run folder, runs/{name}, and the model card"),
        seed(card),
        precise,
        section("model", *_model(card, family=family), why="where the model comes from"),
        section("task", *_task(card, kind, why=why, family=family), why="what a row means"),
        section("data", *_data(card, kind, name=name), why="training and evaluation rows"),
        section("training", *training_lines(card, results), why="how the weights change"),
        section("evaluation", *evaluation, why="when and how the model is scored"),
        section("machine", *_machine(card, results), why="how it is computed: nothing here changes what is learned"),
        section(
            "checkpoint",
            Line(
                "every_minutes", 10, "besides every evaluation: a kill costs ten minutes at most; 0 switches this off"
            ),
            why="when the full state is saved",
        ),
        section(
            "logging",
            Line("every_steps", 50, "steps between rows of metrics.jsonl"),
            why="what is written while training",
        ),
        *_card(card, results),
    )
    found = tuple(each for each in (overflow, *harm) if each is not None)
    return Draft(name, lines, write_recipe(lines, head=_head(card, results, file=file or f"{name}.yaml")), found)


def recipe_name(card: ModelCard) -> str:
    """A name for the run: the card's title, as far as a folder can be called so."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", card.title.rpartition("/")[2]).strip("-._")[:MAX_RUN_NAME]
    return name or "from-card"


def _head(card: ModelCard, results: Results, *, file: str) -> list[str]:
    length = steps(card, results)
    table = f"; its table fits about {length.num_rows:,} training rows" if length.num_rows else ""
    return [
        shell_command(["deepspeed", "--module", "dstrain.train", "--config", file]),
        "",
        f"The recipe of the model card `{card.title or card.file}`, drafted by `dstrain recipe from-card`{table}.",
        f'"{STATED}" stands behind what the card states. Where it is silent the recipe has the defaults of {framework(card)} and '
        "says so. Answer what begins with `question:` before you rely on a comparison with the card's results.",
    ]


def _model(card: ModelCard, *, family: NamedFamily | None) -> list[Line]:
    base = card.base_model or ""
    other = _other(card, family=family)
    if other is not None:
        why = f"the card began with `{base}`{other}, and only encoder-decoders can be trained here: which one instead?"
        name = Line("name", None, why, "question")
    elif re.fullmatch(r"(?!\.)[\w.-]+(/[\w.-]+)?", base, flags=re.ASCII):
        what = "" if family else "; is it an encoder-decoder? Its name speaks of no known family"
        name = Line("name", base, f"{STATED}; a local folder works as well{what}", "stated")
    elif base:
        name = Line(
            "name", None, f"the card began with `{base}`, a folder of its author: which model is it?", "question"
        )
    else:
        name = Line("name", None, "the card does not say which model it began with: which one is it?", "question")
    lines = [
        name,
        Line("revision", None, "newest; put a commit of the hub here to make the run repeatable"),
        Line("dropout", None, "the model's own"),
    ]
    if family is not None and family.drops_layers:
        why = "the model's own, which the card's model was trained with, is `layerdrop: 0.05`: ZeRO 3 cannot run it"
        lines.append(Line("layerdrop", 0.0, why))
    if "peft" in card.tags:
        why = "the card is of an adapter by peft and states neither rank nor targets: which?"
        lines.append(section("adapter", Line("kind", "lora", why, "question"), why="trains a few matrices"))
    return lines


def _other(card: ModelCard, *, family: NamedFamily | None) -> str | None:
    """What on the card says that its model is no encoder-decoder of text; None if nothing does."""
    pipeline = other_pipeline(card.tags)
    title = None if family is not None else named_other(card.base_model or "", *card.tags)
    evidence = [f", a name of {title}"] if title else []
    return "".join([*evidence, *([f", its pipeline is `{pipeline}`"] if pipeline else [])]) or None


def _kind(card: ModelCard, *, family: NamedFamily | None, results: Results) -> tuple[str, str]:
    """`task.kind` and the evidence for it."""
    words = set(re.split(r"[^a-z0-9]+", " ".join([card.title, *card.datasets, *card.tags]).lower()))
    if "exact_match" in results.names and words & PARSES:
        return "parsing", f"its names say `{min(words & PARSES)}`, and it is scored by exact match"
    if "translation" in words or {"bleu", "chrf", "ter"} & set(results.names):
        return "translation", "it is scored by BLEU" if "bleu" in results.names else "its tags or scores say so"
    if words & SUMMARIES or any(name.startswith("rouge") for name in results.names):
        return "text", "it is scored by ROUGE, or its names speak of summaries"
    if family is not None and (family.has_languages or family.name == "marian"):
        return "translation", f"its base is {family.title}, a translation model"
    if words & PARSES:
        return "parsing", f"its names say `{min(words & PARSES)}`"
    return "text", "nothing on the card speaks of translation or parsing"


def _task(card: ModelCard, kind: str, *, why: str, family: NamedFamily | None) -> list[Line]:
    lines = [Line("kind", kind, f"a guess: {why}", "guess")]
    if kind == "parsing":
        words = re.split(r"[^a-z0-9]+", card.title.lower())
        form, evidence = ("pointer", "a guess by the name") if "pointer" in words else ("plain", "a guess")
        lines.append(
            Line(
                "form",
                form,
                f"{evidence}: `pointer` writes words of the utterance as <pt-N>, `plain` keeps them",
                "guess",
            )
        )
        if form == "pointer":
            cut = "are utterances cut at the words of their parse, as by Held et al.? Else `words`"
            lines.append(Line("segmentation", "published", cut, "question"))
    if kind == "translation":
        lines += _languages(card, family=family)
    if family is not None and family.reads_prefix:
        prefix = "parse: " if kind == "parsing" else ""
        lines.append(
            Line(
                "source_prefix", prefix, "the card does not say what its sources begin with: which prefix?", "question"
            )
        )
    longest, scripts = EXAMPLE_TOKENS, "the card does not say; default of transformers' examples"
    if family is not None and family.positions is not None and family.positions < longest:
        longest, scripts = (
            family.positions,
            f"the card does not say; models of {family.title} have {family.positions} positions",
        )
    lines.append(Line("max_source_tokens", longest, f"{scripts}; longer ones are cut, and counted", "default"))
    lines.append(Line("max_target_tokens", 128, "likewise, in training rows only", "default"))
    return lines


def _languages(card: ModelCard, *, family: NamedFamily | None) -> list[Line]:
    pair = (
        language_pair(card.title)
        or (card.languages if len(card.languages) == 2 else None)
        or language_pair(card.base_model or "")
    )
    needs_codes = family is not None and family.has_languages
    lines = []
    for number, key in enumerate(("source_language", "target_language")):
        code = spell(pair[number], family=family.name if family else "") if pair else None
        if code is not None:
            direction = "from" if number == 0 else "to"
            why = f"a guess by the names on the card: {direction} `{pair[number] if pair else ''}`"
            lines.append(Line(key, code, why, "guess"))
        elif needs_codes:
            owner = family.title if family else ""
            lines.append(Line(key, None, f"the card does not name the language: which code of {owner}?", "question"))
    return lines


def _data(card: ModelCard, kind: str, *, name: str) -> list[Line]:
    named = [re.sub(r"[^A-Za-z0-9._-]+", "-", each.split()[0]).strip("-._") for each in card.datasets if each.split()]
    folder = next((each for each in named if each), name)
    if card.datasets:
        asked = f"the card names `{', '.join(card.datasets)}` and no file: put its rows here, or use `hub:`"
    else:
        asked = "the card does not name its data: put them here"
    texts = ("the utterance", "its parse") if kind == "parsing" else ("source", "target")
    columns = [
        Line("source_column", 0, f"{texts[0]}; a tab stands between both"),
        Line("target_column", 1, texts[1]),
    ]
    sources = {
        split: Items((Section((Line("path", f"data/{folder}/{split}.tsv", why, "question"), *columns)),))
        for split, why in (
            ("train", asked),
            ("eval", "which rows was the card's model scored on? Keep them out of training"),
        )
    }
    return [
        Line("train", sources["train"], "a list: several sources may be mixed"),
        Line("eval", sources["eval"], "scored at every evaluation"),
    ]


def _evaluation(
    card: ModelCard, results: Results, *, kind: str, family: NamedFamily | None
) -> tuple[list[Line], list[str | None]]:
    extra = _further_metrics(results, kind=kind)
    metric = choosing_metrics(kind, wanted=extra)[0]
    by_loss, loss_harm = _best_by(results, metric=metric)
    cap, cap_harm = _cap(results)
    beams = 1 if family is None else family.num_beams
    searched = (
        f"what published models of {family.title} generate with by default; 1 is greedy and faster"
        if family is not None and beams > 1
        else "greedy search; the card's model may have had beams in its generation settings"
    )
    lines = [
        _cadence(card, results),
        evaluation_batch_size(card),
        Line("num_beams", beams, searched, "default"),
        cap,
        *([Line("metrics", list(extra), "those of the card that this task does not have by itself")] if extra else []),
        by_loss,
    ]
    return lines, [cap_harm, loss_harm]


def _further_metrics(results: Results, *, kind: str) -> tuple[str, ...] | None:
    """`evaluation.metrics`, if the card has scores that the task does not have by default; else None."""
    default = [metric.wanted_as for metric in wanted_metrics(kind, wanted=None) if metric.wanted_as]
    wanted = [metric.wanted_as for metric in METRICS if metric.name in results.names and metric.wanted_as]
    return tuple(dict.fromkeys([*default, *wanted])) if set(wanted) - set(default) else None


def _cadence(card: ModelCard, results: Results) -> Line:
    found = cadence(results.steps)
    if found is not None:
        key, every = found
        return Line(key, int(every), f"{STATED}: its table", "stated")
    if card.table.rows:
        return Line("every_epochs", 1, "the card's table has no steps at even distances; a guess", "guess")
    return Line("every_epochs", 1, "the card has no table of results; a guess", "guess")


def _best_by(results: Results, *, metric: str) -> tuple[Line, str | None]:
    """`evaluation.best_metric`, and what the card's own choice by loss has cost."""
    lowest, best = best_step(results.steps, by="loss"), best_step(results.steps, by=metric)
    headline = results.scores.get("loss")
    is_by_loss = lowest is not None and headline is not None and abs(lowest.scores["loss"] - headline) < 1e-9
    if is_by_loss and lowest is not None and best is not None and best.scores[metric] != lowest.scores.get(metric):
        at_lowest, at_best = (f"{step.scores.get(metric, 0):.4f} at step {step.step:,}" for step in (lowest, best))
        lost = f"{metric} was {at_lowest}, and {at_best}"
        why = f"the card's `best_metric: loss` chose step {lowest.step:,}: {lost}"
        return Line("best_metric", metric, why), f"best by loss: {lost}; the recipe chooses by {metric}"
    why = "chooses the model in best/; `best_metric: loss` may stop short of the best score"
    return Line("best_metric", metric, why), None


def _cap(results: Results) -> tuple[Line, str | None]:
    """`evaluation.max_new_tokens`, and whether the card's scores show that hypotheses were cut at the default of 20 tokens."""
    base = "from the longest reference, so that nothing is cut"
    shown = _cap_evidence(results)
    if shown is None:
        return Line("max_new_tokens", None, f"{base}; `max_new_tokens: {OLD_CAP}` is the old default"), None
    why = f"{base}; the card's looks like the old default, `max_new_tokens: {OLD_CAP}`: {shown}"
    return Line("max_new_tokens", None, why), f"hypotheses cut at {OLD_CAP} tokens: {shown}; the recipe cuts none"


def _cap_evidence(results: Results) -> str | None:
    lengths = [step.scores["gen_len"] for step in results.steps if "gen_len" in step.scores]
    longest = max([*lengths, results.scores.get("gen_len", 0.0)])
    if OLD_CAP - 1.5 <= longest <= OLD_CAP:
        return f"the mean length of its hypotheses is up to {longest:g}"
    loss = results.scores.get("loss")
    same = [step for step in results.steps if loss is not None and abs(step.scores.get("loss", -1.0) - loss) < 1e-9]
    for step in same:
        for name in CUT_SCORES:
            table, opening = step.scores.get(name), results.scores.get(name)
            if table is not None and opening is not None and opening > 1.1 * table:
                return f"its table has {name} {table:g} where {opening:g} was true of the same model, at step {step.step:,}"
    return None


def _machine(card: ModelCard, results: Results) -> list[Line]:
    size = steps(card, results).batch_size
    parts = max(1, min(8, size // 8))
    return [
        Line(
            "zero_stage",
            1,
            "shard optimizer state over the ranks; 2 saves little more here and slows every micro-batch",
        ),
        Line(
            "micro_batch_tokens",
            8192,
            "padded tokens computed at once; lower it if memory runs out, or null to fill a GPU",
        ),
        Line("min_micro_batches", parts, "so many ranks can share every step; raise it for more"),
    ]


def _card(card: ModelCard, results: Results) -> list[Line]:
    """The section `card`, with the results to compare with; none where the card has none."""
    if not results.steps and not results.scores:
        return []
    name = re.sub(r"[^A-Za-z0-9 ./_-]+", " ", card.title).strip(" ./_-")[:MAX_RUN_NAME] or "published"
    opening = [Line("scores", dict(results.scores), "what the card opens with", "stated")] if results.scores else []
    rows = Rows(tuple(_row(step.step, step.epoch, step.scores) for step in results.steps))
    table = [Line("steps", rows, "its table", "stated")] if results.steps else []
    why = "; ".join(["the card of the run compares them with its own", *results.notes])
    published = section("published", Line("name", name, "the card's title", "stated"), *opening, *table, why=why)
    return [section("card", published, why="what the run's card says besides: nothing here changes what is learned")]


def _row(step: int, epoch: float | None, scores: Mapping[str, float]) -> dict[str, Any]:
    return {"step": step, **({} if epoch is None else {"epoch": epoch}), "scores": dict(scores)}
