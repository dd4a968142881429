"""The average of several checkpoints on the card: its scores beside the best evaluation's. Pure functions of a RunRecord."""

from dstrain.reporting.markdown import Markdown, code, count, phrase, table
from dstrain.reporting.metadata import label
from dstrain.reporting.results import number_with_interval, order_scores
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.ranking import rank
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.scores import Scores


def build_average_table(record: RunRecord) -> Markdown | None:
    """A row for the average and one for the best evaluation; None without an average."""
    if record.average is None:
        return None
    scores: dict[str, Scores] = {f"average of {len(record.average.steps)} checkpoints": record.average.scores}
    if record.best is not None:
        scores[f"step {count(record.best.step)}, the best"] = record.best
    names = ["loss", *order_scores({*record.average.scores.scores} - {"loss"}, config=record.config)]
    rows = [[name, *(number_with_interval(each, metric) for metric in names)] for name, each in scores.items()]
    return table(["Weights", *map(label, names)], rows)


def explain_average(record: RunRecord) -> list[Markdown]:
    """Which checkpoints were averaged, where the model is, and whether it is better than the best evaluation."""
    if record.average is None:
        return []
    steps = ", ".join(map(count, record.average.steps))
    sentences = [phrase("The mean of the weights at the steps {} is in {}.", steps, code(f"{NAMES.average.path}/"))]
    better = is_average_better(record)
    if better is not None:
        than = "better" if better else "not better"
        sentences.append(phrase("By {} it is {} than the best evaluation.", code(record.config.best_metric), than))
    return sentences


def is_average_better(record: RunRecord) -> bool | None:
    """Whether the average beats the best evaluation by the recipe's metrics; None where one of them is missing."""
    if record.average is None or record.best is None:
        return None
    average, best = (rank(each.scores, metrics=record.config.ranking) for each in (record.average.scores, record.best))
    return average > best
