"""Arguments as other tools want them, and what to type here instead. Pure.

So `--num_train_epochs 3`, `--training.epochs 3` and `training.epochs 3` are all answered with `training.epochs=3`.
"""

import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

from dstrain.config.arguments import given_twice, shell_command
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
from dstrain.config.vocabulary import all_keys, field_of, find_keys, first_inside, is_key, is_list, is_section
from dstrain.config.yaml_source import dotted, write_value

Options = Mapping[str, bool]
"""Each option of a command, such as `--config`, to whether a value follows it."""

TRUTHS, LIES = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
RECIPE_SUFFIXES = (".yaml", ".yml")
CUTOFF = 0.8
"""How alike two names must be for one to be taken for the other."""
SHORT: Mapping[str, str] = {"c": "config", "h": "help"}
"""An option of one letter to the one that is meant."""
_OPTION = re.compile("--.|-[A-Za-z_]", re.DOTALL)


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
    arguments: Sequence[str],
    *,
    program: str,
    options: Options,
    num_ranks: int = 1,
    takes_recipe: bool = False,
    takes_key: bool = False,
) -> str | None:
    """What to type instead of these arguments, as a message; None if there is nothing to correct.

    Args:
        program: the words before the arguments.
        options: those of the command itself.
        num_ranks: how many ranks share a step, by which a batch size of one device is multiplied.
        takes_recipe: whether the recipe is an argument by itself, and not the value of `--config`.
        takes_key: whether the first argument is the name of a key, as for `dstrain explain`.
    """
    words = list(arguments)
    read = _read_naming if takes_key else partial(_read, takes_recipe=takes_recipe)
    found = list(read(words, options=options))
    given = {each.name: each.value for each in found if isinstance(each, Given)}
    corrected = [
        each if isinstance(each, Correction) else _correct(each, given_too=given, options=options, num_ranks=num_ranks)
        for each in found
    ]
    corrected = list(_refuse_twice(corrected, found=found))
    if takes_key:
        corrected = list(_drop_unused(corrected))
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


def _refuse_twice(corrected: Sequence[Correction], *, found: Sequence[Correction | Given]) -> Iterator[Correction]:
    """The corrections, without an override of a key that another argument has set otherwise.

    Two overrides that were typed as such stay: scripts append theirs, and the last holds.
    """
    first: dict[str, tuple[str, Correction]] = {}
    for correction, read in zip(corrected, found, strict=True):
        key, equals, value = "".join((correction.instead or ())[:1]).partition("=")
        if not equals or not is_key(key):
            yield correction
            continue
        if isinstance(read, Given) and read.name in BETAS:  # two options, of which one override is made
            key, value = read.name, read.value or ""
        earlier, other = first.setdefault(key, (value, correction))
        is_habit = any(each.instead != each.typed for each in (correction, other))
        twice = Correction(correction.typed, None, given_twice(key, earlier, value))
        yield twice if earlier != value and is_habit else correction


def _drop_unused(corrected: Sequence[Correction]) -> Iterator[Correction]:
    """The corrections without the overrides of a recipe that is not named."""
    has_recipe = _names_recipe([word for each in corrected for word in each.instead or ()])
    for each in corrected:
        is_override = any(is_key(word.partition("=")[0]) for word in each.instead or () if "=" in word)
        unused = Correction(each.typed, (), "an override goes with --config RECIPE")
        yield unused if is_override and not has_recipe else each


def _read(words: list[str], *, options: Options, takes_recipe: bool) -> Iterator[Correction | Given]:
    """The arguments in order: those that are right as they are, those that can be corrected by themselves, and the others."""
    has_recipe = takes_recipe or _names_recipe(words)
    while words:
        word = words.pop(0)
        if word == "--":  # no word behind it is an option
            yield Correction((word, *words), (word, *words))
            return
        if (own := _own_option(word, options=options)) is not None:
            yield _kept(word, words, takes_value=own)
        elif _OPTION.match(word):
            yield _read_option(word, words, takes_recipe=takes_recipe)
        elif (override := _read_override(word, words, has_recipe=has_recipe)) is not None:
            yield override
        elif not has_recipe and _is_recipe(word):
            has_recipe = True
            yield Correction((word,), ("--config", word))
        else:
            yield Correction((word,), (word,))


def _read_naming(words: list[str], *, options: Options) -> Iterator[Correction | Given]:
    """The arguments of a command that takes a name first, as `_read` returns them. An option without a name before it is one."""
    has_name, has_recipe = False, _names_recipe(words)
    while words:
        word = words.pop(0)
        if word == "--":
            yield Correction((word, *words), (word, *words))
            return
        key, equals, _ = word.partition("=")
        if (own := _own_option(word, options=options)) is not None:
            yield _kept(word, words, takes_value=own)
        elif _OPTION.match(word):
            option = _read_option(word, words, takes_recipe=False)
            is_name = isinstance(option, Given) and not has_name and is_named(option.name)
            has_name = has_name or is_name
            yield Correction(option.words, (option.name,)) if isinstance(option, Given) and is_name else option
        elif equals and not has_name and is_key(key):
            has_name = True
            yield Correction((word,), (key,))
        elif not has_recipe and _is_recipe(word) and (has_name or any(is_named(_bare(each)) for each in words)):
            has_recipe = True
            yield Correction((word,), ("--config", word))
        else:
            has_name = has_name or not equals
            yield Correction((word,), (word,))


