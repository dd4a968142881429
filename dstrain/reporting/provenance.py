"""The origin and the known weaknesses of a model: base model, data, rules, counts, checks and warnings.

Pure functions of a RunRecord. Anything that the files do not state is reported as not stated or not recorded.
"""

import math
from collections.abc import Mapping
from urllib.parse import quote

from dstrain.config.data import Source
from dstrain.reporting.audit import describe_languages, describe_overlap
from dstrain.reporting.command import command_overrides
from dstrain.reporting.markdown import (
    NOT_RECORDED,
    Markdown,
    code,
    count,
    join,
    number,
    percent,
    phrase,
    table,
    things_were,
)
from dstrain.reporting.metadata import hub_model, language_codes, pairs_of
from dstrain.reporting.outputs import describe_checked
from dstrain.reporting.procedure import describe_scaling
from dstrain.reporting.results import describe_cut_hypotheses, headline_row
from dstrain.reporting.statements import describe_license
from dstrain.run_folder.layout import ADAPTER, AVERAGE, BEST, NAMES
from dstrain.run_folder.ranking import describe_constants
from dstrain.run_folder.record import DataReport, RunRecord
from dstrain.tasks.pairs import distinct_languages

Line = tuple[str, object]

MOST_PAIRS = 8
"""Pairs of languages that are named."""

NOT_CHECKED = "not checked by the version of dstrain that made the run"
NUM_SHOWN = 5
"""Quarantined rows and unsaved checkpoints that the card lists one by one."""
SETS = {"train": "training", "eval": "evaluation"}


def describe_origin(record: RunRecord) -> Markdown:
    """The predicate of the card's first sentence: what the model was trained from."""
    name = record.config.model.name
    if name is None:
        scratch = record.config.model.scratch
        assert scratch is not None
        return phrase("was trained from scratch ({} architecture, random initial weights)", code(scratch.architecture))
    if record.config.model.from_run is not None:
        return phrase("was trained on from {}", _run_model(record))
    return phrase("is a fine-tuned version of {}", _model_link(record, name=name))


def _run_model(record: RunRecord) -> Markdown:
    """The model of another run: its folder, the step and the hash of its weights."""
    base = record.info.model.from_run
    if base is None:
        return phrase("the model of the run {} (its step was not recorded)", code(record.config.model.from_run or ""))
    return phrase(
        "the model of the run {}, step {} (sha256 of its weights {})", code(base.run), str(base.step), code(base.sha256)
    )


def _model_link(record: RunRecord, *, name: str) -> Markdown:
    on_hub = hub_model(record)
    if on_hub is None:
        return phrase("{} (a local folder)", code(name))
    return Markdown(f"[{on_hub}](https://huggingface.co/{quote(on_hub, safe='/')})")


def describe_model(record: RunRecord) -> list[Line]:
    """Base model, architecture, task, and what the recipe changes in the model."""
    config, info = record.config, record.info.model
    lines: list[Line] = [("Base model", _base_model(record)), ("Architecture", _architecture(record))]
    lines.append(("Task", describe_task(record)))
    if config.task.source_prefix:
        lines.append(("Source prefix", code(repr(config.task.source_prefix))))
    if not language_codes(record):
        lines.append(("Languages", "stated neither in the recipe nor in the training rows"))
    if config.model.trains_part:
        lines.append(("Trained part", _trained_part(record)))
    dropout = "the model's default" if config.model.dropout is None else f"{config.model.dropout:g}"
    lines.append(("Dropout", f"{dropout}; layerdrop {config.model.layerdrop:g}"))
    lines.append(("License", describe_license(record)))
    if (
        info.base is not None
        and config.model.from_run is None
        and config.model.name is not None
        and info.base != config.model.name
    ):
        lines.append(("Loaded as", code(info.base)))
    return lines


def _base_model(record: RunRecord) -> Markdown:
    model = record.config.model
    if model.scratch is not None:
        sizes = ", ".join(f"{key} {value}" for key, value in model.scratch.model_dump().items())
        return phrase("none; initialised with random weights ({})", sizes)
    if model.from_run is not None:
        return _run_model(record)
    assert model.name is not None
    link = _model_link(record, name=model.name)
    if hub_model(record) != model.name:
        return link
    revision = (
        phrase("revision {}", code(model.revision)) if model.revision else Markdown("revision not pinned in the recipe")
    )
    return phrase("{}, {}", link, revision)


