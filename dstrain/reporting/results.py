"""The run's evaluations on the card: headline scores and why these, tables of results and groups, signatures, commands.

The headline is the evaluation that the card opens with. Pure functions of a RunRecord; independent of the card's layout.
"""

import json
import math
from collections.abc import Iterable, Mapping, Set

from dstrain.config.metrics import METRICS, is_of_set, own_code
from dstrain.config.own_code import own_name
from dstrain.config.schema import RunConfig
from dstrain.reporting.audit import compare_unseen
from dstrain.reporting.markdown import Markdown, code, code_block, count, join, number, percent, phrase, table
from dstrain.reporting.metadata import label
from dstrain.run_folder.layout import AVERAGE, BEST, FINAL, NAMES
from dstrain.run_folder.ranking import rank
from dstrain.run_folder.record import DataReport, RunRecord
from dstrain.run_folder.rows import EvalRow, best_evaluation
from dstrain.run_folder.scores import Scores, sacrebleu_command

Line = tuple[str, object]

SEED_SCORES = {"translation": ("bleu", "gen_len"), "parsing": ("exact_match",)}
"""Scores in the first columns after the losses, as on the two published cards that this one follows. The card of
a text task begins with those that may choose the best model."""
MORE_SCORES = (
    "chrf",
    "ter",
    "rouge_l",
    "rouge_1",
    "rouge_2",
    "token_f1",
    "exact_match",
    "accuracy",
    "exact_match_tokens",
    "exact_match_parse",
    "exact_match_typed",
    "valid_brackets",
    "gen_len",
    "hit_cap_rate",
)
"""Scores in the columns after those, in this order."""
NUMBERS_OF_ROWS = frozenset(metric.name for metric in METRICS if metric.unit == "rows")
MAX_GROUPS = 60
"""Rows in the table of groups; the score file has all groups."""


def headline_row(record: RunRecord) -> EvalRow | None:
    """The evaluation that the card opens with: the best, or the last if none has a finite value of the metric.

    On the card of a model it is that of the model's weights; None if they were not evaluated.
    """
    if record.subject is None:
        return record.best or record.final
    if record.subject == AVERAGE:
        return _average_row(record)
    step = record.exports.get(record.subject)
    return next((row for row in record.eval_rows if row.step == step), None)


def _average_row(record: RunRecord) -> EvalRow | None:
    """The scores of the average, at the step of its last checkpoint."""
    if record.average is None:
        return None
    last = max(record.average.steps)
    epoch = next((row.epoch for row in record.eval_rows if row.step == last), math.nan)
    return EvalRow(**record.average.scores.as_fields(), step=last, epoch=epoch)


def ordered_scores(record: RunRecord, *, rows: Iterable[EvalRow]) -> list[str]:
    """The names of the scores of `rows` over all rows, except the loss, in the order of the columns; and `best_metric`."""
    found = {metric for row in rows for metric in row.scores}
    present = {metric for metric in found if metric == record.config.best_metric or not is_of_set(metric)} - {"loss"}
    return order_scores(present, config=record.config)


def order_scores(present: Set[str], *, config: RunConfig) -> list[str]:
    """`present` in the order of the columns: the task's own scores, the other known ones, then any others by name."""
    known = _known_scores(config)
    return [metric for metric in known if metric in present] + sorted(present - {*known})


def _known_scores(config: RunConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*SEED_SCORES.get(config.task.base_kind, config.choosing), *MORE_SCORES)))


def build_headline(record: RunRecord) -> list[Line]:
    """Label and value of each score of the headline, the loss first; empty before the first evaluation."""
    row = headline_row(record)
    if row is None:
        return []
    names = [*(["loss"] if "loss" in row.scores else []), *ordered_scores(record, rows=[row])]
    return [(label(name), number_with_interval(row, name)) for name in names]


def number_with_interval(scores: Scores, name: str) -> str:
    """A score with half its 95 % interval, where it has one: `39.5000 ± 0.9000`."""
    return _with_interval(name, scores.scores.get(name), scores.intervals.get(name))


def number_of_group(scores: Scores, group: str, name: str) -> str:
    """The same of a group of rows."""
    if name not in scores.groups[group]:
        return "no value"
    return _with_interval(name, scores.groups[group].get(name), scores.group_intervals.get(group, {}).get(name))


def _with_interval(name: str, value: float | None, interval: float | None) -> str:
    if name in NUMBERS_OF_ROWS and value is not None and value.is_integer():
        return count(int(value))
    # rows that all have the same number do not say how far others lie
    return number(value) if not interval else f"{number(value)} ± {number(interval)}"


