"""`dstrain predict`: `dstrain.predict` in this process."""

from typing import Annotated

import typer

from dstrain.cli.common import ConfigOption, ModelArgument
from dstrain.cli.completion import complete_choice

FORMATS, DEVICES = ("lines", "tsv", "jsonl"), ("cpu", "cuda")


def predict(
    model: ModelArgument,
    input: Annotated[str, typer.Option("--input", metavar="FILE", help="The rows; `-` is standard input.")] = "-",
    output: Annotated[
        str | None, typer.Option("--output", metavar="FILE", help="Standard output is the default.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="lines, tsv or jsonl; else by the suffix of the input.",
            autocompletion=complete_choice(lambda: FORMATS),
        ),
    ] = None,
    config: ConfigOption = None,
    step: Annotated[int | None, typer.Option("--step", help="Take the checkpoint of this step of a run.")] = None,
    source_column: Annotated[
        str | None, typer.Option("--source-column", help="A name, or in TSV a number from 0; 0, or `source`.")
    ] = None,
    source_language_column: Annotated[
        str | None, typer.Option("--source-language-column", help="Column with the code of each source's language.")
    ] = None,
    target_language_column: Annotated[
        str | None, typer.Option("--target-language-column", help="Column with the code of the wanted language.")
    ] = None,
    source_language: Annotated[str | None, typer.Option("--source-language", help="Code of the sources.")] = None,
    target_language: Annotated[str | None, typer.Option("--target-language", help="Code of the predictions.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Text before every source.")] = None,
    beams: Annotated[int | None, typer.Option("--beams", help="Beam size; 1 is greedy search.")] = None,
    length_penalty: Annotated[
        float | None, typer.Option("--length-penalty", help="Exponent of the length in beam scores.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", help="Longest prediction.")] = None,
    max_source_tokens: Annotated[
        int | None, typer.Option("--max-source-tokens", help="Longest source; longer ones are cut.")
    ] = None,
    n_best: Annotated[
        int | None, typer.Option("--n-best", metavar="N", help="The N best predictions of a row, with their scores.")
    ] = None,
    pointers: Annotated[
        bool, typer.Option("--pointers", help="Parsing: leave `<pt-N>` instead of words of the source.")
    ] = False,
    batch_tokens: Annotated[int | None, typer.Option("--batch-tokens", help="Source tokens of a batch.")] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="cpu or cuda; a GPU is the default if any.",
            autocompletion=complete_choice(lambda: DEVICES),
        ),
    ] = None,
) -> None:
    """Translate or parse the rows of a file in one process. For several: `torchrun … launch/predict.py`."""
    given = {name: value for name, value in locals().items() if name not in ("model", "pointers")}
    from dstrain.predict import main  # here, so that the other commands start faster

    argv = [model, *(["--pointers"] if pointers else [])]
    argv += [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    raise typer.Exit(main(argv, program="dstrain predict"))