def _architecture(record: RunRecord) -> str:
    info = record.info.model
    tested = " (experimental, self-test passed)" if info.passed_self_test else ""
    name = f"{info.architecture or NOT_RECORDED}{tested}, number of parameters:"
    if info.trained_ids is None:
        if record.config.model.adapter is None or info.num_exported_parameters is None:
            return f"{name} {count(info.num_parameters)}"
        return (
            f"{name} {count(info.num_exported_parameters)}, in training {count(info.num_parameters)} with the adapter"
        )
    return (
        f"{name} {count(info.num_exported_parameters)}, in training {count(info.num_parameters)}. Trained on "
        f"{count(info.trained_ids)} of {count(info.num_ids)} token ids, those that occur in the data and those that spell other "
        "words: the other embeddings are as before, and the models do not write these tokens"
    )


def _trained_part(record: RunRecord) -> Markdown:
    """How many parameters were trained, which were not, and what a checkpoint therefore needs."""
    model, info = record.config.model, record.info.model
    # an adapter is merged in the exported model, and no part of its parameters
    num_all = info.num_parameters if model.adapter else info.num_exported_parameters or info.num_parameters
    share = percent(info.num_trained_parameters / num_all) if info.num_trained_parameters and num_all else NOT_RECORDED
    rows = f"; the rows of {count(info.new_tokens)} new tokens were trained all the same" if info.new_tokens else ""
    template = "{} parameters ({} of those in training)" if model.adapter else "{} parameters ({})"
    number_of = phrase(template, count(info.num_trained_parameters), share)
    if model.adapter is None:
        frozen = join(map(code, model.freeze or ()), separator=", ")
        return phrase("{}; frozen: {}{}. The others are those of the base model", number_of, frozen, rows)
    adapter = model.adapter
    targets = adapter.targets if isinstance(adapter.targets, str) else ", ".join(adapter.targets)
    lora = "{}: LoRA of rank {}, alpha {}, dropout {}, of {}{}. The scores are of the merged model; {} has the adapter alone"
    settings = (f"{adapter.rank}", f"{adapter.alpha:g}", f"{adapter.dropout:g}", code(targets))
    folder = f"{BEST}/{ADAPTER}/" if record.subject in (None, AVERAGE) else f"{ADAPTER}/"
    return phrase(lora, number_of, *settings, rows, code(folder))


def describe_task(record: RunRecord) -> Markdown:
    """The task in a phrase: for translation the languages, for parsing the form of the parses."""
    task = record.config.task
    if task.kind == "parsing":
        pointers = f"words copied from the utterance are `<pt-N>`; segmentation `{task.segmentation}`"
        form = f"pointer form ({pointers})" if task.form == "pointer" else "plain form"
        return Markdown(f"parsing of utterances into bracketed parses, {form}")
    if task.own:
        return phrase("text to text: {}, by the class {} of the user's own", task.title, code(task.own))
    if task.kind == "text":
        return phrase("text to text: {}", task.name or "a task that the recipe does not name")
    pairs = distinct_languages(pairs_of(record))
    if not pairs:
        return Markdown("translation; neither the recipe nor the training rows name languages")
    named = [phrase("from {} to {}", *map(_language, (pair.source, pair.target))) for pair in pairs[:MOST_PAIRS]]
    others = len(pairs) - len(named)
    more = Markdown(f" and {others:,} further pairs" if others > 1 else " and one further pair" if others else "")
    return phrase("translation {}{}", join(named, separator=", "), more)


def _language(code_of: str | None) -> Markdown:
    return code(code_of) if code_of else Markdown("a language that is not named")


def describe_limits(record: RunRecord) -> list[Line]:
    """What a user of the model has to know, as far as the files of the run say."""
    task = record.config.task
    source, target = task.max_source_tokens, task.max_target_tokens
    lengths = f"rows of at most {source} source and {target} target tokens, special tokens included"
    return [
        ("Evaluated on", "the evaluation data below only; other domains, languages and lengths are untested"),
        ("Trained on", f"{lengths}; rule for longer rows: {record.config.data.rules.too_long}"),
        ("Length of hypotheses", describe_cut_hypotheses(record)),
        ("Bias and safety", "not examined"),
    ]


def build_sources_table(record: RunRecord) -> Markdown:
    """One row per data source: where its rows come from, and their share of an epoch."""
    data = record.config.data
    passes = record.info.data.get("train", DataReport()).passes
    mixed = [f", {number(each, decimals=3)} passes per epoch" for each in passes] or [""] * len(data.train)
    rows = [
        ["training", _place(source), _columns(source), f"{_share(source)}{share}"]
        for source, share in zip(data.train, mixed, strict=False)
    ]
    rows += [
        [
            f"evaluation ({source.name})" if source.name else "evaluation",
            _place(source),
            _columns(source),
            _share(source),
        ]
        for source in data.eval
    ]
    return table(["Set", "Source", "Columns", "Part"], rows)


