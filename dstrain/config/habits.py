"""Arguments as other tools want them, and what to type here instead. Pure.

So `--num_train_epochs 3`, `--training.epochs 3` and `training.epochs 3` are all answered with `training.epochs=3`.
"""

import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from dstrain.config.arguments import shell_command
from dstrain.config.secrets import mask
from dstrain.config.shipped import shipped_recipes
from dstrain.config.trainer_names import (
    ACCUMULATION,
    BATCH_SIZES,
    BETAS,
    ELSEWHERE,
    FILES,
    KEYS,
    OPTIMIZERS,
    SCHEDULES,
    SWITCHES,
    WITHOUT_VALUE,
)
from dstrain.config.vocabulary import all_keys, fields_at
from dstrain.config.yaml_source import KeyPath, dotted, write_value

Options = Mapping[str, bool]
"""Each option of a command, such as `--config`, to whether a value follows it."""

TRUTHS, LIES = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
RECIPE_SUFFIXES = (".yaml", ".yml")
CUTOFF = 0.8
"""How alike two names must be for one to be taken for the other."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What was typed, and what to type instead."""

    typed: tuple[str, ...]
    instead: tuple[str, ...] | None
    """Nothing if it is left out; None if that cannot be told."""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """An option that the command does not have, as it was typed."""

    name: str
    """Without dashes, with `_` for `-`."""
    value: str | None
    words: tuple[str, ...]


def correct(
    arguments: Sequence[str], *, program: str, options: Options, num_ranks: int = 1, takes_recipe: bool = False
) -> str | None:
    """What to type instead of these arguments, as a message; None if there is nothing to correct.

    Args:
        program: the words before the arguments.
        options: those of the command itself.
        num_ranks: how many ranks share a step, by which a batch size of one device is multiplied.
        takes_recipe: whether the recipe is an argument by itself, and not the value of `--config`.
    """
    found = list(_read(list(arguments), options=options, takes_recipe=takes_recipe))
    given = {each.name: each.value for each in found if isinstance(each, Given)}
    corrected = [
        each if isinstance(each, Correction) else _correct(each, given_too=given, options=options, num_ranks=num_ranks)
        for each in found
    ]
    wrong = [each for each in corrected if each.instead != each.typed]
    if not wrong:
        return None
    rows = [(_shown(each.typed), _advice(each)) for each in wrong]
    width = max(len(typed) for typed, _ in rows)
    lines = [f"{program}: this is written otherwise here:", *(f"  {a:<{width}}  {b}" for a, b in rows)]
    if all(each.instead is not None for each in corrected):
        groups = dict.fromkeys(each.instead or () for each in corrected)  # two options may have become one override
        lines.append(f"all together: {program} {_shown([word for group in groups for word in group])}")
    return "\n".join(lines)


def _advice(correction: Correction) -> str:
    instead = _shown(correction.instead) if correction.instead else ""
    return f"{instead}  ({correction.why})" if instead and correction.why else instead or correction.why


def _shown(words: Sequence[str]) -> str:
    return shell_command(mask(word) for word in words)


def _read(words: list[str], *, options: Options, takes_recipe: bool) -> Iterator[Correction | Given]:
    """The arguments in order: those that are right as they are, those that can be corrected by themselves, and the others."""
    has_recipe = takes_recipe or any(word.partition("=")[0] == "--config" for word in words)
    while words:
        word = words.pop(0)
        own = _own_option(word, options=options)
        if own is not None:
            kept = (word, words.pop(0)) if own and "=" not in word and words else (word,)
            yield Correction(kept, kept)
        elif word.startswith("--") and len(word) > len("--"):
            yield _read_option(word, words, takes_recipe=takes_recipe)
        elif is_key(word) and words and _is_value(words[0]) and (has_recipe or not _is_recipe(words[0])):
            yield Correction((word, words[0]), (f"{word}={words.pop(0)}",))
        elif not has_recipe and _is_recipe(word):
            has_recipe = True
            yield Correction((word,), ("--config", word))
        else:
            yield Correction((word,), (word,))


def _own_option(word: str, *, options: Options) -> bool | None:
    """Whether a value follows an option of the command itself; None if it is none. Beginnings count, as for argparse."""
    name = word.partition("=")[0]
    if name in options:
        return options[name]
    begun = [
        option for option in options if name.startswith("--") and len(name) > len("--") and option.startswith(name)
    ]
    return options[begun[0]] if len(begun) == 1 else None


def _read_option(word: str, words: list[str], *, takes_recipe: bool) -> Correction | Given:
    written, equals, value = word.removeprefix("--").partition("=")
    name, typed = written.replace("-", "_"), [word]
    following = words[0] if words else None
    may_follow = name not in WITHOUT_VALUE or (following or "").lower() in (*TRUTHS, *LIES)
    if not equals and may_follow and following is not None and _is_value(following):
        value, equals = words.pop(0), "="
        typed.append(value)
    if takes_recipe and name == "config" and equals:
        return Correction(tuple(typed), (value,))
    return Given(written if "." in written else name, value if equals else None, tuple(typed))


def _is_value(word: str) -> bool:
    """Whether a word may be the value of an option before it: a negative number may, an option or an override not."""
    key = word.partition("=")[0]
    return not word.startswith("--") and not ("=" in word and is_key(key))


