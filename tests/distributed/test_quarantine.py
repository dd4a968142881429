"""A row without a finite loss or gradient is found and quarantined, and nothing else changes: no weight and no step."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.models.loss import Seq2SeqLoss
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import (
    EOS,
    PAD,
    IdEncoder,
    build_config,
    build_loss,
    build_rows,
    differing,
    snapshot,
)

NUM_ROWS, NUM_STEPS = 24, 5
MAGIC = 95
"""A source token that marks a poisoned row."""
POISONED = 9
"""A row of the second step, in the middle of its micro-batches."""
SCALE = {"initial_scale_power": 4, "hysteresis": 1}
HALF = {"precision": "fp16", "machine__deepspeed": {"fp16": {**SCALE, "min_loss_scale": 16}}}
HALF_ABOVE = {"precision": "fp16", "machine__deepspeed": {"fp16": SCALE}}
"""A loss scale that could still be halved."""

Change = Callable[[torch.Tensor], torch.Tensor]
CHANGES: dict[str, Change] = {
    "loss": lambda loss: loss + torch.inf,  # whose gradient is finite
    "gradient": lambda loss: loss + (0.0 * loss).sqrt(),
    "overflow": lambda loss: loss * 1e8,
    "spike": lambda loss: loss * 50.0,
}
"""What a poisoned row does to the loss of its micro-batch."""


@contextmanager
def poison(kind: str, *, only_with_dropout: bool = False) -> Iterator[None]:
    """Changes the loss of every micro-batch that has the magic token, in any model."""
    forward = Seq2SeqLoss.forward

    def poisoned(self: Seq2SeqLoss, source_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        loss = forward(self, source_ids, *rest)
        is_hit = bool((source_ids == MAGIC).any()) and (self.model.config.dropout > 0 or not only_with_dropout)
        return CHANGES[kind](loss) if is_hit else loss

    Seq2SeqLoss.forward = poisoned  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Seq2SeqLoss.forward = forward  # type: ignore[method-assign]


def write_rows(path: Path, *, poisoned: Sequence[int]) -> None:
    """A table of token ids; line n + 1 is row n."""
    lines = []
    for number, (source, target) in enumerate(build_rows(num_rows=NUM_ROWS, seed=3)):
        kept = [token for token in source[:-1].tolist() if token != MAGIC]
        ids = [*kept, *([MAGIC] if number in poisoned else [5])]
        lines.append(" ".join(map(str, ids)) + "\t" + " ".join(map(str, target[:-1])))
    path.write_text("\n".join(lines) + "\n")


class Run:
    """A run on real ranks: data from a file, the real loop, engine, loader and quarantine, and a record of all steps."""

    def __init__(self, ranks: Ranks, root: Path, config: RunConfig, *, excluded: Sequence[int] = ()) -> None:
        from dstrain.data.cuts import Cut
        from dstrain.data.encoding import ReadingRules
        from dstrain.data.loader import Loader
        from dstrain.data.lookup import locate_rows
        from dstrain.data.plan import Plan
        from dstrain.data.tokens import load_token_set, prepare_token_set
        from dstrain.engine.build import build_engine
        from dstrain.engine.faults import find_bad_rows
        from dstrain.training.hooks.quarantine import Quarantine
        from dstrain.training.state import Hook, StepInfo

        rules = config.data.rules.model_copy(update={"unknown_token": "keep"})
        reading = ReadingRules(config.task, rules, IdEncoder(), split="train")
        folder = None
        if ranks.rank == 0:
            folder = prepare_token_set(config.data.train, reading=reading, cache_dir=root / "cache")
        tokens = load_token_set(ranks.broadcast(folder, Path))
        self.plan = Plan(
            tokens.source_lengths, tokens.target_lengths, fingerprint=tokens.fingerprint, seed=1,
            batch_size=8, batch_unit="sequences", cut=Cut(micro_batch_tokens=80),
        )  # fmt: skip
        self.loader = Loader(
            tokens, self.plan, rank=ranks.rank, world_size=ranks.world_size, pad_id=PAD, decoder_start_id=EOS,
            prefetch_steps=2,
        )  # fmt: skip
        self.loader.exclude(excluded)
        self.engine = build_engine(config, module=build_loss("m2m100", dropout=0.1), ranks=ranks, total_steps=NUM_STEPS)
        self.quarantine = Quarantine(
            config=config,
            ranks=ranks,
            find_rows=lambda batch, fault, step: find_bad_rows(
                self.engine, batch, fault=fault, step=step, config=config, ranks=ranks
            ),
            locate_rows=lambda rows: locate_rows(list(rows), sources=config.data.train, reading=reading),
            exclude=self.loader.exclude,
        )
        self.losses: list[float] = []
        self.faults: list[tuple[int, str]] = []
        self.differences: list[str] = []
        self._watch_steps()
        diary = self

        class Diary(Hook):
            def on_step(self, info: StepInfo, control: Any) -> None:
                diary.losses.append(ranks.sum([float(info.result.loss_sum)])[0] / info.target_tokens)

        self.hooks = [self.quarantine, Diary()]

    def train(self) -> None:
        from dstrain.data.plan import Position
        from dstrain.training.loop import train
        from dstrain.training.state import Control, Progress

        train(
            self.engine,
            loader=self.loader,
            progress=Progress(0, Position(0, 0)),
            total_steps=NUM_STEPS,
            epoch_at=self.plan.epoch_at,
            hooks=self.hooks,
            control=Control(record=lambda row: None),
            quarantine=self.quarantine,
        )

    def _watch_steps(self) -> None:
        step, refused = self.engine.step, None

        def watched(batch: Any, **settings: Any) -> Any:
            nonlocal refused
            before = snapshot(self.engine)
            if refused is not None:  # the search has changed nothing either
                self.differences += differing(refused, before)
            result = step(batch, **settings)
            refused = None
            if result.fault is not None:
                refused = before
                self.faults.append((settings["step"], result.fault.kind))
                self.differences += differing(before, snapshot(self.engine))
            return result

        self.engine.step = watched  # type: ignore[method-assign]


def case_config(root: Path, **changes: Any) -> RunConfig:
    data = {"train": [{"path": str(root / "rows.tsv")}], "eval": [{"demo": "translation", "split": "eval"}]}
    return build_config(data=data, output_dir=str(root / "run"), training__max_steps=NUM_STEPS, **changes)


def allow_fp16() -> None:
    from deepspeed.accelerator import get_accelerator

    type(get_accelerator()).is_fp16_supported = lambda self: True


def run_cases(ranks: Ranks, root: str, cases: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each case with a poisoned row, and a run that never had this row."""
    allow_fp16()
    results = []
    for kind, changes in cases:
        config = case_config(Path(root), **changes)
        run = Run(ranks, Path(root), config)
        with poison(kind):
            run.train()
        listed = [json.loads(line) for line in (Path(root) / "run" / "quarantine.jsonl").read_text().splitlines()]
        without = Run(ranks, Path(root), config, excluded=[POISONED])
        without.train()
        results.append(
            {
                "case": (kind, changes),
                "rows": [row.row for row in run.quarantine.rows],
                "faults": run.faults,
                "differences": run.differences,
                "losses": run.losses,
                "expected": without.losses,
                "expected_faults": without.faults,
                "listed": listed,
            }
        )
    return results


