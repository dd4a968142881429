"""The model card: a run record in, README.md out. Owns the layout (card.md.j2) and the first lines.

The values come from its neighbours. Refuses to know anything that the run folder does not hold.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dstrain.reporting.markdown import Markdown, code_block, count, one_line, phrase, render
from dstrain.reporting.metadata import build_metadata, dataset_name
from dstrain.reporting.plots import LOSS_PLOT, SCORE_PLOT, has_losses, has_scores, write_plots
from dstrain.reporting.procedure import (
    describe_hyperparameters,
    describe_machine,
    describe_procedure,
    describe_repeating,
    describe_restarts,
    describe_versions,
)
from dstrain.reporting.provenance import (
    build_checks_table,
    build_counts_table,
    build_sources_table,
    collect_warnings,
    describe_limits,
    describe_model,
    describe_origin,
    describe_rules,
)
from dstrain.reporting.results import (
    build_groups_table,
    build_headline,
    build_recount,
    build_results_table,
    build_test_sets_table,
    describe_evaluation,
    explain_headline,
    headline_row,
)
from dstrain.run_folder.record import RunRecord, load_record

CARD_FILE = "README.md"
TEMPLATE = "card.md.j2"


def write_card(run_dir: Path) -> Path:
    """Draw the plots and write the card of a run folder, finished or not; returns the card's path.

    Raises RunFolderError where the folder is no run or a file in it is broken.
    """
    record = load_record(run_dir)
    write_plots(record, run_dir=run_dir)
    path = run_dir / CARD_FILE
    path.write_text(build_card(record), encoding="utf-8", newline="\n")
    return path


def build_card(record: RunRecord) -> str:
    """The card's text. Every value but Markdown made here is escaped on its way into the template."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=render,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE).render(_values(record))


def _values(record: RunRecord) -> dict[str, Any]:
    config = record.config
    front_matter = build_metadata(record, headline=headline_row(record)).to_yaml()
    command = record.info.command
    return {
        "front_matter": Markdown(front_matter),
        "name": config.name,
        "notice": build_notice(record),
        "origin": describe_origin(record),
        "dataset": dataset_name(config.data.train),
        "headline": build_headline(record),
        "headline_reason": explain_headline(record),
        "description": describe_model(record),
        "limitations": describe_limits(record),
        "sources": build_sources_table(config),
        "data_counts": build_counts_table(record),
        "data_notes": describe_rules(record),
        "procedure": describe_procedure(record),
        "hyperparameters": describe_hyperparameters(record),
        "machine": describe_machine(record),
        "results": build_results_table(record),
        "test_sets": build_test_sets_table(record),
        "plots": _plots(record),
        "evaluation": describe_evaluation(record),
        "recount": build_recount(record),
        "groups": build_groups_table(record),
        "restarts": describe_restarts(record),
        "checks": build_checks_table(record),
        "warnings": collect_warnings(record),
        "command": code_block(command, language="bash") if command and one_line(command) else None,
        "repeating": describe_repeating(record),
        "versions": describe_versions(record),
    }


def build_notice(record: RunRecord) -> Markdown | None:
    """The warning under the title of a run that has not come to its end; None for one that has."""
    if record.status == "finished":
        return _notice_of_memory(record)
    done = f"step {count(record.last_step)} of {count(record.info.total_steps)}"
    if record.status == "stopped":
        message = record.events[-1].message
        return phrase(
            "This run is not finished: it was stopped at {}{}", done, phrase(": {}", message) if message else "."
        )
    return phrase("This run is not finished: it is still running or was killed. Its files tell of {}.", done)


def _notice_of_memory(record: RunRecord) -> Markdown | None:
    prints = {report.fingerprint for report in record.info.data.values()}
    if len(record.info.data) < 2 or len(prints) > 1 or None in prints:
        return None
    return Markdown(
        "The evaluation rows are the training rows: the scores show what was learned by heart, and no skill."
    )


def _plots(record: RunRecord) -> list[tuple[str, Markdown]]:
    plots = [
        ("Training and validation loss", LOSS_PLOT, has_losses),
        ("Scores over the optimizer steps", SCORE_PLOT, has_scores),
    ]
    return [(title, Markdown(path)) for title, path, present in plots if present(record)]