def _place(source: Source) -> Markdown:
    if source.hub is not None:
        revision = (
            phrase(" at revision {}", code(source.revision)) if source.revision else Markdown(", revision not pinned")
        )
        subset = phrase(", subset {}", code(source.subset)) if source.subset else Markdown()
        return phrase("hub: {}{}, split {}{}", code(source.hub), subset, code(source.split), revision)
    if source.demo is not None:
        return phrase("built-in demo data: {}, split {}", source.demo, code(source.split))
    paths = [code(path) for path in (source.path, *source.target_paths) if path is not None]
    return join(paths, separator=" with ")


def _columns(source: Source) -> Markdown:
    if source.demo is not None or source.target_path is not None:
        return Markdown("none")
    columns = [source.source_column, source.target_column, *source.further_columns.values()]
    return join([code(str(column)) for column in columns if column is not None], separator=", ")


def _share(source: Source) -> str:
    part = "all rows" if source.max_rows is None else f"the first {count(source.max_rows)} rows"
    return part if source.repeat == 1 else f"{part}, {source.repeat} times per epoch"


def build_counts_table(record: RunRecord) -> Markdown:
    """One row per set: how many rows were read, used, skipped (by reason) and truncated, and the fingerprint of the content."""
    header = [
        "Set",
        "Rows read",
        "Rows used",
        "Skipped",
        "Truncated",
        "Kept with unknown tokens",
        "Source tokens",
        "Target tokens",
        "Fingerprint",
    ]
    return table(header, [_counts(title, record.info.data.get(name, DataReport())) for name, title in SETS.items()])


def _counts(title: str, report: DataReport) -> list[object]:
    numbers = (report.truncated, report.kept_with_unknown, report.source_tokens, report.target_tokens)
    fingerprint = code(report.fingerprint) if report.fingerprint else NOT_RECORDED
    skipped = NOT_RECORDED if report.rows_read is None else _by_reason(report.skipped)
    return [title, count(report.rows_read), count(report.rows), skipped, *map(count, numbers), fingerprint]


def _by_reason(skipped: Mapping[str, int]) -> str:
    counted = [
        f"{number_of_rows:,} {reason.replace('_', ' ')}" for reason, number_of_rows in skipped.items() if number_of_rows
    ]
    return ", ".join(counted) or "0"


def describe_rules(record: RunRecord) -> list[Line]:
    """The recipe's rules for rows that cannot be used as they are, and the files that list those rows."""
    rules = record.config.data.rules.model_dump() | {"unknown_token": record.config.unknown_token_rule}
    listed = ", ".join(f"{reason}: {rule}" for reason, rule in rules.items())
    files = (str(NAMES.bad_rows("train")), str(NAMES.bad_rows("eval")))
    return [
        ("Rules for unusable rows", listed),
        ("Skipped and changed rows", phrase("listed with file and line in {} and {}", *map(code, files))),
    ]


def build_checks_table(record: RunRecord) -> Markdown:
    """Each check and its result; checks that dstrain does not make are listed as such."""
    checks: list[tuple[str, object]] = [
        ("Hypotheses cut at the length limit", describe_cut_hypotheses(record)),
        ("Steps skipped by fp16", describe_scaling(record)),
        ("Non-finite losses and scores", _not_finite(record) or "none"),
        ("Rows quarantined during training", _list_quarantined(record)),
        (
            "Checkpoints that could not be saved",
            "; ".join(filter(None, (_unsaved(record), _unwritten(record)))) or "none",
        ),
        ("Train/evaluation overlap", describe_overlap(record) or NOT_CHECKED),
        ("Language check of the data", describe_languages(record) or NOT_CHECKED),
        ("Language check of the hypotheses", describe_checked(record) or NOT_CHECKED),
    ]
    return table(["Check", "Result"], checks)


def _list_quarantined(record: RunRecord) -> Markdown | str:
    """How many rows were quarantined, and the first of them."""
    rows = record.quarantine
    if not rows:
        return "none"
    listed = join(
        [phrase("{} (step {}: {})", code(row.where), count(row.step), row.reason) for row in rows[:NUM_SHOWN]],
        separator="; ",
    )
    more = Markdown(f" and {count(len(rows) - NUM_SHOWN)} more" if len(rows) > NUM_SHOWN else "")
    return phrase(
        "{} (at most {} allowed), listed in {}: {}{}",
        count(len(rows)),
        count(record.config.training.max_quarantined_rows),
        code(str(NAMES.quarantine)),
        listed,
        more,
    )