WHOLE = [
    *(("gradient" if stage % 2 else "loss", {"machine__zero_stage": stage}) for stage in range(4)),
    *(
        ("loss" if stage % 2 else "gradient", {"machine__zero_stage": stage, "precision": "bf16"})
        for stage in (1, 2, 3)
    ),
    ("spike", {"machine__zero_stage": 0, "training__spike_factor": 3.0}),
    ("spike", {"machine__zero_stage": 3, "training__spike_factor": 3.0, "precision": "bf16"}),
]
HALVES = [
    *(("overflow", {"machine__zero_stage": stage, **HALF}) for stage in (1, 2, 3)),
    ("loss", {"machine__zero_stage": 2, **HALF_ABOVE}),
    ("spike", {"machine__zero_stage": 1, "training__spike_factor": 3.0, **HALF}),
]
KINDS = {"overflow": "scale"}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("cases", [WHOLE, HALVES], ids=["fp32-bf16", "fp16"])
def test_the_poisoned_row_is_quarantined_and_the_run_equals_one_that_never_had_it(
    tmp_path: Path, world_size: int, cases: list[tuple[str, dict[str, Any]]]
) -> None:
    write_rows(tmp_path / "rows.tsv", poisoned=[POISONED])
    for results in run_ranks(run_cases, str(tmp_path), cases, world_size=world_size):
        assert len(results) == len(cases)
        for result in results:
            kind = result["case"][0]
            assert result["rows"] == [POISONED], result["case"]
            assert [found for _, found in result["faults"]] == [KINDS.get(kind, kind)], result["case"]
            assert result["differences"] == [], result["case"]
            assert len(result["losses"]) == NUM_STEPS
            assert result["losses"] == result["expected"], result["case"]
            assert result["expected_faults"] == []
            (line,) = result["listed"]
            assert line["where"] == f"{tmp_path / 'rows.tsv'}:{POISONED + 1}"
            assert line["source"].split()[-1] == str(MAGIC)
            assert line["step"] == result["faults"][0][0]


