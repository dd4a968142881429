"""Writes docs/performance.md and its plots from the JSON files of the benchmarks: `python -m tests.benchmarks.report`.

`--describe` instead records the machine beside them; `make bench` does so first, for the benchmarks that do not record it.
A section is written if its file exists. Measures nothing.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from dstrain.reporting.markdown import percent, table
from tests.benchmarks.recipe import NUM_EVALUATIONS
from tests.benchmarks.training import describe_machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
MACHINE = "machine.json"
BLUE, LIGHT_BLUE, GREEN, GREY, ORANGE = "#2f6fb2", "#7fb2e0", "#3f9b5f", "#6b7280", "#d9722e"
COLOURS = {
    "dstrain": BLUE,
    "dstrain_seen": GREEN,
    "dstrain_sequences": LIGHT_BLUE,
    "random": GREY,
    "group_by_length": ORANGE,
}
NAMES = {
    "dstrain": "dstrain by target tokens",
    "dstrain_seen": "dstrain by target tokens, vocabulary seen",
    "dstrain_sequences": "dstrain by sequences",
    "random": "Trainer",
    "group_by_length": "Trainer, group_by_length",
}
RECIPE_SIDES = {
    "dstrain": "dstrain",
    "dstrain_seen": "dstrain, vocabulary seen",
    "trainer": "Seq2SeqTrainer",
}
MODELS = {
    "mt5-small": "the layers of mT5-small with its 250,112 rows of embeddings and a head of its own",
    "mt5": "a small mT5 whose head has mT5-small's share of all multiply-adds (73 %)",
    "m2m100": "a small M2M100 whose head has M2M100-418M's share of all multiply-adds (26 %)",
}
PREAMBLE = """# Performance

Written by `make bench` from the files in `tests/benchmarks/results`. Seconds are those of the machine named with them;
compare the ratios. Every ratio is a ratio of medians, followed by its range over the repeats. How training is compared is at
the end."""
METHOD = """## How training is compared

- Each figure comes from a process of its own, and the sides take turns. The first round measures all sizes. Later rounds
  measure the best of each side, the Trainer's batch of 16, and dstrain's default micro-batch budget (8,192 padded tokens).
- Both sides read the same tokenised rows and start from the same weights. They train in fp32 with AdamW, the same schedule,
  clipping and threads, and on average the same number of target tokens per update. Real target tokens per second count
  labels, not padding. The time includes the loader and excludes the first update.
- dstrain's updates are of sequences (`batch_unit: sequences`: as many rows as the Trainer's, in random order, cut into
  micro-batches of similar-length rows) or of target tokens (rows of similar length: faster, but what is learned differs).
- dstrain is the loader, the engine on DeepSpeed (ZeRO 1, one rank), the loop and the log hook of a run. The other side is
  `Seq2SeqTrainer` with `DataCollatorForSeq2Seq`. Gradient accumulation fills its per-device batch up to the update. Its loss
  is corrected to the mean over the update's target tokens; uncorrected, the Trainer multiplies loss and gradient by the
  number of accumulated batches.
- `group_by_length` starts with its longest rows. For speed, its other updates are taken evenly over the epoch. For losses it
  keeps its own order, over whole mega-batches of 50 updates, so that it has seen as many tokens as the others.
- With `vocabulary: seen` dstrain has rows for the ids that occur and for special tokens. The weights are loaded whole first.
- Memory is the growth of the process at its peak, over what it held with the rows mapped and the weights loaded; "with the
  weights" is the whole process at its peak."""


def read_results(folder: Path, prefix: str) -> list[Any]:
    """The content of the files whose names begin with `prefix`, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"{prefix}*.json"))]


def describe(machine: Mapping[str, Any]) -> str:
    """Machine and versions in one sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    after = f", {machine['load_after']:.1f} after" if "load_after" in machine else ""
    return (
        f"{machine['date']}: {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, load "
        f"{machine['load_before']:.1f} before{after}; {versions}."
    )


def ranged(row: Mapping[str, Any], figure: str, *, form: str = "{:,.0f}") -> str:
    """A median with its range, if there are several repeats."""
    low, high = row[f"{figure}_range"]
    text = form.format(row[figure])
    return text if row["num_repeats"] == 1 else f"{text} ({form.format(low)} to {form.format(high)})"


def side_name(side: str) -> str:
    """The name of a side as shown to readers."""
    name, size = side.rsplit(" ", 1)
    return f"{NAMES[name]}, {int(size):,}{' tokens' if name.startswith('dstrain') else ''}"


