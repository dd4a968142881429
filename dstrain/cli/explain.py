"""`dstrain explain`: what a key, a score, a state or an exit code means, and where a recipe sets a key."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from dstrain.cli.common import RECIPE, Overrides, clean_errors
from dstrain.cli.completion import complete_key, complete_recipe
from dstrain.cluster.console import say
from dstrain.cluster.exit_codes import MEANINGS as EXIT_CODES
from dstrain.config.arguments import shell_command
from dstrain.config.explain import (
    Explanation,
    explain_key,
    explain_metric,
    explain_trainer_argument,
    find_close,
    find_meant,
)
from dstrain.config.load import read_recipe
from dstrain.config.shipped import find_recipe
from dstrain.config.vocabulary import all_keys, fields_at
from dstrain.config.yaml_source import Document, dotted
from dstrain.errors import UserError
from dstrain.reporting.terminal import aligned
from dstrain.status.judge import MEANINGS as STATES

_STATES = Explanation("states of a run", tuple(STATES.items()))
_EXIT_CODES = Explanation("exit codes", tuple((str(code), meaning) for code, meaning in EXIT_CODES.items()))
LISTS: Mapping[str, Explanation] = {
    **dict.fromkeys(("state", "states"), _STATES),
    **dict.fromkeys(("exit.code", "exit.codes"), _EXIT_CODES),
}
"""What is listed by a name of its own, with dots between its words."""


def explain(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY", help="A key such as training.batch_size, or its last part.", autocompletion=complete_key
        ),
    ],
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", help=f"{RECIPE} Shows its value, and where it is set.", autocompletion=complete_recipe
        ),
    ] = None,
) -> None:
    """Say what a key of a recipe means, with its type, unit and default; or a score, a state of a run, an exit code."""
    settings = [each for each in overrides or () if "=" in each]
    name = " ".join([key.strip(), *(each for each in overrides or () if "=" not in each)])
    with clean_errors():
        document = None if config is None else read_recipe(config, overrides=settings)
        found = list(_explain(name, document=document))
        if not found:
            raise UserError(f"{name}: neither a key, nor a score, a state or an exit code; {_hint(name)}")
    say("\n\n".join(_as_text(each) for each in found))


def _hint(name: str) -> str:
    if find_recipe(name) is not None:
        return f"it is a recipe, which {shell_command(['dstrain', 'check', name])} looks at"
    if close := find_close(name):
        return f"did you mean {' or '.join(close)}?"
    sections = (str(path[0]) for path in all_keys() if len(path) == 1 and fields_at(path))
    sections_are = f"`dstrain explain SECTION` lists keys, and the sections are {', '.join(sections)}"
    return f"{sections_are}; `dstrain explain states` and `exit codes` list those"


def _explain(name: str, *, document: Document | None) -> Iterator[Explanation]:
    key = name.replace(" ", ".")  # `training batch_size`
    for path in find_meant(key):
        yield explain_key(path, written=key if dotted(path) != key else "", document=document)
    yield from filter(None, (explain_metric(name), explain_trainer_argument(name)))
    yield from filter(None, (LISTS.get(key.lower().replace("_", ".").replace("-", ".")),))
    for state, meaning in STATES.items():
        if state == name:
            yield Explanation(f"{name} (a state of a run)", (("meaning", meaning),))
    if name.isdecimal() and int(name) in EXIT_CODES:
        yield Explanation(f"{name} (an exit code)", (("meaning", EXIT_CODES[int(name)]),))


def _as_text(explanation: Explanation) -> str:
    parts = [explanation.title]
    width = max(len(topic) for topic, _ in explanation.rows)
    parts += [f"  {topic:<{width}}  {text}" for topic, text in explanation.rows]
    if explanation.keys:
        table = aligned([("key", "default", "meaning"), *explanation.keys])
        parts += ["", *(f"  {line}" for line in table.split("\n"))]
    return "\n".join(parts)