def _is_recipe(word: str) -> bool:
    is_file = word.endswith(RECIPE_SUFFIXES) or os.path.isfile(word)
    return "=" not in word and (is_file or word in shipped_recipes())


def is_key(text: str) -> bool:
    """Whether a text is the dotted name of a key."""
    *section, last = (int(part) if part.isdecimal() else part for part in text.split("."))
    return last in fields_at(tuple(section))


def find_keys(name: str) -> list[KeyPath]:
    """The keys that end with a name, such as `batch_size` or `train.path`; none of them if it is no end of any."""
    parts = tuple(name.split("."))
    return [path for path in all_keys() if path[-len(parts) :] == parts]


def _correct(given: Given, *, given_too: Mapping[str, str | None], options: Options, num_ranks: int) -> Correction:
    name, value = given.name, given.value
    if name in BATCH_SIZES:
        return _batch_size(given, given_too=given_too, num_ranks=num_ranks)
    if name == ACCUMULATION and any(each in given_too for each in BATCH_SIZES):
        return Correction(given.words, (), "it is in training.batch_size")
    if name in ELSEWHERE:
        return Correction(given.words, (), ELSEWHERE[name])
    if name in SWITCHES:
        is_on = value is None or value.lower() not in LIES
        return Correction(
            given.words, (SWITCHES[name],) if is_on else (), "" if is_on else "that is the default: leave it out"
        )
    if name in BETAS:
        betas = [given_too.get(each) or default for each, default in zip(BETAS, ("0.9", "0.999"), strict=True)]
        return Correction(given.words, (f"training.betas=[{', '.join(betas)}]",))
    if (option := f"--{name.replace('_', '-')}") in options:
        return Correction(given.words, (option, *([value] if value is not None else [])))
    if name in KEYS or name in FILES:
        return _set(given, KEYS.get(name, name))
    if is_key(name):
        return _set(given, name)
    ends = find_keys(name)
    if len(ends) == 1:
        return _set(given, dotted(ends[0]))
    if ends:
        return Correction(given.words, None, f"which of these: {', '.join(f'{dotted(end)}=…' for end in ends)}")
    return _nearest(given, options=options)


def _set(given: Given, key: str) -> Correction:
    """The override of a key, with a value of the same meaning."""
    name, value = given.name, given.value
    if value is None:
        return Correction(given.words, None, f"it needs a value: {key}=…")
    if name in FILES:
        return Correction(given.words, (FILES[name].format(write_value(value)),))
    if name == "lr_scheduler_type":
        value = SCHEDULES.get(value, (value, ""))[0]
    elif name == "optim":
        value = OPTIMIZERS.get(value, value)
    elif name == "metric_for_best_model":
        value = value.removeprefix("eval_")
    if _takes_text(key) and value != "null" and not value.startswith(("'", '"', "[", "{")):
        value = write_value(value)
    return Correction(given.words, (f"{key}={value}",))


def _takes_text(key: str) -> bool:
    """Whether a value is text, which YAML must not read as something else."""
    *section, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    annotation = fields_at(tuple(section))[str(last)].annotation
    members = {annotation, *typing.get_args(annotation)}
    members |= {inner for member in members for inner in typing.get_args(member)}
    return str in members and int not in members


def _batch_size(given: Given, *, given_too: Mapping[str, str | None], num_ranks: int) -> Correction:
    """`training.batch_size`, which counts a whole step: of all devices and all accumulated batches."""
    parts = [given.value or "", given_too.get(ACCUMULATION) or "1"]
    if not all(part.isdecimal() for part in parts):
        return Correction(given.words, None, "training.batch_size=…, the sequences of a step over all ranks")
    size, accumulated = map(int, parts)
    factors = [f"{accumulated} accumulated"] if accumulated > 1 else []
    factors += [f"{num_ranks} ranks"] if num_ranks > 1 else []
    counted = f"{size} × {' × '.join(factors)}: " if factors else ""
    why = f"{counted}the sequences of a step over all ranks"
    return Correction(given.words, (f"training.batch_size={size * accumulated * num_ranks}",), why)


def _nearest(given: Given, *, options: Options) -> Correction:
    """The option or key that was meant, by its spelling."""
    name = given.name
    option = get_close_matches(f"--{name.replace('_', '-')}", options, n=1, cutoff=CUTOFF)
    if option:
        return Correction(given.words, (option[0], *([given.value] if given.value is not None else [])))
    known = [name for path in all_keys() for name in (dotted(path), path[-1])]
    close = get_close_matches(name, [*KEYS, *SWITCHES, *ELSEWHERE, *known], n=1, cutoff=CUTOFF)
    if not close:
        why = "not known here; a key of the recipe is set by key=value, and `dstrain explain KEY` says what it means"
        return Correction(given.words, None, why)
    if close[0] in ELSEWHERE:
        return Correction(given.words, None, f"did you mean --{close[0]}? {ELSEWHERE[close[0]]}")
    if close[0] in SWITCHES:
        return Correction(given.words, (SWITCHES[close[0]],), "if that is meant")
    ends = [KEYS[close[0]]] if close[0] in KEYS else [dotted(path) for path in find_keys(close[0])]
    if len(ends) == 1 and given.value is not None:
        return Correction(given.words, (f"{ends[0]}={given.value}",), "if that is meant")
    return Correction(given.words, None, f"did you mean {' or '.join(f'{end}=…' for end in ends)}?")