def _names_recipe(words: Sequence[str]) -> bool:
    return any(word.partition("=")[0] in ("--config", "-c") for word in words)


def _kept(word: str, words: list[str], *, takes_value: bool) -> Correction:
    """An option of the command itself with its value, which is taken from the words after it."""
    kept = (word, words.pop(0)) if takes_value and "=" not in word and words else (word,)
    return Correction(kept, kept)


def _read_override(word: str, words: list[str], *, has_recipe: bool) -> Correction | None:
    """An override that was typed as several words, which are taken from `words`; None if these are none."""
    typed, written = [word], word
    inner = f"{word}.{words[0]}" if words and not is_list(word) else ""
    if is_section(word) and is_key(inner.partition("=")[0]):
        typed, written = [word, words[0]], inner
    rest = words[len(typed) - 1 :]
    key, equals, value = written.partition("=")
    if not equals and rest[:1] == ["="]:
        following = [each for each in rest[1:2] if _is_value(each)]
        typed, written = [*typed, "=", *following], "=".join([key, *following])
    elif not equals and rest and rest[0].startswith("=") and rest[0] != "=":
        typed, written = [*typed, rest[0]], f"{key}{rest[0]}"
    elif not value and rest and _can_be_set(key, rest[0]) and (has_recipe or not _is_recipe(rest[0])):
        typed, written = [*typed, rest[0]], f"{key}={rest[0]}"
    if len(typed) == 1:
        return None
    del words[: len(typed) - 1]
    key, equals, value = written.partition("=")
    if not equals:
        return _without_value(tuple(typed), key=key)
    if is_section(key) and not _is_whole(value):
        return Correction(tuple(typed), None, _about_section(key, value=value))
    return Correction(tuple(typed), (written,))


def _can_be_set(key: str, word: str) -> bool:
    """Whether a word may be the value of a key before it."""
    return is_key(key) and _is_value(word) and (not is_section(key) or _is_whole(word))


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
    written, equals, value = word.lstrip("-").partition("=")
    written = SHORT.get(written, written)
    name, typed = written.replace("-", "_"), [word]
    following = words[0] if words else None
    may_follow = name not in WITHOUT_VALUE or (following or "").lower() in (*TRUTHS, *LIES)
    if not equals and may_follow and following is not None and _is_value(following):
        value, equals = words.pop(0), "="
        typed.append(value)
    if takes_recipe and name == "config" and equals:
        return Correction(tuple(typed), (value,))
    return Given(written if "." in written and not is_key(name) else name, value if equals else None, tuple(typed))


def _is_value(word: str) -> bool:
    """Whether a word may be the value of an option before it: a negative number may, an option or an override not."""
    key = word.partition("=")[0]
    return not _OPTION.match(word) and not word.startswith("--") and not ("=" in word and is_key(key))


def _is_recipe(word: str) -> bool:
    is_file = word.endswith(RECIPE_SUFFIXES) or os.path.isfile(word)
    return "=" not in word and (is_file or word in shipped_recipes())


def is_named(name: str) -> bool:
    """Whether something is said of a name: of a key, of the end of one, or of an argument of a trainer."""
    tables = (KEYS, BATCH_SIZES, SWITCHES, FILES, BETAS, ELSEWHERE)
    return is_key(name) or bool(find_keys(name)) or any(name in table for table in tables)


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
    if is_section(key) and name not in FILES and not _is_whole(value or ""):
        return Correction(given.words, None, _about_section(key, value=value or ""))
    if value is None:
        return _without_value(given.words, key=key)
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
    annotation = field_of(key).annotation
    members = {annotation, *typing.get_args(annotation)}
    members |= {inner for member in members for inner in typing.get_args(member)}
    return str in members and int not in members


def _without_value(words: tuple[str, ...], *, key: str) -> Correction:
    return Correction(words, None, f"it needs a value: {key}=…")


def _about_section(key: str, *, value: str) -> str:
    """What to write instead of a section and a value that is none of its own, which may be the name of a key in it."""
    if examples := field_of(key).examples:
        return f"it is written whole: {shell_command([f'{key}={examples[0]}'])}"
    inner = f"{key}.{value}" if is_key(f"{key}.{value}") and not is_list(key) else first_inside(key)
    return f"it has keys of its own, such as {inner}=…"


def _is_whole(value: str) -> bool:
    """Whether a value is that of a whole section or list."""
    return value.startswith(("[", "{")) or value == "null"


def _bare(word: str) -> str:
    """An option as the name that it may be."""
    return word.lstrip("-").partition("=")[0].replace("-", "_")


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
    if len(ends) == 1 and given.value is not None and not is_section(ends[0]):
        return Correction(given.words, (f"{ends[0]}={given.value}",), "if that is meant")
    return Correction(given.words, None, f"did you mean {' or '.join(f'{end}=…' for end in ends)}?")
