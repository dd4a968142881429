"""What the evaluations say: the headline and the reason for it, the table of results, groups, signatures and commands.

Pure functions of a RunRecord; knows nothing of the recipe's other lines and of the card's layout.
"""

import json
import math
from collections.abc import Iterable, Set

from dstrain.reporting.markdown import Markdown, code, code_block, count, join, number, percent, phrase, table
from dstrain.reporting.metadata import METRICS, label
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import sacrebleu_command

Line = tuple[str, object]

SEED_SCORES = {"translation": ("bleu", "gen_len"), "parsing": ("exact_match",)}
"""Scores in the first columns after the losses; the others follow in this order."""
MORE_SCORES = ("chrf", "exact_match_tokens", "exact_match_parse", "valid_brackets", "gen_len", "hit_cap_rate")
SEARCH = ("num_beams", "length_penalty")
"""Settings that scores of other test sets may have been made with, unlike those of the run."""
MAX_GROUPS = 60
"""Rows of the table of groups; the rest is in the score file."""


def headline_row(record: RunRecord) -> EvalRow | None:
    """The evaluation that the card opens with: the best, or the last where none has a finite value of the metric."""
    return record.best or record.final


def ordered_scores(record: RunRecord, *, rows: Iterable[EvalRow]) -> list[str]:
    """All scores of `rows` but the loss, as columns."""
    present = {metric for row in rows for metric in row.scores} - {"loss"}
    return order_scores(present, kind=record.config.task.kind)


def order_scores(present: Set[str], *, kind: str) -> list[str]:
    """The task's scores among those `present`, the usual others, then any other by name."""
    known = dict.fromkeys((*SEED_SCORES[kind], *MORE_SCORES))
    return [metric for metric in known if metric in present] + sorted(present - known.keys())


def build_headline(record: RunRecord) -> list[Line]:
    """The headline's scores, the loss first."""
    row = headline_row(record)
    if row is None:
        return []
    names = [*(["loss"] if "loss" in row.scores else []), *ordered_scores(record, rows=[row])]
    return [(label(name), number(row.scores[name])) for name in names]


def explain_headline(record: RunRecord) -> list[Markdown]:
    """Which step the headline comes from and why, and what it is not."""
    row, final, metric = headline_row(record), record.final, record.config.best_metric
    if row is None or final is None:
        return []
    where = f"step {count(row.step)} (epoch {number(row.epoch, decimals=2)})"
    if record.best is None:
        reason = phrase("the last evaluation, because no evaluation gave a finite {}", code(metric))
    else:
        also = Markdown(", and also the last" if row is final else "")
        template = "the best of {} evaluations by {}, the metric that chooses the best checkpoint{}"
        reason = phrase(template, count(len(record.eval_rows)), code(metric), also)
    export = _export(record, "best" if record.best else "final", row)
    sentences = [phrase("These are the scores at {}, {}.{}{}", where, reason, _rows(record, row), export)]
    if row is not final:
        values = ", ".join(f"{label(name)} {number(final.scores.get(name))}" for name in _compared(record))
        last = f"The last evaluation, at step {count(final.step)}, gave {values}."
        sentences.append(phrase("{}{}", last, _export(record, "final", final)))
    return [*sentences, *_better_elsewhere(record, row)]


def _rows(record: RunRecord, row: EvalRow) -> Markdown:
    if row.num_rows is None:
        return Markdown()
    is_part = record.config.evaluation.max_rows is not None
    return Markdown(
        f" Scored were {'only the first' if is_part else 'all'} {count(row.num_rows)} rows of the evaluation set."
    )


def _export(record: RunRecord, name: str, row: EvalRow) -> Markdown:
    # before the end a folder may still hold weights of steps that a resumed run went back behind
    if record.status != "finished" or name not in record.exports:
        return Markdown()
    step = record.exports[name]
    if step == row.step:
        return Markdown(f" The folder `{name}/` holds these weights.")
    return phrase(
        " **The folder {} does not hold these weights, but those of step {}.**", code(f"{name}/"), count(step)
    )


def _compared(record: RunRecord) -> list[str]:
    return ["loss", METRICS[record.config.task.kind][0]]


def _better_elsewhere(record: RunRecord, row: EvalRow) -> list[Markdown]:
    main = METRICS[record.config.task.kind][0]
    better = [
        other for other in record.eval_rows if other.scores.get(main, -math.inf) > row.scores.get(main, -math.inf)
    ]
    if not better:
        return []
    top = max(better, key=lambda other: other.scores[main])
    template = "{} was higher at another step: {} at step {}; the recipe chooses by {}."
    return [phrase(template, label(main), number(top.scores[main]), count(top.step), code(record.config.best_metric))]


