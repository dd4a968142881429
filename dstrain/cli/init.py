"""`dstrain init`: data files as a first recipe."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from dstrain.cli.common import check_new, clean_errors, create_recipe
from dstrain.cluster.console import say
from dstrain.cluster.signals import ending_in_order

Kind = Literal["translation", "parsing", "text"]
Size = Literal["tiny", "small", "base", "large"]
Device = Literal["cpu", "cuda"]
Evaluation = Annotated[
    list[str] | None,
    typer.Option("--eval", metavar="FILE", help="A file of evaluation rows; without one, some rows are set apart."),
]
Output = Annotated[
    Path | None, typer.Option("--output", metavar="FILE", help="The recipe to write; default is NAME.yaml.")
]
SourceColumn = Annotated[
    str | None, typer.Option("--source-column", metavar="COLUMN", help="Name or number of the column of the sources.")
]
TargetColumn = Annotated[
    str | None, typer.Option("--target-column", metavar="COLUMN", help="Name or number of the column of the targets.")
]
SourceLanguage = Annotated[
    str | None, typer.Option("--source-language", metavar="CODE", help="Language of the sources.")
]
TargetLanguage = Annotated[
    str | None, typer.Option("--target-language", metavar="CODE", help="Language of the targets.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="A pretrained model, by its name on the Hub or its folder."),
]


def init(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Files with a source and a target in each row, or owner/name."),
    ],
    evaluation: Evaluation = None,
    output: Output = None,
    name: Annotated[str | None, typer.Option("--name", help="What the run is called.")] = None,
    task: Annotated[Kind | None, typer.Option("--task", help="What a row means.")] = None,
    source_language: SourceLanguage = None,
    target_language: TargetLanguage = None,
    source_column: SourceColumn = None,
    target_column: TargetColumn = None,
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a dataset on the Hub.")] = None,
    model: Model = None,
    size: Annotated[Size | None, typer.Option("--size", help="Size of a model from scratch.")] = None,
    device: Annotated[Device | None, typer.Option("--device", help="What the run will compute on.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Write a first recipe for data files, with a comment behind every line, and say every guess in it."""
    with clean_errors(), ending_in_order():
        # here, because other commands need none of it
        from dstrain.draft.from_data import check_request, draft_from_data, recipe_path
        from dstrain.draft.look import Asked
        from dstrain.draft.machine import look_at_machine
        from dstrain.draft.report import next_commands, report_on_data
        from dstrain.draft.sections import Request
        from dstrain.draft.split import split_rows

        columns = [
            int(each) if each is not None and each.isdecimal() else each for each in (source_column, target_column)
        ]
        request = Request(
            files=tuple(files),
            evaluation_files=tuple(evaluation or ()),
            asked=Asked(columns[0], columns[1], source_language, target_language, subset),
            kind=task,
            model=model,
            size=size,
            name=name,
        )
        check_request(request)
        path = recipe_path(request, output=output)
        check_new(path)  # before the data are read, which may take minutes
        draft = draft_from_data(request, machine=look_at_machine(device=device), path=path)
        say(report_on_data(draft, path=path))
        if not yes and in_terminal() and not typer.confirm(f"Write {path}?", default=True):
            raise typer.Exit
        if draft.apart is not None:
            sources, train, apart = draft.apart
            say(str(split_rows(sources, num_rows=draft.train_rows.num_rows, train=train, evaluation=apart)))
        create_recipe(path, draft.text)
        say(f"wrote {path}\n{next_commands(path)}")


def in_terminal() -> bool:
    """Whether there is someone to ask."""
    return sys.stdin.isatty() and sys.stdout.isatty()
