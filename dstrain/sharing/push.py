"""What a push would do, before it does anything: which model of a run, its card, its files, and what must be said first."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dstrain.config.arguments import shell_command
from dstrain.config.yaml_source import shown
from dstrain.errors import UserError
from dstrain.reporting.card import build_model_files, find_models
from dstrain.reporting.usage import load_from_hub
from dstrain.run_folder.layout import BEST, NAMES, RunFolder
from dstrain.run_folder.reading import read_bytes, read_exported_step
from dstrain.run_folder.record import RunRecord, load_record
from dstrain.sharing.card import check_card, states_license
from dstrain.sharing.contents import Contents, Problem, collect, refuse

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_PART}/{_PART}")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
MAX_REPO = 96
MAIN = "main"
CONFIG, WEIGHTS = "config.json", ".safetensors"
"""The file, and the suffix of files, without which a folder holds no model."""


@dataclass(frozen=True, slots=True)
class Push:
    """A model that is to be sent."""

    repo: str
    """`owner/name`."""
    branch: str | None
    """None: the main one."""
    private: bool
    run: Path
    folder: Path
    step: int | None
    card: str
    """As it goes up, which differs from that in the folder by the model's name on the Hub at least."""
    contents: Contents
    notes: tuple[str, ...]
    """Sentences that the user must have read."""

    def is_unchanged(self) -> bool:
        """Whether the folder still holds the model that was looked at: a run that trains replaces it by a better one."""
        return read_exported_step(self.folder) == self.step and all(
            not isinstance(content, Path) or os.path.isfile(content) for content in self.contents.files.values()
        )


def plan_push(
    run: Path,
    *,
    repo: str,
    branch: str | None = None,
    private: bool = False,
    model: str | None = None,
    exported: Path | None = None,
) -> Push:
    """What is sent of a run, all of it checked; nothing is written.

    Args:
        model: the folder of the model in the run folder; None is the best one.
        exported: a folder elsewhere with a model of the run.

    Raises:
        UserError: the name is none, the run has no such model, or something in its folder must not be shared.
    """
    check_names(repo, branch=branch)
    record = load_record(run)
    folder, record = _choose(record, run=run, model=model, exported=exported)
    made, notes = _make_card(record, run=run, folder=folder)
    text = load_from_hub(made[str(NAMES.card)].decode(), repo=repo, revision=branch)
    contents = collect(folder, made={**made, str(NAMES.card): text.encode()})
    of_card = (Problem(folder / NAMES.card, rule, line) for line, rule in check_card(text, names=contents.files.keys()))
    refuse((*contents.problems, *of_card))
    for name, is_there in (
        (CONFIG, CONFIG in contents.files),
        (f"file *{WEIGHTS}", any(name.endswith(WEIGHTS) for name in contents.files)),
    ):
        if not is_there:
            raise UserError(f"{folder} holds no model: there is no {name} in it; dstrain export writes it again")
    notes = (*_say_unfinished(record, run=run), *notes, *_say_license(text, run=run))
    return Push(repo, branch, private, run, folder, read_exported_step(folder), text, contents, notes)


def check_names(repo: str, *, branch: str | None) -> None:
    """Raise UserError where the Hub could have no repository or branch of this name."""
    if len(repo) > MAX_REPO or not _REPO.fullmatch(repo) or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise UserError(
            "the name on the Hub must be owner/name, of letters, digits, `-`, `_` and `.`, without `--` and `..`, at most "
            f"{MAX_REPO} characters; found {shown(repo)}"
        )
    if branch is not None and (not _BRANCH.fullmatch(branch) or ".." in branch or branch.startswith("refs/")):
        raise UserError(f"--revision must be the name of a branch, such as v2; found {shown(branch)}")


def describe_push(push: Push, *, endpoint: str) -> Iterator[str]:
    """What goes up and where, what stays here, and what the user must know, a line each."""
    sizes = push.contents.sizes
    step = "" if push.step is None else f", step {push.step:,}"
    # a checkpoint was exported to a folder that is gone afterwards
    folder = push.folder if push.folder.is_relative_to(push.run) else push.run
    yield f"{folder}{step}, to {endpoint}/{push.repo}, branch {push.branch or MAIN}"
    width = len(f"{max(sizes.values()):,}")
    yield from (f"  {size:>{width},}  {name}" for name, size in sizes.items())
    yield f"{len(sizes)} files, {sum(sizes.values()):,} bytes"
    yield from (f"stays here: {name} ({why})" for name, why in push.contents.left_out.items())
    yield from (f"note: {note}" for note in push.notes)


def _choose(record: RunRecord, *, run: Path, model: str | None, exported: Path | None) -> tuple[Path, RunRecord]:
    """The folder that is sent, and the record with that model as its subject."""
    models = find_models(record)
    if exported is not None:
        step = read_exported_step(exported)
        name = f"step-{step}"
        return exported, replace(record, subject=name, exports={**record.exports, name: step})
    if not models:
        raise UserError(f"{run} holds no model yet: the first evaluation writes {BEST}/")
    name = model or models[0]
    if name not in models:
        raise UserError(f"{run} holds no {name}/: it has {', '.join(f'{each}/' for each in models)}")
    if record.status != "finished" and name != BEST:
        raise UserError(
            f"{run} has not finished, and of such a run only the best model so far is sent: leave out --{name}"
        )
    return run / name, replace(record, subject=name)


def _make_card(record: RunRecord, *, run: Path, folder: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The card, and plots that the folder lacks; what has to be said about them.

    The card in the folder is taken, which a user may have completed. A run that trains on has not written its own yet.
    """
    built = {
        name: content.encode() if isinstance(content, str) else content
        for name, content in build_model_files(record).items()
    }
    path = folder / NAMES.card
    if record.status == "interrupted" or not os.path.lexists(path):
        there = (f"{path} is of an earlier end of the run: it stays here, and a new one is made",) * os.path.lexists(
            path
        )
        return built, there
    written = read_bytes(path)
    try:
        written.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): correct it") from error
    if written == built[str(NAMES.card)]:
        return {str(NAMES.card): written}, ()
    note = (
        f"{path} was edited, or is older than the scores of the run. It goes up as it is; for a new one remove it, and run: "
        f"{shell_command(['dstrain', 'card', run])}"
    )
    return {str(NAMES.card): written}, (note,)


def _say_unfinished(record: RunRecord, *, run: Path) -> Iterator[str]:
    if record.status == "finished":
        return
    total = record.info.total_steps
    of = f" of {total:,}" if total is not None else ""
    state = "was stopped" if record.status == "stopped" else "is still running or was killed"
    yield (
        f"{run} has not finished: it {state}, at step {record.last_step:,}{of}. This is its best model so far, and the card "
        "says so"
    )


def _say_license(card: str, *, run: Path) -> Iterator[str]:
    if not states_license(card):
        command = shell_command(["dstrain", "card", run])
        yield (
            "no licence is stated, and others cannot know whether they may use the model. Check those of the base model and the "
            f"data, write `card: {{license: …}}` in {RunFolder(run).config}, and the card again: {command}"
        )
