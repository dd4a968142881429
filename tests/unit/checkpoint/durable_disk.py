"""A simulated disk whose power can be cut after any operation: what POSIX guarantees afterwards, and what it allows.

A file's content is durable as of its last fsync, and so are the names in a directory. Later changes of names may be lost or may
have reached the disk all the same, in any order and each for itself; content that was not synced is gone in either case.
"""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Image = tuple[tuple[str, bytes | None], ...]
"""A tree as (path, content), sorted; None is a directory."""
Names = dict[str, "File | Folder"]
Change = dict[str, "File | Folder | None"]
"""What one operation does to the names of a directory; None removes a name."""


class File:
    """A file: the content that a power cut leaves, None before the first sync."""

    def __init__(self) -> None:
        self.durable: bytes | None = None


class Folder:
    """A directory: the names that a power cut leaves for certain, and the changes since."""

    def __init__(self) -> None:
        self.durable: Names = {}
        self.changes: list[Change] = []

    def now(self) -> Names:
        """The names as this process sees them."""
        return _apply(self.durable, self.changes)

    def outcomes(self) -> list[Names]:
        """The names that a power cut may leave: without the later changes, with one, with all but one, with all."""
        changes = self.changes
        but_one = [changes[:number] + changes[number + 1 :] for number in range(len(changes))]
        chosen = [[], *([change] for change in changes), *but_one, changes]
        found: list[Names] = []
        for some in chosen:
            names = _apply(self.durable, some)
            if names not in found:
                found.append(names)
        return found

    def sync(self) -> None:
        self.durable, self.changes = self.now(), []


class DurableDisk:
    """Watches a directory that is durable itself. `forgets` selects paths whose syncs do nothing."""

    def __init__(self, top: Path, *, after: Callable[[], None], forgets: Callable[[Path], bool]) -> None:
        """`after` is called after every operation, and may look at any number of power cuts."""
        self._top = top
        self._root = Folder()
        self._after = after
        self._forgets = forgets
        self._real_fsync = os.fsync

    def plug_in(self, patch: pytest.MonkeyPatch) -> None:
        """Watch the operations of this process from now on."""
        for name in ("rename", "replace"):
            patch.setattr(os, name, self._watch(getattr(os, name), self._renamed))
        for name in ("unlink", "rmdir", "remove"):
            patch.setattr(os, name, self._watch(getattr(os, name), self._removed))
        patch.setattr(os, "mkdir", self._watch(os.mkdir, self._made))
        patch.setattr(os, "fsync", self._fsync)

    def images(self) -> Iterator[Image]:
        """Every tree that may be found when the power is cut now."""
        self._look(self._root, self._top)
        uncertain = [folder for folder in _folders(self._root) if folder.changes]
        for outcome in itertools.product(*(folder.outcomes() for folder in uncertain)):
            names = {id(folder): names for folder, names in zip(uncertain, outcome, strict=True)}
            yield tuple(sorted(_image(self._root, at="", names=names), key=lambda entry: entry[0]))

    def damage(self, path: Path) -> None:
        """Flip a bit of a file that is already on the disk."""
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        file = self._node(path)
        assert isinstance(file, File)
        file.durable = bytes(content)

    def _watch(self, real: Callable[..., Any], follow: Callable[..., None]) -> Callable[..., Any]:
        def operate(*paths: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            places = [_place(path, dir_fd) for path in paths if isinstance(path, str | bytes | Path)]
            inside = all(place.is_relative_to(self._top) for place in places)
            if inside:
                self._look(self._root, self._top)
            given = {"dir_fd": dir_fd} if dir_fd is not None else {}
            result = real(*paths, **given, **kwargs)
            if inside:
                follow(*places)
                self._after()
            return result

        return operate

    def _fsync(self, descriptor: int) -> None:
        self._real_fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_relative_to(self._top) and not self._forgets(path):
            self._look(self._root, self._top)
            node = self._node(path)
            if isinstance(node, File):
                node.durable = path.read_bytes()
            else:
                node.sync()
            self._after()

    def _look(self, folder: Folder, path: Path) -> None:
        """Add files that were created since: creating a file is not a watched operation."""
        for entry in os.scandir(path):
            node = folder.now().get(entry.name)
            if node is None:
                node = Folder() if entry.is_dir() else File()
                folder.changes.append({entry.name: node})
            if isinstance(node, Folder):
                self._look(node, path / entry.name)

    def _renamed(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent, "the store renames in place only"
        folder = self._parent(old)
        folder.changes.append({old.name: None, new.name: folder.now()[old.name]})

    def _removed(self, path: Path) -> None:
        self._parent(path).changes.append({path.name: None})

    def _made(self, path: Path) -> None:
        self._parent(path).changes.append({path.name: Folder()})

    def _parent(self, path: Path) -> Folder:
        parent = self._node(path.parent)
        assert isinstance(parent, Folder)
        return parent

    def _node(self, path: Path) -> File | Folder:
        node: File | Folder = self._root
        for part in path.relative_to(self._top).parts:
            assert isinstance(node, Folder)
            node = node.now()[part]
        return node


def write_image(image: Image, *, folder: Path) -> None:
    """Make the tree that a power cut leaves."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in image:
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _place(path: Any, dir_fd: int | None) -> Path:
    base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
    return Path(base, os.fsdecode(path))


def _apply(names: Names, changes: list[Change]) -> Names:
    result = dict(names)
    for change in changes:
        for name, node in change.items():
            if node is None:
                result.pop(name, None)
            else:
                result[name] = node
    return result


def _folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    nodes = {id(node): node for names in folder.outcomes() for node in names.values()}
    for node in nodes.values():
        if isinstance(node, Folder):
            yield from _folders(node)


def _image(folder: Folder, *, at: str, names: dict[int, Names]) -> Iterator[tuple[str, bytes | None]]:
    for name, node in names.get(id(folder), folder.durable).items():
        if isinstance(node, File):
            yield f"{at}{name}", node.durable or b""
        else:
            yield f"{at}{name}", None
            yield from _image(node, at=f"{at}{name}/", names=names)
