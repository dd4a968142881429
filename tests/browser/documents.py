"""Documents as the report holds them: small ones whose every number the tests can count again."""

import json
import math
import random
from pathlib import Path
from typing import Any

from dstrain.html_report.page import build_page

Document = dict[str, Any]

WORDS = (
    "the a red blue green old new house river bird tree sings falls stands quickly slowly and but near under".split()
)
GROUPS = ("weather", "alarm", "music")
STEPS = [100, 200, 300, 400, 500, 600]


def make_document(*runs: Document, damage: list[str] | None = None, notes: list[str] | None = None) -> Document:
    created = "2026-11-29T20:00:00Z"
    lists = {"damage": damage or [], "notes": notes or [], "runs": list(runs)}
    return {"version": 1, "created": created, "dstrain": "0.9.0", **lists}


def write_page(document: Document, *, folder: Path) -> Path:
    path = folder / "report.html"
    title = ", ".join(run.get("name", "") for run in document["runs"])
    path.write_text(build_page(json.dumps(document).encode(), title=title), encoding="utf-8")
    return path


def make_run(name: str, *, seed: int, rows: int = 120, steps: list[int] = STEPS, points: int = 60) -> Document:
    """A run with evaluations that get better, two restarts, and rows in three groups."""
    rng = random.Random(seed)
    rows_rng = random.Random(1)  # the rows are the same in every run
    references = [" ".join(rows_rng.choices(WORDS, k=rows_rng.randint(2, 24))) for _ in range(rows)]
    hypotheses = [
        [_spoil(text, share=0.5 / (place + 1), rng=rng) for place in range(len(steps))] for text in references
    ]
    scores = [
        [_share_right(made, wanted) for made in line] for line, wanted in zip(hypotheses, references, strict=True)
    ]
    means = [sum(line[place] for line in scores) / rows for place in range(len(steps))]
    logged = [steps[-1] * (point + 1) // points for point in range(points)]
    return {
        "name": name,
        "folder": name,
        "state": "finished",
        "why": "",
        "advice": "",
        "summary": [["Model", "google/mt5-small"], ["Steps", f"{steps[-1]}"], ["Ranks", "2"]],
        "best": {"metric": "word_accuracy", "step": steps[-1], "set": "evaluation"},
        "train": {"step": logged, "columns": _make_columns(logged, rng)},
        "metrics": _make_metrics(steps, means),
        "marks": _make_marks(steps),
        "attempts": _make_attempts(steps[-1]),
        "warnings": [
            {"step": None, "text": "bf16 is emulated on this device"},
            {"step": 300, "text": "4 % of the hypotheses are cut"},
        ],
        "settings": [
            ["training.learning_rate", f"0.000{seed}"],
            ["training.max_steps", f"{steps[-1]}"],
            ["seed", str(seed)],
        ],
        "audit": [{"title": "Training", "rows": [["rows", "15,667", "ok"], ["rows that repeat", "12 %", "alarm"]]}],
        "sets": [
            {
                "name": "evaluation",
                "score_name": "word accuracy",
                "score_higher_is_better": True,
                "rows": {
                    "id": [f"eval.tsv:{row + 1}" for row in range(rows)],
                    "source": [f"Satz {row + 1}: {text.upper()}" for row, text in enumerate(references)],
                    "reference": [[text] for text in references],
                    "group": [GROUPS[row % 3] for row in range(rows)],
                    "length": [len(text.split()) for text in references],
                    "rarity": [None if row % 10 == 9 else row % 40 * 7 for row in range(rows)],
                },
                "evaluations": [
                    {"step": step, "label": f"step {step}", "scores": [_make_score(mean)]}
                    for step, mean in zip(steps, means, strict=True)
                ],
                "hypotheses": hypotheses,
                "row_scores": scores,
                "num_rows": rows,
                "is_sampled": False,
            }
        ],
    }


def _spoil(text: str, *, share: float, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in text.split())


def _share_right(made: str, wanted: str) -> float:
    pairs = list(zip(made.split(), wanted.split(), strict=True))
    return sum(one == other for one, other in pairs) / len(pairs)


def _make_score(mean: float) -> Document:
    return {"name": "word_accuracy", "label": "Word accuracy", "value": mean, "low": mean - 0.03, "high": mean + 0.03}


def _make_columns(logged: list[int], rng: random.Random) -> list[Document]:
    values: dict[str, tuple[str, str, bool, list[float | None]]] = {
        "loss": ("Loss", "", True, [5 * math.exp(-step / 200) + 0.4 + rng.gauss(0, 0.03) for step in logged]),
        "learning_rate": ("Learning rate", "", False, [1e-3 * min(1, step / 60) for step in logged]),
        "gradient_norm": ("Gradient norm", "", True, [abs(rng.gauss(0.8, 0.3)) + 0.1 for _ in logged]),
        "tokens_per_second": ("Target tokens per second", "1/s", False, [6100 + rng.gauss(0, 150) for _ in logged]),
        "padding": ("Padding", "share", False, [0.2 + rng.random() / 20 for _ in logged]),
        "memory": ("Peak memory", "GiB", False, [0.64 for _ in logged]),
        "loss_scale": ("Loss scale", "", True, [None for _ in logged]),
    }
    return [
        {"name": name, "label": label, "unit": unit, "log": log, "values": each}
        for name, (label, unit, log, each) in values.items()
    ]


def _make_metrics(steps: list[int], means: list[float]) -> list[Document]:
    def curve(group: str | None, lift: float, interval: float | None) -> Document:
        values = [mean + lift for mean in means]
        low, high = ([None if interval is None else value + sign * interval for value in values] for sign in (-1, 1))
        return {"set": "evaluation", "group": group, "step": steps, "value": values, "low": low, "high": high}

    groups = [curve(group, 0.02 * (place - 1), None) for place, group in enumerate(GROUPS)]
    accuracy = {
        "name": "word_accuracy", "label": "Word accuracy", "higher_is_better": True, "signature": None, "is_primary": True,
        "curves": [curve(None, 0.0, 0.03), *groups],
    }  # fmt: skip
    losses = {**curve(None, 0.0, None), "value": [4 * math.exp(-step / 200) + 0.5 for step in steps]}
    loss = {
        "name": "loss",
        "label": "Evaluation loss",
        "higher_is_better": False,
        "signature": None,
        "is_primary": False,
        "curves": [losses],
    }
    return [loss, accuracy]


def _make_marks(steps: list[int]) -> list[Document]:
    marks = [{"step": step, "kind": "evaluation", "text": f"evaluation of step {step}"} for step in steps]
    marks += [{"step": step, "kind": "save", "text": f"checkpoint of step {step}"} for step in steps[::2]]
    marks += [{"step": step, "kind": "restart", "text": f"resumed at step {step}"} for step in steps[1:4:2]]
    return [*marks, {"step": steps[-1], "kind": "end", "text": "finished"}]


def _make_attempts(last: int) -> list[Document]:
    known = [
        ("10:00", "10:40", 0, 230, "preempted: SIGTERM"),
        ("11:00", None, 200, 430, "killed: no word of its end"),
        ("12:00", "12:42", 400, last, "finished"),
    ]
    return [
        {
            "begin": f"2026-11-29T{begin}:00Z",
            "end": end and f"2026-11-29T{end}:12Z",
            "first_step": first,
            "last_step": last_step,
            "cause": cause,
            "host": f"node-{place}",
            "ranks": 2,
        }
        for place, (begin, end, first, last_step, cause) in enumerate(known, 1)
    ]