def _unsaved(record: RunRecord) -> str | None:
    """The steps whose checkpoint could not be saved, each step once, with the reason."""
    failed = {row.step: row.message or NOT_RECORDED for row in record.events if row.event == "unsaved"}
    shown = "; ".join(f"step {count(step)} ({message})" for step, message in list(failed.items())[:NUM_SHOWN])
    more = f" and {count(len(failed) - NUM_SHOWN)} more" if len(failed) > NUM_SHOWN else ""
    return shown + more if failed else None


def _unwritten(record: RunRecord) -> str | None:
    """From where on it is not known which checkpoints could not be saved."""
    gaps = " and ".join(
        f"from step {count(step)} of attempt {attempt} on" for attempt, step in record.unwritten.items()
    )
    return f"not known {gaps}: the rows that say so could not be written, as on a full disk" if gaps else None


def _not_finite(record: RunRecord) -> str | None:
    train = sum(not math.isfinite(row.loss) for row in record.train_rows)
    scored = sum(not all(map(math.isfinite, row.scores.values())) for row in record.eval_rows)
    if not train and not scored:
        return None
    return f"logged training losses: {count(train)}; evaluations: {count(scored)}"


def collect_warnings(record: RunRecord) -> list[object]:
    """Warnings of the run and of the headline's evaluation, then those that follow from the record; no duplicates."""
    headline = headline_row(record)
    recorded: list[object] = [*record.info.warnings, *(headline.warnings if headline else ())]
    distinct = list(dict.fromkeys([*recorded, *_warn_of_data(record), *_warn_of_training(record)]))
    return distinct or ["No warnings were recorded."]


def _warn_of_data(record: RunRecord) -> list[str]:
    found = []
    for name, title in SETS.items():
        report = record.info.data.get(name, DataReport())
        if sum(report.skipped.values()):
            skipped = things_were(sum(report.skipped.values()), f"{title} rows")
            found.append(f"{skipped} skipped ({_by_reason(report.skipped)})")
        if report.truncated:
            found.append(f"{things_were(report.truncated, f'{title} rows')} truncated")
        if report.kept_with_unknown:
            kept = things_were(report.kept_with_unknown, f"{title} rows")
            found.append(f"{kept} kept with unknown tokens in the target")
        if report.source_unknown:
            found.append(f"{count(report.source_unknown)} tokens of {title} sources are not in the vocabulary")
        if report.not_given_back:
            found.append(f"the tokenizer does not give back {count(report.not_given_back)} {title} references")
    return found


def _warn_of_training(record: RunRecord) -> list[str]:
    config, headline = record.config, headline_row(record)
    found = []
    if headline and headline.scores.get("hit_cap_rate"):
        found.append(
            "hypotheses were cut at the length limit: hit_cap_rate"
            f" {number(headline.scores['hit_cap_rate'])} in the evaluation reported at the top"
        )
    if record.train_rows and record.train_rows[-1].skipped_steps:
        found.append(f"{things_were(record.train_rows[-1].skipped_steps, 'optimizer steps')} skipped by loss scaling")
    if record.pending_rows:
        steps = ", ".join(count(row.step) for row in record.pending_rows)
        found.append(f"evaluations deferred to other jobs have no scores yet: step {steps}")
    if record.quarantine:
        found.append(
            f"{things_were(len(record.quarantine), 'training rows')} quarantined, because no step with them could be applied"
        )
    unsaved = _unsaved(record)
    if unsaved:
        found.append(f"checkpoints could not be saved: {unsaved}")
    for attempt, step in record.unwritten.items():
        found.append(
            f"rows of metrics.jsonl are missing from step {count(step)} of attempt {attempt} on: they could not be written, as "
            "on a full disk"
        )
    found += describe_constants([row.scores for row in record.competing], config=config).values()
    not_finite = _not_finite(record)
    if not_finite:
        found.append(f"non-finite losses and scores ({not_finite})")
    if config.evaluation.max_rows is not None:
        found.append(f"only the first {count(config.evaluation.max_rows)} evaluation rows were scored")
    if any(override.startswith("precision=") for override in command_overrides(record.info.command)):
        found.append(f"the precision was overridden on the command line: {config.precision}")
    return found