def build_results_table(record: RunRecord) -> Markdown:
    """A row an evaluation: Training Loss, Epoch, Step, Validation Loss, then the scores."""
    if not record.eval_rows:
        return Markdown("No evaluation has been made yet.")
    scores = ordered_scores(record, rows=record.eval_rows)
    header = ["Training Loss", "Epoch", "Step", "Validation Loss", *map(label, scores)]
    rows = [
        [
            "No log" if row.train_loss is None else number(row.train_loss),
            number(row.epoch, decimals=2),
            str(row.step),
            *(number(row.scores.get(metric)) for metric in ("loss", *scores)),
        ]
        for row in record.eval_rows
    ]
    return table(header, rows)


def build_test_sets_table(record: RunRecord) -> Markdown | None:
    """A row a test set and step; None where no other test set was scored."""
    rows = [(name, scores) for name, found in record.test_sets.items() for scores in found]
    if not rows:
        return None
    present = {metric for _, found in rows for metric in found.scores}
    metrics = ["loss", *order_scores(present - {"loss"}, kind=record.config.task.kind)]
    header = ["Test set", "Data", "Step", "Rows", *map(label, metrics), "Search", "Hypotheses"]
    lines = [
        [
            name,
            join(map(code, found.data.places if found.data else ()), separator=", "),
            str(found.step),
            "" if found.num_rows is None else count(found.num_rows),
            *(number(found.scores.get(metric)) for metric in metrics),
            join([code(f"{key}={found.generation[key]}") for key in SEARCH if key in found.generation], separator=", "),
            code(f"test_sets/{name}/{found.hypotheses}"),
        ]
        for name, found in rows
    ]
    return table(header, lines)


def build_groups_table(record: RunRecord) -> Markdown | None:
    """The headline's scores for each group; None where the data name no groups."""
    row = headline_row(record)
    if row is None or not row.groups:
        return None
    present = dict.fromkeys(metric for scores in row.groups.values() for metric in scores)
    order = [metric for metric in ("loss", *SEED_SCORES[record.config.task.kind], *MORE_SCORES) if metric in present]
    metrics = list(dict.fromkeys([*order, *(metric for metric in present if metric != "num_rows")]))
    header = ["Group", *(["Rows"] if "num_rows" in present else []), *map(label, metrics)]
    lines: list[list[object]] = []
    for name, scores in list(row.groups.items())[:MAX_GROUPS]:
        rows = [count(int(scores["num_rows"])) if "num_rows" in scores else ""] if "num_rows" in present else []
        lines.append([name or "(no name)", *rows, *(number(scores.get(metric)) for metric in metrics)])
    rest = len(row.groups) - len(lines)
    note = phrase("\n\nAnd {} more groups in {}.", count(rest), code(_score_file(row))) if rest else ""
    return join([table(header, lines), Markdown(note)], separator="")


def describe_evaluation(record: RunRecord) -> list[Line]:
    """The headline's signatures, generation settings and files."""
    row = headline_row(record)
    if row is None:
        return [("Evaluations", "none yet")]
    lines: list[Line] = [(f"Signature of {label(name)}", code(text)) for name, text in row.signatures.items()]
    settings = [code(f"{name}={_json(value)}") for name, value in row.generation.items()]
    lines.append(("Generation", join(settings, separator=", ") if settings else "not recorded"))
    if row.hypotheses is None:
        lines.append(("Hypotheses", "not recorded"))
    else:
        files = [code(f"{row.hypotheses}/{name}.txt") for name in ("hypotheses", "references", "sources")]
        lines.append(("Hypotheses, references and sources, one row a line", join(files, separator=", ")))
        lines.append(("Scores as a file", code(_score_file(row))))
    if row.seconds is not None:
        lines.append(("Time", f"{number(row.seconds, decimals=1)} seconds"))
    return lines


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _score_file(row: EvalRow) -> str:
    return f"scores/step-{row.step:08d}.json"


def build_recount(record: RunRecord) -> Markdown | None:
    """The sacrebleu command that gives the headline's BLEU and chrF again; None where there is no BLEU."""
    row = headline_row(record)
    command = sacrebleu_command(row, folder=row.hypotheses) if row and row.hypotheses else None
    return code_block(command, language="bash") if command else None


def describe_cut_hypotheses(record: RunRecord) -> str:
    """How many hypotheses of the headline the length cap ended."""
    row = headline_row(record)
    rate = row.scores.get("hit_cap_rate") if row else None
    if rate is None:
        return "not recorded"
    cap = row.generation.get("max_new_tokens") if row else None
    where = f" of {cap} tokens" if cap is not None else ""
    return f"{percent(rate)} of the headline's hypotheses were ended by the cap{where}"
