"""Resolves the null keys of `machine` once per run: micro-batch size, micro-batch overhead, compile.

A value comes from an earlier attempt at the run, from the device, from the cache, or from a child process that measures it.
How steps are cut depends on these values, so a resumed run keeps them on any machine.
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

from dstrain.cluster.environment import without_launcher
from dstrain.cluster.process_group import Ranks
from dstrain.config.device_defaults import BATCH_TOKENS, CPU_TOKENS, OVERHEADS
from dstrain.config.machine import Machine
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run.cache import cache_dir
from dstrain.run.prepare import Prepared
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes

MEASURED = ("micro_batch_tokens", "compile")
LEFT_OUT = ("name", "seed", "data", "output_dir", "checkpoint", "logging")
"""Sections without effect on the memory of a step; of the data only the longest rows matter."""
GIB = 1 << 30
PACKAGES = ("dstrain", "torch", "transformers", "deepspeed")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TunedMachine:
    """What was measured on a GPU, or was set already."""

    budget: int | None
    """Tokens of a micro-batch; None if not even one row fits."""
    compile: bool
    reason: str
    """Why layers are compiled or not, with seconds; empty if that was not measured."""


Measure = Callable[[RunConfig, Prepared], TunedMachine]
"""Finds values for the null keys of a configuration."""


def resolve_machine(
    config: RunConfig, *, prepared: Prepared, ranks: Ranks, measure: Measure | None = None
) -> RunConfig:
    """`config` with values for the null keys of `machine` that depend on the device; a collective call.

    Raises:
        UserError: not even one row fits, or nothing can be measured; the message says what to set.
    """
    answer: Machine | str | None = None
    if ranks.rank == 0:
        try:
            answer = _resolve(config, prepared=prepared, ranks=ranks, measure=measure or measure_apart)
        except UserError as error:
            answer = str(error)
    answer = ranks.broadcast(answer, Machine | str)
    if not isinstance(answer, Machine):
        raise UserError(answer)
    return config.model_copy(update={"machine": answer})


def _null_keys(machine: Machine) -> list[str]:
    return [key for key in MEASURED if getattr(machine, key) is None]


def _resolve(config: RunConfig, *, prepared: Prepared, ranks: Ranks, measure: Measure) -> Machine:
    machine, kept = config.machine, _machine_of_run(RunFolder(Path(config.run_dir)))
    machine = machine.model_copy(
        update={
            "evaluation_tokens": machine.evaluation_tokens
            or (kept.evaluation_tokens if kept is not None else None)
            or BATCH_TOKENS[ranks.device.type],
            "micro_batch_overhead": _resolve_overhead(machine, kept=kept, device=ranks.device),
            "micro_batch_tokens": _resolve_tokens(machine, kept=kept, device=ranks.device),
            "compile": _resolve_compile(machine, kept=kept, device=ranks.device),
        }
    )
    if not _null_keys(machine):
        return machine
    config = config.model_copy(update={"machine": machine})
    found = _measure_once(config, prepared=prepared, device=ranks.device, measure=measure)
    return machine.model_copy(update={"micro_batch_tokens": found.budget, "compile": found.compile})


def _resolve_overhead(machine: Machine, *, kept: Machine | None, device: torch.device) -> int:
    if machine.micro_batch_overhead is not None:
        return machine.micro_batch_overhead
    if kept is not None and kept.micro_batch_overhead is not None:
        return kept.micro_batch_overhead
    return OVERHEADS[device.type]


def _resolve_tokens(machine: Machine, *, kept: Machine | None, device: torch.device) -> int | None:
    """The token budget of a micro-batch; None if it must be measured."""
    if machine.micro_batch_tokens is not None:
        return machine.micro_batch_tokens
    if kept is not None and kept.micro_batch_tokens is not None:
        log.info("micro-batches of at most %d tokens, as at the beginning of this run", kept.micro_batch_tokens)
        return kept.micro_batch_tokens
    if machine.micro_batch_size is not None:
        return CPU_TOKENS  # without effect: the size decides
    if device.type != "cuda":
        log.info("micro-batches of at most %d tokens: there is no GPU memory to fill", CPU_TOKENS)
        return CPU_TOKENS
    return None


def _resolve_compile(machine: Machine, *, kept: Machine | None, device: torch.device) -> bool | None:
    """Whether layers are compiled; None if it must be measured."""
    if machine.compile is not None:
        return machine.compile
    if machine.zero_stage == 3:
        log.info("layers are not compiled: ZeRO 3 gathers their weights by hooks, which compiled layers skip")
        return False
    if device.type != "cuda":
        log.info("layers are not compiled: without a GPU they would not be faster")
        return False
    if kept is not None and kept.compile is not None:
        log.info("layers are %scompiled, as at the beginning of this run", "" if kept.compile else "not ")
        return kept.compile
    return None


def _measure_once(config: RunConfig, *, prepared: Prepared, device: torch.device, measure: Measure) -> TunedMachine:
    """Values for the null keys of `config.machine`, from the cache or measured; logs them with their origin."""
    keys = _null_keys(config.machine)
    file = cache_dir(config) / "machines" / f"{_key(config, prepared=prepared, device=device)}.json"
    origin = f", as measured before ({file})"
    known = _read_measured(file)
    if known is not None:
        found = known
    else:
        log.info("measuring on the GPU: %s", " and ".join(f"machine.{key}" for key in keys))
        found, origin = measure(config, prepared), ""
        if found.budget is None:
            raise UserError(
                "machine.micro_batch_tokens: not even the longest row alone fits into the memory of one GPU on a single rank; "
                "set a number if the ranks share the model (zero_stage 3), or use activation_checkpointing or the offload keys"
            )
        write_file(file, json.dumps(asdict(found)) + "\n")
    if "micro_batch_tokens" in keys:
        log.info("micro-batches of at most %d tokens fit%s", found.budget, origin)
    if "compile" in keys:
        log.info("layers are %scompiled%s: %s", "" if found.compile else "not ", origin, found.reason)
    return found


def _read_measured(file: Path) -> TunedMachine | None:
    """What the cache has for this machine; None if there is nothing, or nothing that can be used."""
    try:
        return TunedMachine(**json.loads(read_bytes(file)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _machine_of_run(folder: RunFolder) -> Machine | None:
    """The `machine` section that an earlier attempt resolved; None if there is none."""
    try:
        return read_run_config(folder).machine if os.path.lexists(folder.config) else None
    except UserError:  # written by an older version; the checkpoint also records the cut
        return None


def _key(config: RunConfig, *, prepared: Prepared, device: torch.device) -> str:
    gpu = torch.cuda.get_device_properties(device)
    lengths = [int(lengths.max()) for lengths in (prepared.train.source_lengths, prepared.train.target_lengths)]
    lengths += [int(lengths.max()) for lengths in (prepared.eval.source_lengths, prepared.eval.target_lengths)]
    values: list[Any] = [config.model_dump(mode="json", exclude=set(LEFT_OUT)), lengths, prepared.tokenizer.fingerprint]
    values.append(prepared.vocabulary.kept and len(prepared.vocabulary.kept))
    # what other processes have taken counts, to the GiB: a budget that was measured beside them would stay small for ever
    free, _ = torch.cuda.mem_get_info(device)
    values += [gpu.name, gpu.total_memory, free // GIB, [version(package) for package in PACKAGES]]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def measure_apart(config: RunConfig, prepared: Prepared) -> TunedMachine:
    """Values for the null keys of `config.machine`, measured in a child process.

    Raises:
        UserError: the process failed.
    """
    request = {
        "config": config.model_dump(mode="json"),
        "tokenizer": str(RunFolder(Path(config.run_dir)).tokenizer),
        "train": str(prepared.train.folder),
        "eval": str(prepared.eval.folder),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request))
        # as a single rank, on the first visible GPU, which is that of rank 0
        done = subprocess.run(
            [sys.executable, "-m", "dstrain.run.autotune_probe", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=without_launcher(os.environ),
        )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        keys = " and ".join(f"machine.{key}" for key in _null_keys(config.machine))
        raise UserError(
            f"{keys}: nothing could be measured ({last[0]}); set values instead of null, such as "
            "micro_batch_tokens=8192 and compile=false"
        )
    return TunedMachine(**json.loads(find_answer(done.stdout)))


def find_answer(printed: str) -> str:
    """The line of JSON in what the process printed: libraries such as NCCL print to the same stream, before it and after."""
    return [line for line in printed.splitlines() if line.startswith('{"budget"')][-1]