def explain_headline(record: RunRecord) -> list[Markdown]:
    """Sentences: the step of the headline, why it was chosen, and where another evaluation was better."""
    row, final, metric = headline_row(record), record.final, record.config.best_metric
    if row is None or final is None:
        return []
    where = f"step {count(row.step)} (epoch {number(row.epoch, decimals=2)})"
    export = _export(record, BEST if record.best else FINAL, row)
    sentences = [
        phrase("These are the scores at {}, {}.{}{}", where, _why(record, row, final=final), _rows(record, row), export)
    ]
    if record.subject == AVERAGE:
        sentences = [phrase("These are the scores of the mean of several checkpoints' weights.{}", _rows(record, row))]
    if record.subject is not None and record.best is not None and row is not record.best:
        best = ", ".join(f"{label(name)} {number(record.best.scores.get(name))}" for name in _compared(record))
        sentences.append(
            phrase("The best evaluation by {}, at step {}, has {}.", code(metric), count(record.best.step), best)
        )
    if row is not final:
        values = ", ".join(f"{label(name)} {number(final.scores.get(name))}" for name in _compared(record))
        last = f"The last evaluation, at step {count(final.step)}, has {values}."
        sentences.append(phrase("{}{}", last, _export(record, FINAL, final)))
    return [
        *sentences,
        *_name_missing(record, row),
        *_explain_intervals(row),
        *compare_unseen(record, row),
        *_as_typed(record, row),
        *_better_elsewhere(record, row),
    ]


def _why(record: RunRecord, row: EvalRow, *, final: EvalRow) -> Markdown:
    """Why the card opens with this evaluation."""
    if record.subject is not None and row is not record.best:
        return Markdown(f"the evaluation of these weights{', and the last evaluation' if row is final else ''}")
    if not record.competing:
        return Markdown("the last evaluation; since then the metric, the search or the evaluation rows have changed")
    if record.best is None:
        return phrase("the last evaluation, because no evaluation has a finite {}", code(record.config.best_metric))
    also = Markdown(", and also the last evaluation" if row is final else "")
    template = "the best of {} evaluations by {}, the metric that selects the best checkpoint{}{}"
    return phrase(template, count(len(record.competing)), code(record.config.best_metric), _ties(record, row), also)


def _name_missing(record: RunRecord, row: EvalRow) -> list[Markdown]:
    """Which metrics of the recipe's own code have no value there."""
    names = [own_name(item) for item in own_code(record.config.evaluation.metrics)]
    missing = [label(name) for name in names if name not in row.scores]
    if not missing:
        return []
    be = "has" if len(missing) == 1 else "have"
    return [Markdown(f"{' and '.join(missing)} {be} no value there; a warning says why, if it failed.")]


def _explain_intervals(row: EvalRow) -> list[Markdown]:
    if not row.intervals:
        return []
    return [
        Markdown(
            "What follows ± is half the 95 % interval over the rows that might have been drawn: by bootstrap, as sacreBLEU's, "
            "with 1,000 samples and seed 12345. It says nothing of another training run."
        )
    ]


def _as_typed(record: RunRecord, row: EvalRow) -> list[Markdown]:
    """The honest score beside the headline, where the sources of the evaluation were cut at the words of the references."""
    if not record.config.task.cuts_by_reference:
        return []
    num_cut, score = record.info.data.get("eval", DataReport()).cut_by_reference, row.scores.get("exact_match_typed")
    cut = "some evaluation" if num_cut is None else f"{count(num_cut)} of the evaluation"
    template = (
        "**For these scores {} utterances were cut at the words of their reference parses ({}), which no new utterance "
        "has.** {}"
    )
    honest = (
        f"On all utterances as users type them, {percent(score)} of the parses are exact (Exact Match Typed)."
        if score is not None
        else "The utterances as users type them were not scored by the version that made this evaluation."
    )
    return [phrase(template, cut, code("task.segmentation: published"), honest)]


def _ties(record: RunRecord, row: EvalRow) -> Markdown:
    metric, *others = record.config.ranking
    equal = [other for other in record.competing if other.scores.get(metric) == row.scores[metric]]
    num_equal = len(equal)
    others = [name for name in others if any(name in other.scores for other in equal)]
    if num_equal == 1:
        return Markdown()
    if not others:
        return phrase(" ({} evaluations have this value, and none of them another metric)", count(num_equal))
    decide = "decides" if len(others) == 1 else "decide, in this order"
    template = f" ({{}} evaluations have this value; among them {{}} {decide})"
    return phrase(template, count(num_equal), join(map(code, others), separator=", "))


def _rows(record: RunRecord, row: EvalRow) -> Markdown:
    if row.num_rows is None:
        return Markdown()
    skipped = record.info.data["eval"].skipped if "eval" in record.info.data else {}
    if record.config.evaluation.max_rows is not None:
        which = f"Only the first {count(row.num_rows)} rows"
    elif skipped:
        which = f"{count(row.num_rows)} of {count(row.num_rows + sum(skipped.values()))} rows"
    else:
        which = f"All {count(row.num_rows)} rows"
    left_out = f" ({by_reason(skipped)} skipped)" if skipped else ""
    return Markdown(f" {which} of the evaluation set were scored{left_out}.")


def by_reason(skipped: Mapping[str, int]) -> str:
    """Numbers of rows with their reasons."""
    return ", ".join(f"{count(number_of_rows)} {reason}" for reason, number_of_rows in skipped.items())