def refuse(ranks: Ranks, root: str, kind: str, changes: dict[str, Any], how: str) -> tuple[str, list[str], int]:
    """The diagnosis of a run that must stop, what the refused step has changed, and the number of steps taken."""
    from dstrain.engine.engine import TrainingFault

    run = Run(ranks, Path(root), case_config(Path(root), **changes))
    if how == "weights":
        with torch.no_grad():
            run.engine.module.model.model.decoder.layers[1].fc1.weight[0, 0] = torch.inf
    if how == "instance":
        run.engine.module.register_forward_hook(lambda module, given, loss: loss * torch.nan)
    with poison(kind, only_with_dropout=how == "dropout"), pytest.raises(TrainingFault) as caught:
        run.train()
    return str(caught.value), run.differences, len(run.losses)


def test_a_fault_of_too_many_rows_stops_the_run_with_the_list(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.tsv", poisoned=range(NUM_ROWS))
    changes = {"machine__zero_stage": 2, "training__max_quarantined_rows": 3}
    for message, differences, num_steps in run_ranks(refuse, str(tmp_path), "loss", changes, "class", world_size=2):
        assert (differences, num_steps) == ([], 0)
        # nan if the filler of a rank copies a poisoned row: 0 × inf
        assert re.search(r"step 1 was not applied: the loss is (inf|nan)\.", message)
        assert "Rows that cause it: 8; set aside before: 0; training.max_quarantined_rows allows 3 in total" in message
        assert "Nothing was saved after step 0" in message
        assert message.count(f"{tmp_path / 'rows.tsv'}:") == 5
        assert "… and 3 more" in message


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("instance", "The fault did not recur when its micro-batches were computed again, so no row can be named"),
        ("dropout", "No row causes it by itself; micro-batch 2 does, with 3 rows"),
        ("weights", r"The weights themselves are not finite, in 1 parameters \(model.decoder.layers.1.fc1.weight\)"),
    ],
)
def test_a_fault_that_no_row_causes_stops_the_run_with_a_diagnosis(tmp_path: Path, how: str, sentence: str) -> None:
    write_rows(tmp_path / "rows.tsv", poisoned=[POISONED])
    changes = {"machine__zero_stage": 0}
    ((message, differences, num_steps),) = run_ranks(refuse, str(tmp_path), "loss", changes, how, world_size=1)
    assert re.search(sentence, message)
    assert differences == []
    assert num_steps == (1 if how == "dropout" else 0)
    assert (f"rows.tsv:{POISONED + 1} " in message) == (how == "dropout")
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()
