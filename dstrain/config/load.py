"""A configuration file, with `extends` and overrides, as a RunConfig; and back to text and hashes. Imports no torch.

Relative paths of data and models are relative to the working directory, not to the configuration file, so that a recipe
of the installed package finds the user's data.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dstrain.config.arguments import shell_command
from dstrain.config.earlier import fill_earlier, lacks_keys
from dstrain.config.problems import find_problems
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.config.shipped import find_recipe, suggest_recipes
from dstrain.config.yaml_source import (
    Document,
    Dumper,
    KeyPath,
    Problem,
    Where,
    apply_override,
    dotted,
    merge_documents,
    read_document,
    shown,
)
from dstrain.errors import UserError

MAX_CONFIG_BYTES = 1 << 20
"""Largest file that is read. The largest shipped recipe has a few thousand bytes."""
MOST_BASES = 8
"""Files that a recipe may build on, one after the other."""

MARKS = {"recipe": ("extends", "model", "task", "data", "training"), "sweep": ("config", "grid", "list")}
"""Top-level keys that only this kind of file has."""


class ConfigError(UserError):
    """Everything that is wrong with a configuration, one problem per line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def load_config(
    path_or_name: str,
    *,
    overrides: Sequence[str] = (),
    check_files: bool = False,
    trains: bool = True,
    is_earlier: bool = False,
    content: bytes | None = None,
) -> RunConfig:
    """The run described by a YAML file, or by a shipped recipe given by name, with `dotted.key=value` overrides.

    A file may build on another one with `extends: other.yaml`, or on a shipped recipe by its name, and that on a third:
    mappings are merged, lists and plain values replaced, and `key: null` unsets a key of the base.

    Args:
        check_files: whether missing data files and model folders are problems too.
        trains: whether the training rows and the model are needed; if not, only evaluation files are checked.
        is_earlier: whether a missing key means what it meant before it existed (`earlier.py`).
        content: what the file holds, if it is read already; such a file builds on no other.

    Raises:
        ConfigError: all problems at once, each with its file and line.
    """
    document = read_recipe(path_or_name) if content is None else _read_whole(_parse(content, file=path_or_name))
    if kind_of(document) == "sweep":
        way_out = f"`{shell_command(['dstrain', 'sweep', path_or_name])}` checks it, and says how to submit it"
        raise ConfigError([Problem(document.place(()), (), "this is a sweep, not a recipe", way_out=way_out)])
    if is_earlier:
        document.value.update(fill_earlier(document.value))
    for text in overrides:
        apply_override(document, text=text)
    config, problems = find_problems(document)
    if check_files:
        problems += _missing_files(document, trains=trains)
    if config is None or problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.where.line == 0, problem.where)))
    return config


def read_recipe(path_or_name: str, *, overrides: Sequence[str] = ()) -> Document:
    """The values of a file or shipped recipe as they are written, with what it extends, and where each was written.

    They are not checked. Raises ConfigError if there is no such file, or if it is not a YAML mapping.
    """
    document = _read_whole(_read_with_base(find_config(path_or_name)))
    for text in overrides:
        apply_override(document, text=text)
    return document


def _read_whole(document: Document) -> Document:
    if not document.value and document.problems:
        raise ConfigError(document.problems)
    return document


def was_written_earlier(content: bytes) -> bool:
    """Whether this is a run's configuration file that was written before a key of `earlier.py` existed."""
    return lacks_keys(_parse(content, file="").value)


def kind_of(document: Document) -> str | None:
    """`recipe` or `sweep`, by the keys of MARKS; None if it has keys of neither or of both."""
    kinds = [kind for kind, keys in MARKS.items() if not document.value.keys().isdisjoint(keys)]
    return kinds[0] if len(kinds) == 1 else None


def find_config(path_or_name: str) -> Path:
    """The file that `path_or_name` means: a path, or the name of a recipe of the current folder or a shipped one.

    Raises:
        ConfigError: there is none.
    """
    path = find_recipe(path_or_name)
    if path is None:
        rule = "neither a file nor a shipped recipe"
        raise ConfigError([Problem(Where(path_or_name, 0), (), rule, way_out=suggest_recipes(path_or_name))])
    return path