def _export(record: RunRecord, name: str, row: EvalRow) -> Markdown:
    # until the run has finished, the folder may hold weights from before the run resumed at an earlier step
    if record.subject is not None or record.status != "finished" or name not in record.exports:
        return Markdown()
    step = record.exports[name]
    if step == row.step:
        return Markdown(f" The folder `{name}/` holds these weights.")
    return phrase(" **The folder {} does not hold these weights but those of step {}.**", code(f"{name}/"), count(step))


def _compared(record: RunRecord) -> list[str]:
    return list(dict.fromkeys(["loss", record.config.choosing[0]]))


def _better_elsewhere(record: RunRecord, row: EvalRow) -> list[Markdown]:
    main = record.config.choosing[0]
    top = best_evaluation(record.competing, metrics=[main])
    if top is None or rank(top.scores, metrics=[main]) <= rank(row.scores, metrics=[main]):
        return []
    if top.is_tied and main == record.config.best_metric:
        template = (
            "{} was better at another step, but not beyond chance: {} at step {}. The recipe keeps the older of two such "
            "evaluations ({})."
        )
        chosen = "evaluation.best_by: tied_keeps_older"
    else:
        template = "{} was better at another step: {} at step {}; the recipe selects the best checkpoint by {}."
        chosen = record.config.best_metric
    return [phrase(template, label(main), number(top.scores[main]), count(top.step), code(chosen))]


def build_results_table(record: RunRecord) -> Markdown:
    """One row per evaluation: Training Loss, Epoch, Step, Validation Loss, then the scores."""
    if not record.eval_rows:
        return Markdown("No evaluation has been run yet.")
    scores = ordered_scores(record, rows=record.eval_rows)
    header = ["Training Loss", "Epoch", "Step", "Validation Loss", *map(label, scores)]
    rows = [
        [
            "No log" if row.train_loss is None else number(row.train_loss),
            number(row.epoch, decimals=2),
            str(row.step),
            *(number_with_interval(row, metric) for metric in ("loss", *scores)),
        ]
        for row in record.eval_rows
    ]
    return table(header, rows)


def build_groups_table(record: RunRecord) -> Markdown | None:
    """The headline's scores per group; None if the data have no groups."""
    row = headline_row(record)
    if row is None or not row.groups:
        return None
    present = dict.fromkeys(metric for scores in row.groups.values() for metric in scores)
    order = [metric for metric in ("loss", *_known_scores(record.config)) if metric in present]
    metrics = list(dict.fromkeys([*order, *(metric for metric in present if metric != "num_rows")]))
    header = ["Group", *(["Rows"] if "num_rows" in present else []), *map(label, metrics)]
    lines: list[list[object]] = []
    for name, scores in list(row.groups.items())[:MAX_GROUPS]:
        rows = [count(int(scores["num_rows"])) if "num_rows" in scores else ""] if "num_rows" in present else []
        lines.append([name or "(no name)", *rows, *(number_of_group(row, name, metric) for metric in metrics)])
    rest = len(row.groups) - len(lines)
    note = phrase("\n\nAnd {} more groups in {}.", count(rest), code(str(NAMES.score_file(row.step)))) if rest else ""
    return join([table(header, lines), Markdown(note)], separator="")


def describe_evaluation(record: RunRecord) -> list[Line]:
    """Signatures, generation settings, files and duration of the headline's evaluation."""
    row = headline_row(record)
    if row is None:
        return [("Evaluations", "none yet")]
    lines: list[Line] = [(f"Signature of {label(name)}", code(text)) for name, text in row.signatures.items()]
    settings = [code(f"{name}={_json(value)}") for name, value in row.generation.items()]
    lines.append(("Generation", join(settings, separator=", ") if settings else "not recorded"))
    if row.hypotheses is None:
        lines.append(("Hypotheses", "not recorded"))
    else:
        files = [code(f"{row.hypotheses}/{name}.txt") for name in ("hypotheses", "references", "sources", "index")]
        lines.append(
            ("Hypotheses, references, sources and their file:line, one row per line", join(files, separator=", "))
        )
        lines.append(("Score file", code(str(NAMES.score_file(row.step)))))
    if row.seconds is not None:
        lines.append(("Time", f"{number(row.seconds, decimals=1)} seconds"))
    return lines


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def build_rescoring(record: RunRecord) -> Markdown | None:
    """The sacrebleu command that reproduces the headline's BLEU and chrF, as a code block; None without BLEU."""
    row = headline_row(record)
    command = sacrebleu_command(row, folder=row.hypotheses) if row and row.hypotheses else None
    return code_block(command, language="bash") if command else None


def describe_cut_hypotheses(record: RunRecord) -> str:
    """The share of the headline's hypotheses that reached the length limit."""
    row = headline_row(record)
    rate = row.scores.get("hit_cap_rate") if row else None
    if rate is None:
        return "not recorded"
    cap = row.generation.get("max_new_tokens") if row else None
    tokens = f" of {cap} tokens" if cap is not None else ""
    return (
        f"{percent(rate)} of the hypotheses of the evaluation reported at the top were cut at the length limit{tokens}"
    )