def training_section(found: Mapping[str, Any], *, plots: Path) -> str:
    """Table, ratios and plot of one training benchmark."""
    header = ["side", "repeats", "real target tokens/s", "real target", "real source", "peak MiB", "tokens per update"]
    rows = [
        [
            side_name(f"{row['name']} {row['size']}"),
            row["num_repeats"],
            ranged(row, "target_tokens_per_second"),
            percent(row["target_efficiency"]),
            percent(row["source_efficiency"]),
            ranged(row, "peak_mib"),
            f"{row['target_tokens_per_update']:,.0f}",
        ]
        for row in found["sides"]
    ]
    ratios = [
        [
            side_name(ratio["ours"]),
            side_name(ratio["other"]),
            f"{ratio['speed']:.2f} × ({ratio['speed_range'][0]:.2f} to {ratio['speed_range'][1]:.2f})",
            f"{ratio['speed_by_cores']:.2f} ×",
            f"{ratio['memory']:.2f} ×",
            f"{ratio['resident']:.2f} ×" if "resident" in ratio else "",
        ]
        for ratio in found["ratios"]
    ]
    padding = [
        [side_name(f"{row['name']} {row['size']}"), percent(row["source"]), percent(row["target"])]
        for row in [*found["padding"]["dstrain"], *found["padding"]["trainer"]]
    ]
    plot = f"training-{found['kind']}-{found['model']}.png"
    plots.mkdir(parents=True, exist_ok=True)
    draw_training(found).savefig(plots / plot, dpi=144, metadata={"Software": None})
    about = (
        f"Rows: {found['rows']['origin']} ({found['rows']['number']:,}, {found['rows']['target_tokens']:.1f} target tokens on "
        f"average). Model: {MODELS[found['model']]}. {found['num_updates']} updates of {found['rows_per_update']} rows, or as "
        f"many tokens, are measured per repeat."
    )
    return "\n\n".join(
        [
            f"## Training, {found['kind']}, {found['model']}",
            about,
            f"![real target tokens per second]({plots.name}/{plot})",
            table(
                ["dstrain", "against", "real target tokens/s", "by core time", "peak memory", "with the weights"],
                ratios,
            ),
            table(header, rows),
            f"The same shares over a whole epoch, from lengths alone; dstrain's steps are of "
            f"{found['padding']['batch_tokens']:,} target tokens, or of {found['rows_per_update']} sequences:",
            table(["side", "real source", "real target"], padding),
            describe(found["machine"]),
        ]
    )