def dump_config(config: RunConfig) -> str:
    """Canonical YAML of `config`, every default written out; loads back to an equal configuration."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def recipe_hash(config: RunConfig) -> str:
    """SHA-256 of the recipe half: equal if two runs learn the same."""
    dump = config.model_dump(mode="json")
    recipe = {key: dump[key] for key in RECIPE_KEYS}
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_with_base(path: Path, *, children: tuple[Path, ...] = ()) -> Document:
    document = _read(path)
    if "extends" not in document.value:
        return document
    where = document.place(("extends",))
    base_name = document.value.pop("extends")
    base, problem = _read_base(base_name, children=(*children, path), where=where)
    if problem:
        base.problems.append(problem)
    return merge_documents(base, child=document) if base.value else base


def _read_base(base_name: Any, *, children: tuple[Path, ...], where: Where) -> tuple[Document, Problem | None]:
    key: KeyPath = ("extends",)
    child = children[-1]
    nothing = Document({}, {(): where})
    if not isinstance(base_name, str):
        return nothing, Problem(where, key, "must be the name of another file", shown(base_name))
    path = find_recipe(base_name, folder=child.parent)
    if path is None:
        way_out = f"the path is relative to the file with `extends`; {suggest_recipes(base_name)}"
        return nothing, Problem(where, key, f"no such file: {shown(str(child.parent / base_name))}", way_out=way_out)
    if any(path.samefile(each) for each in children):
        chain = " > ".join(map(str, (*children, path)))
        return nothing, Problem(where, key, "files that extend each other in a ring", shown(chain))
    if len(children) > MOST_BASES:
        rule = f"builds on more than {MOST_BASES} files, one after the other"
        return nothing, Problem(where, key, rule, way_out="copy the keys of some of them")
    return _read_with_base(path, children=children), None


def _read(path: Path) -> Document:
    root = Where(str(path), 1)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        return Document({}, {(): root}, [Problem(root, (), "cannot be read", error.strerror)])
    return _parse(content, file=str(path))


def _parse(content: bytes, *, file: str) -> Document:
    root = Where(file, 1)
    if len(content) > MAX_CONFIG_BYTES:
        return Document(
            {}, {(): root}, [Problem(root, (), f"larger than {MAX_CONFIG_BYTES:,} bytes: not a configuration")]
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        where = Where(file, line)
        return Document({}, {(): where}, [Problem(where, (), "not UTF-8", shown(error.object[error.start]))])
    return read_document(text, file=file)


def _missing_files(document: Document, *, trains: bool) -> Iterator[Problem]:
    """A problem for every data file, and every model name that is a folder path, that is needed and does not exist here."""
    for path, written in _local_paths(document.value):
        if not isinstance(written, str) or not (trains or path[:2] == ("data", "eval")):
            continue
        target = Path(written)
        wanted = "folder" if path[0] == "model" else "file"
        if not (os.path.isdir(target) if wanted == "folder" else os.path.isfile(target)):
            way_out = "`~` is not expanded: write the full path" if written.startswith("~") else None
            if way_out is None and not target.is_absolute():
                way_out = f"relative to {Path.cwd()}; correct it or override `{dotted(path)}=…`"
            is_other = f"is a {'file' if wanted == 'folder' else 'folder'}, and must be a {wanted}: {shown(written)}"
            rule = is_other if os.path.exists(target) else f"no such {wanted}: {shown(written)}"
            yield Problem(document.place(path), path, rule, way_out=way_out)


def _local_paths(value: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Any]]:
    model = value.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    if isinstance(name, str) and (name.startswith(("/", "./", "../", "~")) or name.count("/") > 1):
        yield ("model", "name"), name
    data = value.get("data")
    for side in ("train", "eval"):
        sources = data.get(side) if isinstance(data, dict) else None
        for number, source in enumerate(sources if isinstance(sources, list) else []):
            for key in ("path", "target_path"):
                written = source.get(key) if isinstance(source, dict) else None
                if isinstance(written, list):
                    yield from ((("data", side, number, key, index), path) for index, path in enumerate(written))
                elif written is not None:
                    yield ("data", side, number, key), written
