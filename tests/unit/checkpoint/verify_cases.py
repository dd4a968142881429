"""A run of four checkpoints, and the claims of its attempts."""

import json
from dataclasses import asdict
from pathlib import Path

from dstrain.cluster.processes import this_process
from tests.unit.checkpoint.checkpoint_cases import save


def write_claims(run_dir: Path, *base_steps: int | None) -> None:
    """Claims of leases 1, 2, … with the steps that they resumed from."""
    (run_dir / "lease").mkdir(parents=True, exist_ok=True)
    holder = asdict(this_process())
    for number, base_step in enumerate(base_steps, start=1):
        claim = {"number": number, "holder": holder, "base_step": base_step}
        (run_dir / "lease" / f"{number:08d}.json").write_text(json.dumps(claim))


def save_four(folder: Path) -> Path:
    """The checkpoints folder of a run of four saves in `folder`."""
    root = folder / "run" / "checkpoints"
    for step in (10, 20, 30, 40):
        save(root, step=step, scores={"bleu": step / 2} if step == 20 else None)
    return root
