"""Which token sets of the cache belong to a recipe: noted when they are made, and found again without a tokenizer. No torch.

The note is named after the recipe's data, task and model, and after the sizes and times of local files. So it is not found where
any of these has changed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.config.schema import RunConfig
from dstrain.data.tokens import FORMAT_VERSION, TokenSet, load_token_set
from dstrain.errors import UserError
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.reading import read_bytes

MODEL_KEYS = {"name", "revision", "scratch", "from_run", "add_languages", "vocabulary"}
"""Keys of `model` that decide the token ids."""


@dataclass(frozen=True, slots=True)
class Note:
    """What was made from a recipe's data."""

    train: str
    """Name of the token set's folder in the cache."""
    eval: str
    vocabulary_size: int
    """Rows that the tokenizer needs."""
    special_ids: tuple[int, ...] = ()
    """Ids that training may read though no row holds them."""
    num_kept: int | None = None
    """Ids that `model.vocabulary: seen` keeps."""
    num_new: int = 0
    """Tokens and languages that the model of `model.name` lacked; 0 where all weights are trained."""


_NOTE = TypeAdapter(Note)


@dataclass(frozen=True)
class Found:
    """The token sets of a recipe."""

    note: Note
    train: TokenSet
    eval: TokenSet

    @property
    def num_read(self) -> int:
        """Rows of the input embedding that training reads."""
        occurring = {*self.train.occurring("source").tolist(), *self.train.occurring("target").tolist()}
        return len(occurring | set(self.note.special_ids))


def write_note(config: RunConfig, note: Note, *, cache: Path) -> None:
    """Note which token sets were made from a recipe."""
    write_file(_path(config, cache=cache), json.dumps(asdict(note)))


def find_prepared(config: RunConfig, *, cache: Path) -> Found | None:
    """The token sets of a recipe; None if they are not in the cache."""
    try:
        note: Note = _NOTE.validate_json(read_bytes(_path(config, cache=cache)))
        train, evaluation = (load_token_set(cache / "tokens" / Path(name).name) for name in (note.train, note.eval))
    except (OSError, ValueError, ValidationError, UserError):
        return None
    return Found(note, train, evaluation)


def _path(config: RunConfig, *, cache: Path) -> Path:
    data = config.data.model_dump(mode="json")
    model = config.model.model_dump(mode="json", include=MODEL_KEYS)
    content = [FORMAT_VERSION, config.task.model_dump(mode="json"), data, model, _file_states(config)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache / "prepared" / f"{digest[:32]}.json"


def _file_states(config: RunConfig) -> Sequence[tuple[str, int, int]]:
    states = []
    for source in (*config.data.train, *config.data.eval):
        for name in (source.path, *source.target_paths):
            if name is not None:
                try:
                    found = Path(name).stat()
                except OSError:
                    continue
                states.append((name, found.st_size, found.st_mtime_ns))
    return states
