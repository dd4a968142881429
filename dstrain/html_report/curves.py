"""The curves of a run: quantities of training, and every metric of every evaluation with its interval. Pure."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dstrain.config.metrics import interval_ends, is_lower_better, is_of_set
from dstrain.config.schema import RunConfig
from dstrain.html_report.document import Column, Curve, Metric, Score, Training
from dstrain.html_report.thinning import spread
from dstrain.reporting.metadata import title
from dstrain.reporting.outputs import NAMES_OF_RATES
from dstrain.reporting.results import order_scores
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow, TrainRow
from dstrain.run_folder.scores import Scores

OWN_SET = "evaluation"
"""The name of the run's own evaluation rows, among its sets."""
MAX_POINTS = 4000
"""Most training rows that are drawn."""
MAX_EVALUATIONS = 500
"""Most evaluations that are drawn."""
MAX_GROUPS = 60
"""Most groups of a set that are drawn."""
_NUM_ROWS = "num_rows"
_RATE, _CUT, _LENGTH = "rate_of_", "hit_cap_rate", "gen_len"


@dataclass(frozen=True, slots=True)
class _Quantity:
    name: str
    label: str
    unit: str
    get: Callable[[TrainRow], float | None]
    log: bool = False


def _padding(row: TrainRow) -> float | None:
    padded = row.padded_source_tokens + row.padded_target_tokens
    return 1.0 - (row.source_tokens + row.target_tokens) / padded if padded else None


_QUANTITIES = (
    _Quantity("loss", "training loss", "nats per target token", lambda row: row.loss, log=True),
    _Quantity("learning_rate", "learning rate", "", lambda row: row.learning_rate),
    _Quantity("gradient_norm", "gradient norm", "", lambda row: row.grad_norm, log=True),
    _Quantity("tokens_per_second", "target tokens per second", "1/s", lambda row: row.target_tokens_per_second),
    _Quantity("padding", "padding", "share of tokens", _padding),
    _Quantity(
        "memory",
        "peak memory",
        "GiB",
        lambda row: None if row.peak_memory_mb is None else row.peak_memory_mb * 1e6 / 2**30,
    ),
    _Quantity("loss_scale", "loss scale", "", lambda row: row.loss_scale, log=True),
    _Quantity("data_seconds", "waiting for data", "s", lambda row: row.data_seconds),
    _Quantity("seconds", "time trained", "s", lambda row: row.elapsed_seconds),
)
"""In the order of the page. One that no row has is left out."""


def draw_training(rows: Sequence[TrainRow]) -> Training:
    """The quantities of the training rows, thinned to MAX_POINTS."""
    drawn = [rows[place] for place in spread(len(rows), most=MAX_POINTS)]
    columns = [
        Column(each.name, each.label, each.unit, each.log, [each.get(row) for row in drawn]) for each in _QUANTITIES
    ]
    return Training(
        [row.step for row in drawn], [each for each in columns if any(value is not None for value in each.values)]
    )


@dataclass(slots=True)
class _Points:
    step: list[int] = field(default_factory=list)
    value: list[float | None] = field(default_factory=list)
    half: list[float | None] = field(default_factory=list)

    def add(self, step: int, value: float, half: float | None) -> None:
        self.step.append(step)
        self.value.append(value if math.isfinite(value) else None)
        self.half.append(half if math.isfinite(value) else None)

    def as_curve(self, metric: str, *, set_name: str, group: str | None) -> Curve:
        ends = [_ends(metric, value, half) for value, half in zip(self.value, self.half, strict=True)]
        return Curve(set_name, group, self.step, self.value, [low for low, _ in ends], [high for _, high in ends])


def _ends(metric: str, value: float | None, half: float | None) -> tuple[float | None, float | None]:
    if value is None or half is None:
        return None, None
    return interval_ends(metric, value=value, half=half)


