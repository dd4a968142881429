"""`machine.micro_batch_tokens: null` to a number, once a run: the largest that fits into the GPU's memory.

Owns where the answer comes from (the run itself, the cache, a child process that measures); measures nothing. The number
decides how steps are cut, so a run that goes on keeps it, on whatever machine.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dstrain.cluster.process_group import Ranks
from dstrain.config.load import ConfigError, load_config
from dstrain.config.schema import RunConfig
from dstrain.prepare import Prepared, cache_dir

CPU_TOKENS = 8192
"""Where there is no GPU memory to fill: larger micro-batches are not faster there."""
LEFT_OUT = ("name", "seed", "data", "output_dir", "checkpoint", "logging")
"""What the memory of a step does not depend on; of the data the longest rows are asked for."""
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PACKAGES = ("dstrain", "torch", "transformers", "deepspeed")

log = logging.getLogger(__name__)


def settle_budget(
    config: RunConfig,
    *,
    prepared: Prepared,
    ranks: Ranks,
    probe: Callable[..., int | None] | None = None,
) -> RunConfig:
    """`config` with `machine.micro_batch_tokens` as a number; a collective call.

    Raises:
        ValueError: not even one row fits, or memory cannot be measured; the message says what to set.
    """
    if config.machine.micro_batch_tokens is not None:
        return config
    answer: int | str | None = None
    if ranks.rank == 0:
        try:
            answer = _find(config, prepared=prepared, ranks=ranks, probe=probe or probe_apart)
        except ValueError as error:
            answer = str(error)
    answer = ranks.broadcast(answer)
    if not isinstance(answer, int):
        raise ValueError(answer)
    machine = config.machine.model_copy(update={"micro_batch_tokens": answer})
    return config.model_copy(update={"machine": machine})


def _find(config: RunConfig, *, prepared: Prepared, ranks: Ranks, probe: Callable[..., int | None]) -> int:
    if (kept := _kept_budget(Path(config.run_dir))) is not None:
        log.info("micro-batches of at most %d tokens, as this run began with", kept)
        return kept
    if ranks.device.type != "cuda":
        log.info("micro-batches of at most %d tokens: there is no GPU memory to fill", CPU_TOKENS)
        return CPU_TOKENS
    file = cache_dir(config) / "budgets" / f"{_key(config, prepared=prepared, device=ranks.device)}.json"
    if file.is_file():
        found = int(json.loads(file.read_bytes())["budget"])
        log.info("micro-batches of at most %d tokens, as measured before (%s)", found, file)
        return found
    log.info("measuring how large a micro-batch fits into memory")
    measured = probe(config, prepared=prepared)
    if measured is None:
        raise ValueError(
            "machine.micro_batch_tokens: not even the longest row alone fits into the memory of one GPU, as one rank; set a "
            "number if the ranks share the model (zero_stage 3), or see activation_checkpointing and the offload keys"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"budget": measured}) + "\n")
    draft.replace(file)
    log.info("micro-batches of at most %d tokens fit", measured)
    return measured


def _kept_budget(run_dir: Path) -> int | None:
    """What an earlier start of the run has settled."""
    path = run_dir / "config.yaml"
    try:
        return load_config(str(path)).machine.micro_batch_tokens if path.is_file() else None
    except ConfigError:  # of an older version; the checkpoint itself knows the cut
        return None


def _key(config: RunConfig, *, prepared: Prepared, device: torch.device) -> str:
    gpu = torch.cuda.get_device_properties(device)
    lengths = [int(lengths.max()) for lengths in (prepared.train.source_lengths, prepared.train.target_lengths)]
    lengths += [int(lengths.max()) for lengths in (prepared.eval.source_lengths, prepared.eval.target_lengths)]
    values: list[Any] = [config.model_dump(mode="json", exclude=set(LEFT_OUT)), lengths, prepared.tokenizer.fingerprint]
    values += [gpu.name, gpu.total_memory, [version(package) for package in PACKAGES]]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def probe_apart(config: RunConfig, *, prepared: Prepared) -> int | None:
    """The largest budget that fits, measured in a process of its own; None if not even one row does.

    Raises:
        ValueError: the process failed.
    """
    machine = config.machine.model_copy(update={"micro_batch_tokens": CPU_TOKENS})
    request = {
        "config": config.model_copy(update={"machine": machine}).model_dump(mode="json"),
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
            [sys.executable, "-m", "dstrain.probe", str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise ValueError(
            f"machine.micro_batch_tokens: memory could not be measured ({last[0]}); set a number instead of null, such as 8192"
        )
    budget: int | None = json.loads(done.stdout.splitlines()[-1])["budget"]
    return budget
