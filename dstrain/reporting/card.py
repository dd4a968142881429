"""The model card: builds README.md from a run record. Owns the layout (card.md.j2) and the notice under the title.

The run has a card, and so has each of its exported models, whose folder can be shared as it is: its plots lie inside, and no path
leads out of it. The other modules of this package provide the values. Everything comes from the run folder.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dstrain.config.local_paths import shorten_paths
from dstrain.config.secrets import mask
from dstrain.reporting.audit import build_overlap_table, describe_findings
from dstrain.reporting.average import build_average_table, explain_average
from dstrain.reporting.command import command_to_copy
from dstrain.reporting.markdown import Markdown, count, phrase, program, render
from dstrain.reporting.metadata import build_metadata, dataset_name
from dstrain.reporting.outputs import build_outputs_table, explain_outputs
from dstrain.reporting.plots import draw_plots, has_losses, has_scores
from dstrain.reporting.procedure import (
    describe_attempts,
    describe_hyperparameters,
    describe_machine,
    describe_procedure,
    describe_reproduction,
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
from dstrain.reporting.published import build_published_table, explain_published
from dstrain.reporting.results import (
    build_groups_table,
    build_headline,
    build_rescoring,
    build_results_table,
    describe_evaluation,
    explain_headline,
    headline_row,
)
from dstrain.reporting.statements import describe_use
from dstrain.reporting.test_sets import build_test_sets_table, explain_test_sets
from dstrain.reporting.usage import build_usage, explain_usage
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import AVERAGE, NAMES, RunFolder
from dstrain.run_folder.outcome import summarize
from dstrain.run_folder.ownership import refuse_linked_folders
from dstrain.run_folder.record import RunRecord, load_record

TEMPLATE = "card.md.j2"
FILES_NOTE = Markdown("Files and folders that this card names lie in the folder of the run, which is not part of the model.")
BAD_ENDS = {"lost": "was lost", "failed": "failed", "killed": "was killed"}
"""Ends of an attempt to what it did, in the notice of an unfinished run."""


def write_card(run_dir: Path) -> Path:
    """Draw the plots and write the card of a run, finished or not; returns the path of the card.

    The folders of its models get cards of their own, unless the run may be training: then it may be replacing them.
    Raises UserError if the folder is not a run folder, a file in it is broken or a sub-folder is a link.
    """
    refuse_linked_folders(RunFolder(run_dir))
    record = load_record(run_dir)
    plots = draw_plots(record)
    contents: dict[Path, str | bytes] = {run_dir / name: plot for name, plot in plots.items()}
    contents[RunFolder(run_dir).card] = build_card(record)
    for model in find_models(record) if record.status != "interrupted" else ():
        files = build_model_files(replace(record, subject=model), plots=plots)
        contents |= {run_dir / model / name: content for name, content in files.items()}
    for path, content in contents.items():
        write_file(path, content)
    return RunFolder(run_dir).card


def find_models(record: RunRecord) -> list[str]:
    """The names of the folders of a run that hold a model, the best first."""
    return [*record.exports, *([AVERAGE] if record.average is not None else [])]


def build_model_files(record: RunRecord, *, plots: Mapping[str, bytes] | None = None) -> dict[str, str | bytes]:
    """The card of the model that is the record's subject, and its plots, by their names in the model's folder."""
    return {str(NAMES.card): build_card(record), **(draw_plots(record) if plots is None else plots)}


def build_card(record: RunRecord) -> str:
    """The text of the card. The template escapes every value that is not `Markdown` already; secrets are masked.

    On the card of a model, paths of this machine are shortened, but for those in the code.
    """
    values = _values(record)

    def finalize(value: object) -> Markdown:
        shown = render(value)
        return shown if record.subject is None or value is values["usage"] else Markdown(shorten_paths(shown))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return mask(environment.get_template(TEMPLATE).render(values))


def _values(record: RunRecord) -> dict[str, Any]:
    config = record.config
    front_matter = build_metadata(record, headline=headline_row(record)).to_yaml()
    command = command_to_copy(record.info.command)
    return {
        "front_matter": Markdown(front_matter),
        "name": config.name,
        "notice": build_notice(record),
        "origin": describe_origin(record),
        "dataset": dataset_name(config.data.train),
        "headline": build_headline(record),
        "headline_reason": explain_headline(record),
        "description": describe_model(record),
        "usage": build_usage(record),
        "usage_notes": explain_usage(record),
        "files_note": None if record.subject is None else FILES_NOTE,
        "intended_use": describe_use(record),
        "limitations": describe_limits(record),
        "sources": build_sources_table(record),
        "data_counts": build_counts_table(record),
        "data_notes": describe_rules(record),
        "overlap": build_overlap_table(record),
        "findings": describe_findings(record),
        "procedure": describe_procedure(record),
        "hyperparameters": describe_hyperparameters(record),
        "machine": describe_machine(record),
        "results": build_results_table(record),
        "test_sets": build_test_sets_table(record),
        "test_set_notes": explain_test_sets(record),
        "published": build_published_table(record),
        "published_notes": explain_published(record),
        "average": build_average_table(record),
        "average_notes": explain_average(record),
        "plots": _plots(record),
        "evaluation": describe_evaluation(record),
        "rescoring": build_rescoring(record),
        "outputs": build_outputs_table(record),
        "output_notes": explain_outputs(record),
        "groups": build_groups_table(record),
        "attempts": describe_attempts(record),
        "checks": build_checks_table(record),
        "warnings": collect_warnings(record),
        "command": program(command, language="bash") if command else None,
        "reproduction": describe_reproduction(record),
        "versions": describe_versions(record),
    }


def build_notice(record: RunRecord) -> Markdown | None:
    """The warning under the title: the run is unfinished, or it was evaluated on its training rows; None for any other run."""
    if record.status == "finished":
        return _warn_of_memorisation(record)
    done = f"step {count(record.last_step)} of {count(record.info.total_steps)}"
    if record.status == "stopped":
        message = record.events[-1].message
        return phrase(
            "This run is not finished: it was stopped at {}{}", done, phrase(": {}", message) if message else "."
        )
    begun = [number for number, end in record.ends.items() if end.outcome != "refused"]
    end = record.ends.get(max([*begun, *(event.lease for event in record.events)], default=0))
    if end is not None and end.outcome in BAD_ENDS:
        why = summarize(end.message)
        reason = phrase(": {}", why) if why else "."
        return phrase("This run is not finished: its last attempt {} at {}{}", BAD_ENDS[end.outcome], done, reason)
    return phrase("This run is not finished: it is still running or was killed. Last recorded: {}.", done)


def _warn_of_memorisation(record: RunRecord) -> Markdown | None:
    prints = {report.fingerprint for report in record.info.data.values()}
    if len(record.info.data) < 2 or len(prints) > 1 or None in prints:
        return None
    return Markdown("The evaluation rows are the training rows: the scores measure memorisation, not generalisation.")


def _plots(record: RunRecord) -> list[tuple[str, Markdown]]:
    plots = [
        ("Training and validation loss", str(NAMES.loss_plot), has_losses),
        ("Scores over the optimizer steps", str(NAMES.score_plot), has_scores),
    ]
    return [(title, Markdown(path)) for title, path, present in plots if present(record)]