def draw_metrics(record: RunRecord) -> list[Metric]:
    """Every metric that an evaluation has, the one that chooses the best model first and the loss last."""
    primary = record.config.best_metric.rpartition("/")[2]
    points: dict[str, dict[tuple[str, str | None], _Points]] = {}
    signatures: dict[str, str] = {}
    groups = {name: largest_groups(record, set_name=name)[0] for name in (OWN_SET, *record.test_sets)}
    for set_name, step, scores in _evaluations(record):
        for name, group, value in _values(scores, groups=groups[set_name]):
            halves = scores.intervals if group is None else scores.group_intervals.get(group, {})
            curves = points.setdefault(name, {})
            curves.setdefault((set_name, group), _Points()).add(step, value, halves.get(name))
        signatures = scores.signatures | signatures
    return [
        Metric(
            name=name,
            label=_label(name),
            higher_is_better=_is_higher_better(name),
            signature=signatures.get(name),
            is_primary=name == primary,
            curves=[
                found.as_curve(name, set_name=set_name, group=group)
                for (set_name, group), found in points[name].items()
            ],
        )
        for name in _ordered(points, primary=primary, config=record.config)
    ]


def list_scores(scores: Scores, *, config: RunConfig) -> list[Score]:
    """The scores of one evaluation over all its rows, in the order of the metrics."""
    primary = config.best_metric.rpartition("/")[2]
    found = {name: value for name, value in scores.scores.items() if math.isfinite(value) and not is_of_set(name)}
    return [
        Score(name, title(name), found[name], *_ends(name, found[name], scores.intervals.get(name)))
        for name in _ordered(found, primary=primary, config=config)
    ]


def drawn_evaluations(record: RunRecord) -> list[EvalRow]:
    """The run's own evaluations, thinned to MAX_EVALUATIONS; the best is among them."""
    best = [place for place, row in enumerate(record.eval_rows) if row is record.best]
    return [record.eval_rows[place] for place in spread(len(record.eval_rows), most=MAX_EVALUATIONS, keep=best)]


def _evaluations(record: RunRecord) -> Iterable[tuple[str, int, Scores]]:
    """All evaluations: the set, the step and the scores."""
    yield from ((OWN_SET, row.step, row) for row in drawn_evaluations(record))
    for name, files in record.test_sets.items():
        yield from ((name, each.step, each) for each in files)


def largest_groups(record: RunRecord, *, set_name: str) -> tuple[list[str], int]:
    """The groups of a set that are drawn, those with the most rows, in their order; and how many are not."""
    scored: Sequence[Scores] = record.eval_rows if set_name == OWN_SET else record.test_sets[set_name]
    sizes = {name: of_group.get(_NUM_ROWS, 0.0) for each in scored for name, of_group in each.groups.items()}
    largest = set(sorted(sizes, key=lambda name: -sizes[name])[:MAX_GROUPS])
    return [name for name in sizes if name in largest], len(sizes) - len(largest)


def _values(scores: Scores, *, groups: Sequence[str]) -> Iterable[tuple[str, str | None, float]]:
    """Metric, group and value of every score, the shares of failing hypotheses among them."""
    yield from ((name, None, value) for name, value in scores.scores.items() if not is_of_set(name))
    for group in groups:
        of_group = scores.groups.get(group, {})
        yield from ((name, group, value) for name, value in of_group.items() if name != _NUM_ROWS)
    yield from ((_RATE + name, None, rate.hypotheses) for name, rate in scores.outputs.items())


def _is_higher_better(name: str) -> bool | None:
    if name == _LENGTH:
        return None
    return not (is_lower_better(name) or name == _CUT or name.startswith(_RATE))


def _label(name: str) -> str:
    rate = name.removeprefix(_RATE)
    return f"hypotheses: {NAMES_OF_RATES.get(rate, rate).lower()}" if rate != name else title(name)


def _ordered(names: Iterable[str], *, primary: str, config: RunConfig) -> list[str]:
    found = set(names)
    rates = [each for each in (_RATE + name for name in NAMES_OF_RATES) if each in found]
    others = order_scores(found - {"loss", primary, *rates}, config=config)
    return [name for name in dict.fromkeys((primary, *others, "loss", *rates)) if name in found]
