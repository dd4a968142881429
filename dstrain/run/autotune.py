"""What is null in `machine`, as values, once a run: which micro-batch fits and what it costs, and what is faster.

Owns where the answers come from (the run itself, the device, the cache, a child process that measures); measures nothing. How
steps are cut follows from them, so a run that goes on keeps them, on whatever machine.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dstrain.cluster.process_group import Ranks
from dstrain.config.load import ConfigError, load_config
from dstrain.config.machine import Machine
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run.prepare import Prepared, cache_dir

CPU_TOKENS = 8192
"""Where there is no GPU memory to fill: larger micro-batches are not faster there."""
OVERHEADS = {"cpu": 128, "cuda": 2048}
"""Padded tokens that pay for one more micro-batch. A CPU is as fast with 64 or 256; on a GPU it is what is computed while the
kernels of a small micro-batch are launched, an estimate."""
MEASURED = ("micro_batch_tokens", "compile")
LEFT_OUT = ("name", "seed", "data", "output_dir", "checkpoint", "logging")
"""What the memory of a step does not depend on; of the data the longest rows are asked for."""
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PACKAGES = ("dstrain", "torch", "transformers", "deepspeed")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedMachine:
    """What was measured on a GPU, or stood fixed in the question."""

    budget: int | None
    """Tokens of a micro-batch; None if not even one row fits."""
    compile: bool
    reason: str
    """Why layers are compiled or not, with seconds; empty if that was not asked."""


Measure = Callable[[RunConfig, Prepared], TunedMachine]
"""Answers what is null in a configuration."""


def resolve_machine(
    config: RunConfig, *, prepared: Prepared, ranks: Ranks, measure: Measure | None = None
) -> RunConfig:
    """`config` with values for `machine.micro_batch_tokens`, `micro_batch_overhead` and `compile`; a collective call.

    Raises:
        UserError: not even one row fits, or nothing can be measured; the message says what to set.
    """
    answer: Machine | str | None = None
    if ranks.rank == 0:
        try:
            answer = _settle(config, prepared=prepared, ranks=ranks, measure=measure or measure_apart)
        except UserError as error:
            answer = str(error)
    answer = ranks.broadcast(answer)
    if not isinstance(answer, Machine):
        raise UserError(answer)
    return config.model_copy(update={"machine": answer})


def _open_keys(machine: Machine) -> list[str]:
    return [key for key in MEASURED if getattr(machine, key) is None]


def _settle(config: RunConfig, *, prepared: Prepared, ranks: Ranks, measure: Measure) -> Machine:
    machine, kept = config.machine, _kept_machine(Path(config.run_dir))
    changes: dict[str, Any] = {}
    if machine.micro_batch_overhead is None:
        of_run = kept.micro_batch_overhead if kept else None
        changes["micro_batch_overhead"] = OVERHEADS[ranks.device.type] if of_run is None else of_run
    if machine.micro_batch_tokens is None:
        changes["micro_batch_tokens"] = _plan_tokens(machine, kept=kept, device=ranks.device)
    if machine.compile is None:
        changes["compile"] = _plan_compile(machine, kept=kept, device=ranks.device)
    machine = machine.model_copy(update=changes)
    if not (asked := _open_keys(machine)):
        return machine
    config = config.model_copy(update={"machine": machine})
    found = _measure_once(config, asked=asked, prepared=prepared, device=ranks.device, measure=measure)
    return machine.model_copy(update={"micro_batch_tokens": found.budget, "compile": found.compile})


def _plan_tokens(machine: Machine, *, kept: Machine | None, device: torch.device) -> int | None:
    """The budget of a micro-batch where nothing need be measured for it."""
    if kept is not None and kept.micro_batch_tokens is not None:
        log.info("micro-batches of at most %d tokens, as this run began with", kept.micro_batch_tokens)
        return kept.micro_batch_tokens
    if machine.micro_batch_size is not None:
        return CPU_TOKENS  # cuts nothing
    if device.type != "cuda":
        log.info("micro-batches of at most %d tokens: there is no GPU memory to fill", CPU_TOKENS)
        return CPU_TOKENS
    return None


def _plan_compile(machine: Machine, *, kept: Machine | None, device: torch.device) -> bool | None:
    """Whether layers are compiled where nothing need be measured for it."""
    if machine.zero_stage == 3:
        log.info("layers are not compiled: ZeRO 3 gathers their weights by hooks, which compiled layers leave out")
        return False
    if device.type != "cuda":
        log.info("layers are not compiled: without a GPU nothing is gained")
        return False
    if kept is not None and kept.compile is not None:
        log.info("layers are %scompiled, as this run began with", "" if kept.compile else "not ")
        return kept.compile
    return None


def _measure_once(
    config: RunConfig, *, asked: list[str], prepared: Prepared, device: torch.device, measure: Measure
) -> TunedMachine:
    file = cache_dir(config) / "machines" / f"{_key(config, prepared=prepared, device=device)}.json"
    origin = f", as measured before ({file})"
    if file.is_file():
        found = TunedMachine(**json.loads(file.read_bytes()))
    else:
        log.info("measuring on the GPU: %s", " and ".join(f"machine.{key}" for key in asked))
        found, origin = measure(config, prepared), ""
        if found.budget is None:
            raise UserError(
                "machine.micro_batch_tokens: not even the longest row alone fits into the memory of one GPU, as one rank; set "
                "a number if the ranks share the model (zero_stage 3), or see activation_checkpointing and the offload keys"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(asdict(found)) + "\n")
        draft.replace(file)
    if "micro_batch_tokens" in asked:
        log.info("micro-batches of at most %d tokens fit%s", found.budget, origin)
    if "compile" in asked:
        log.info("layers are %scompiled%s: %s", "" if found.compile else "not ", origin, found.reason)
    return found


def _kept_machine(run_dir: Path) -> Machine | None:
    """What an earlier start of the run has settled."""
    path = run_dir / "config.yaml"
    try:
        return load_config(str(path)).machine if path.is_file() else None
    except ConfigError:  # of an older version; the checkpoint itself knows the cut
        return None


def _key(config: RunConfig, *, prepared: Prepared, device: torch.device) -> str:
    gpu = torch.cuda.get_device_properties(device)
    lengths = [int(lengths.max()) for lengths in (prepared.train.source_lengths, prepared.train.target_lengths)]
    lengths += [int(lengths.max()) for lengths in (prepared.eval.source_lengths, prepared.eval.target_lengths)]
    values: list[Any] = [config.model_dump(mode="json", exclude=set(LEFT_OUT)), lengths, prepared.tokenizer.fingerprint]
    values += [gpu.name, gpu.total_memory, [version(package) for package in PACKAGES]]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def measure_apart(config: RunConfig, prepared: Prepared) -> TunedMachine:
    """What is null in `config.machine`, measured in a process of its own.

    Raises:
        UserError: the process failed.
    """
    request = {
        "config": config.model_dump(mode="json"),
        "tokenizer": str(Path(config.run_dir) / "tokenizer"),
        "train": str(prepared.train.folder),
        "eval": str(prepared.eval.folder),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request))
        # alone, on the first GPU that this process sees, which is its own: rank 0 asks
        environment = {
            key: value for key, value in os.environ.items() if key not in LAUNCHED and not key.startswith("SLURM_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "dstrain.run.autotune_probe", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        keys = " and ".join(f"machine.{key}" for key in _open_keys(config.machine))
        raise UserError(
            f"{keys}: nothing could be measured ({last[0]}); set values instead of null, such as "
            "micro_batch_tokens=8192 and compile=false"
        )
    return TunedMachine(**json.loads(done.stdout.splitlines()[-1]))