def draw_training(found: Mapping[str, Any]) -> Figure:
    """Bars of real target tokens per second, with the range over the repeats."""
    rows = found["sides"][::-1]
    figure = Figure(figsize=(8, 0.32 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    values = [row["target_tokens_per_second"] for row in rows]
    ranges = [row["target_tokens_per_second_range"] for row in rows]
    errors = [[value - low for value, (low, _) in zip(values, ranges, strict=True)]]
    errors.append([high - value for value, (_, high) in zip(values, ranges, strict=True)])
    axes.barh(
        [side_name(f"{row['name']} {row['size']}") for row in rows],
        values,
        xerr=errors,
        color=[COLOURS[row["name"]] for row in rows],
        error_kw={"elinewidth": 1, "capsize": 2},
    )
    axes.set_xlabel(f"real target tokens/s, {found['kind']}, median and range")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def losses_section(found: Mapping[str, Any]) -> str:
    """Held-out losses by seed."""
    sides = found["sides"]
    num_seeds = len(next(iter(sides.values())))
    rows = [
        [
            side_name(side),
            *(f"{result['held_out_loss']:.4f}" for result in results),
            f"{mean(result['held_out_loss'] for result in results):.4f}",
            f"{mean(result['target_tokens_seen'] for result in results):,.0f}",
        ]
        for side, results in sides.items()
    ]
    header = ["side", *(f"seed {seed}" for seed in range(num_seeds)), "mean", "target tokens seen"]
    about = (
        f"Held-out loss per target token after {found['num_updates']} updates of {found['rows_per_update']} rows, or as many "
        f"tokens, from the same weights, with the model's own dropout. Rows: {found['rows']['origin']}."
    )
    title = f"## Held-out loss at equal tokens, {found['kind']}, {found['model']}"
    return "\n\n".join([title, about, table(header, rows), describe(found["machine"])])


def evaluation_section(found: Sequence[Mapping[str, Any]], *, machine: str) -> str:
    """Evaluation against file order in batches of 16."""
    rows = [
        [
            entry["num_beams"],
            entry["num_rows"],
            *(
                f"{min(entry['seconds'][side]):.1f} to {max(entry['seconds'][side]):.1f} s"
                for side in ("ours", "seen", "stock")
            ),
            *(
                f"{entry[ratio]:.2f} × ({min(entry[by_round]):.2f} to {max(entry[by_round]):.2f})"
                for ratio, by_round in (("ratio", "ratios_by_round"), ("seen_ratio", "seen_ratios_by_round"))
            ),
            f"{len(entry['differing_rows'])}, {len(entry['differing_rows_of_seen'])}",
        ]
        for entry in found
    ]
    header = [
        "beams",
        "rows",
        "dstrain",
        "vocabulary seen",
        "the usual way",
        "speed",
        "its speed",
        "hypotheses that differ",
    ]
    kept, num_all = found[0]["num_ids"]
    about = (
        f"The model has {num_all:,} rows of embeddings, or with `vocabulary: seen` {kept:,}. "
        "The usual way is that of Seq2SeqTrainer: file order, 16 rows at a time, `generate()`, and a second forward pass for the "
        "loss (`python -m tests.benchmarks.evaluation`)."
    )
    return "\n\n".join([f"## Evaluation, {num_all:,} token ids", about, table(header, rows), machine])


def recipe_section(found: Mapping[str, Any]) -> str:
    """The wall time of a complete scaled-down recipe."""
    size = found["size"]
    rows = [
        [
            RECIPE_SIDES[side],
            _speed_of(found, side),
            ", ".join(f"{result['seconds']:.0f}" for result in results),
            ", ".join(f"{result['loss']:.4f}" for result in results),
            ", ".join(f"{result['score']:.1f}" for result in results),
        ]
        for side, results in found["sides"].items()
    ]
    about = (
        f"Rows: {found['origin']}. {NUM_EVALUATIONS * size['steps_between']} updates of {size['per_device']} × "
        f"{size['accumulation']} rows, an evaluation of {size['max_rows']} rows with {size['num_beams']} beams and a "
        f"checkpoint after each {size['steps_between']}; the best and the last model saved. A side is one command, imports "
        "included. Losses over fewer ids cannot be compared."
    )
    title = f"## A whole recipe, {found['kind']}, {found['model']}"
    header = ["side", "speed", "seconds, by repeat", "last loss", "last score"]
    return "\n\n".join([title, about, table(header, rows), describe(found["machine"])])


def quality_section(found: Mapping[str, Any]) -> str:
    """What is learned with part of the vocabulary, against all of it."""
    sides = found["sides"]
    rows = [
        [
            f"vocabulary {vocabulary}",
            *(f"{result['exact_match']:.4f}" for result in results),
            f"{mean(result['exact_match'] for result in results):.4f}",
        ]
        for vocabulary, results in sides.items()
    ]
    seen = sides["seen"][0]
    about = (
        f"Exact match on {seen['num_rows']:,} held-out rows after {found['num_steps']:,} updates of {found['rows_per_update']} "
        f"rows from the same weights. Rows: {found['origin']}. Of the 16,384 ids of the model `seen` trains {seen['ids']:,}."
    )
    header = ["", *(f"seed {seed}" for seed in range(len(sides["seen"]))), "mean"]
    title = f"## What is learned with `vocabulary: seen`, {found['kind']}, {found['model']}"
    return "\n\n".join([title, about, table(header, rows), describe(found["machine"])])


def _speed_of(found: Mapping[str, Any], side: str) -> str:
    if side not in found["ratios"]:
        return "1"
    low, high = found["ratios"][side]["range"]
    return f"{found['ratios'][side]['speed']:.2f} × ({low:.2f} to {high:.2f})"


def loss_section(found: Sequence[Mapping[str, Any]], *, machine: str) -> str:
    """Memory and time of the vocabulary projection and its loss."""

    def cell(row: Mapping[str, Any], figure: str, *, form: str) -> str:
        low, high = row[f"{figure}_range"]
        return f"{form.format(row[figure])} ({form.format(low)} to {form.format(high)})"

    rows = [
        [
            row["size"],
            percent(row["real"]),
            row["kind"],
            row["rows"] or "all",
            cell(row, "mib", form="{:,.0f}"),
            f"{row['mib_ratio']:.2f} ×",
            cell(row, "seconds", form="{:.2f}"),
            f"{row['seconds_ratio']:.2f} ×",
        ]
        for row in found
    ]
    header = ["shape", "real", "loss", "positions per chunk", "peak MiB", "memory", "seconds", "time"]
    about = (
        "Vocabulary projection and cross-entropy of 16 × 64 positions, forward and backward, at the published shapes; `own` is "
        "dstrain's (`python -m tests.benchmarks.loss_memory`). Ratios are to the first line of each shape."
    )
    return "\n\n".join(["## Projection and loss", about, table(header, rows), machine])


def build_page(results: Path, *, plots: Path) -> str:
    """The complete page; raises SystemExit if there is nothing to report."""
    machine = "".join(describe(found) for found in read_results(results, "machine")) or "The machine was not recorded."
    builders: dict[str, Callable[[Any], str]] = {
        "training": lambda found: training_section(found, plots=plots),
        "losses": losses_section,
        "recipe": recipe_section,
        "quality": quality_section,
        "evaluation": lambda found: evaluation_section(found, machine=machine),
        "loss_memory": lambda found: loss_section(found, machine=machine),
    }
    sections = {name: [build(found) for found in read_results(results, name)] for name, build in builders.items()}
    if not any(sections.values()):
        raise SystemExit(f"{results} has no results: run `make bench`")
    training = [METHOD] if sections["training"] or sections["losses"] else []
    parts = [PREAMBLE, *(text for texts in sections.values() for text in texts), *training]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the page, or the description of the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--threads", type=int, default=2, help="number of threads to record with --describe")
    options = parser.parse_args()
    if options.describe:
        options.results.mkdir(parents=True, exist_ok=True)
        text = json.dumps(describe_machine(threads=options.threads), indent=1) + "\n"
        (options.results / MACHINE).write_text(text, encoding="utf-8")
        return
    plots = options.page.parent / "plots"
    options.page.write_text(build_page(options.results, plots=plots), encoding="utf-8")
    print(f"wrote {options.page}")


if __name__ == "__main__":
    main()
