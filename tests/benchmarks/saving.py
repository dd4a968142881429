"""How long a save blocks training: in the background, in the foreground, and with DeepSpeed; and the bytes on disk.

`python -m tests.benchmarks.saving [--ranks 2] [--saves 5]`. All three save the same state of the same engine, in turn, in one
run; the results are ratios of medians. The first two sync their files; DeepSpeed does not.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import build_batch, build_config, build_rows

STAGE = 2


def measure(ranks: Ranks, folder: str, num_saves: int) -> dict[str, Any]:
    """Seconds by kind of save, seconds of steps with and without a save in the background, and bytes."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    from dstrain.checkpoint.saver import RunIdentity, Saver
    from dstrain.checkpoint.state import RunState
    from dstrain.engine.build import build_engine
    from dstrain.models.loss import Seq2SeqLoss

    model = M2M100ForConditionalGeneration(
        M2M100Config(
            vocab_size=32000, d_model=512, encoder_layers=4, decoder_layers=4, encoder_attention_heads=8,
            decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048, encoder_layerdrop=0.0,
            decoder_layerdrop=0.0, pad_token_id=1, eos_token_id=2, bos_token_id=0, decoder_start_token_id=2,
        )
    )  # fmt: skip
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    config = build_config(machine__zero_stage=STAGE)
    engine = build_engine(config, module=Seq2SeqLoss(model), ranks=ranks, total_steps=1000)
    root = Path(folder)
    saver = Saver(
        root / "own",
        engine=engine,
        identity=RunIdentity(recipe_hash="", recipe={}, versions={}),
        ranks=ranks.beside(),
        check_lease=lambda: None,
        sync_records=lambda: None,
        prune=lambda: None,
        on_stage=lambda phase: None,
    )
    step = 0

    def train() -> float:
        nonlocal step
        step += 1
        batch = build_batch(build_rows(seed=step), sizes=[8, 8], rank=ranks.rank, world_size=ranks.world_size)
        return timed(ranks, lambda: engine.step(batch, step=step))

    def begin() -> None:
        saver.save(RunState(step=step, epoch=0, step_in_epoch=step, cut={}, data={}), scores=None)

    def write_at_once() -> None:
        begin()
        saver.finish()

    found: dict[str, list[float]] = {
        "background": [],
        "at once": [],
        "deepspeed": [],
        "step": [],
        "step while saving": [],
    }
    train()
    write_at_once()  # the first save allocates the host buffers
    for number in range(num_saves):
        found["step"].append(train())
        found["background"].append(timed(ranks, begin))
        found["step while saving"].append(train())
        saver.finish()
        train()
        found["at once"].append(timed(ranks, write_at_once))
        train()
        save = partial(engine.wrapped.save_checkpoint, str(root), tag=f"deepspeed-{number}")
        found["deepspeed"].append(timed(ranks, save))
    (newest,) = sorted((root / "own").glob(f"step-{step - 1:08d}.*"))
    return {
        "seconds": found,
        "parameters": num_parameters,
        "bytes": {"own": size_of(newest), "deepspeed": size_of(root / "deepspeed-0")},
    }


def timed(ranks: Ranks, action: Callable[[], Any]) -> float:
    """Seconds until the slowest rank has finished."""
    ranks.barrier()
    started = time.perf_counter()
    action()
    return max(ranks.broadcast(ranks.gather(time.perf_counter() - started, float), list[float]))


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print; the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--saves", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{shutil.disk_usage(folder).free / 1e9:.0f} GB free in {folder}")
        found = run_ranks(measure, folder, options.saves, world_size=options.ranks)[0]
    print(f"{found['parameters'] / 1e6:.1f} million parameters, {options.ranks} ranks, ZeRO-{STAGE}")
    middle = {kind: median(seconds) for kind, seconds in found["seconds"].items()}
    for kind, seconds in found["seconds"].items():
        print(f"{kind:<18} median {middle[kind]:7.3f} s  from {min(seconds):.3f} to {max(seconds):.3f}")
    print(f"training is blocked for 1 / {middle['at once'] / middle['background']:.1f} of a save in the foreground")
    print(f"                        1 / {middle['deepspeed'] / middle['background']:.1f} of a save by DeepSpeed")
    print(f"bytes on disk: {found['bytes']['own'] / found['bytes']['deepspeed']:.3f} of DeepSpeed's ({found['bytes']})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
