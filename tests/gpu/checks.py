"""The checks of `make check-gpu`, in order of worth. Each runs in a process of its own and returns JSON values."""

import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import GenerationConfig

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks, join_ranks
from dstrain.data.collate import collate
from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position, StepPlan
from dstrain.engine.build import build_engine
from dstrain.engine.engine import Engine
from dstrain.evaluation.beam import beam_search
from dstrain.evaluation.decode import Decoder, Rules, greedy_search, shared_attention
from dstrain.evaluation.generate import evaluation_mode, generate, read_sequence
from dstrain.models.compilation import compile_layers
from dstrain.models.loss import Seq2SeqLoss
from tests.benchmarks.gpu import MULTIPLY_ADDS
from tests.benchmarks.gpu import build_model as build_published
from tests.distributed.steps import (
    TOTAL_STEPS,
    build_batch,
    build_config,
    build_loss,
    build_model,
    build_rows,
    plain_loop,
)
from tests.unit.evaluation import decoding_cases
from tests.unit.evaluation.decoding_cases import FAMILIES

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PEAK = 790e12
"""bf16 arithmetic per second of the GPU that the shares refer to, an H200 (nominal 989 without sparsity, 790 sustained)."""


def join(**changes: Any) -> Ranks:
    return join_ranks(replace(read_process_info({}), **changes), timeout_minutes=7)


def engine_of(module: Seq2SeqLoss, *, ranks: Ranks, **changes: Any) -> Engine:
    return build_engine(build_config(**changes), module=module, ranks=ranks, total_steps=TOTAL_STEPS)


def apart(found: float, wanted: float) -> float:
    return abs(found / wanted - 1.0)


def versions(is_tiny: bool) -> Any:
    """Python, libraries, GPU and driver."""
    import deepspeed
    import transformers

    found = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": torch.version.cuda}
    found |= {"transformers": transformers.__version__, "deepspeed": deepspeed.__version__}
    if ON_GPU:
        found |= {"gpu": torch.cuda.get_device_name(), "free_gib": f"{torch.cuda.mem_get_info()[0] / 2**30:.1f}"}
    return found


def loss(is_tiny: bool) -> Any:
    """Loss and gradient norm of every family and precision, against fp32 on the CPU, in one chunk and in many."""
    found = {}
    ids = [torch.randint(3, 110, (6, width), generator=torch.Generator().manual_seed(0)) for width in (9, 7, 7)]
    mask = torch.ones(6, 9, dtype=torch.int64)
    mask[:3, 5:] = 0

    def measure(family: str, device: torch.device, dtype: torch.dtype, max_logits: int | None) -> tuple[float, float]:
        module = Seq2SeqLoss(decoding_cases.build_model(family), max_logits=max_logits).to(device, dtype).eval()
        value = module(ids[0].to(device), mask.to(device), ids[1].to(device), ids[2].to(device), 42)
        value.backward()
        norms = [parameter.grad.float().norm() for parameter in module.parameters() if parameter.grad is not None]
        return float(value), float(torch.linalg.vector_norm(torch.stack(norms)))

    for family in FAMILIES:
        wanted = measure(family, torch.device("cpu"), torch.float32, None)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for max_logits in (None, 500):
                value, norm = measure(family, DEVICE, dtype, max_logits)
                name = f"{family} {str(dtype)[6:]} {'chunks' if max_logits else 'whole'}"
                found[name] = (apart(value, wanted[0]), apart(norm, wanted[1]))
                assert found[name][0] < (1e-4 if dtype == torch.float32 else 2e-2), (name, found[name])
                # the gradient of these small, sharp models is compared in fp32 only
                assert found[name][1] < (1e-3 if dtype == torch.float32 else math.inf), (name, found[name])
    return {"largest loss difference": max(each[0] for each in found.values()), "all": found}


def own_gpu(is_tiny: bool) -> Any:
    """A rank that is shown its own GPU only, as by Slurm, is local rank 3 and computes on device 0."""
    ranks = join(local_rank=3, launcher="srun")
    engine = engine_of(build_loss("mt5", dropout=0.1), ranks=ranks, machine__zero_stage=1)
    device = str(engine.wrapped.device)
    assert device == ("cuda:0" if ON_GPU else "cpu"), device
    return device


def engines(is_tiny: bool) -> Any:
    """Three steps of every ZeRO stage and precision against a plain loop in fp32 on the CPU, and the time-outs of all groups."""
    ranks, rows, sizes, found = join(), build_rows(), [6, 6, 4], {}
    wanted = {
        kind: plain_loop(
            build_model(kind, dropout=0.0), rows=rows, sizes=sizes, config=build_config(), steps=3, start=2
        )[0]
        for kind in ("m2m100", "mt5")
    }
    cases: list[tuple[str, int, str, dict[str, Any]]] = [("m2m100", stage, "fp32", {}) for stage in range(4)]
    cases += [(kind, stage, "bf16", {}) for kind in ("m2m100", "mt5") for stage in (1, 2, 3)]
    cases += [("m2m100", stage, "fp16", {}) for stage in (1, 2, 3)] if ON_GPU else []
    cases += [("m2m100", 2, "bf16", {"machine__offload_optimizer": True})]
    cases += [("m2m100", 3, "bf16", {"machine__offload_parameters": True})] if ON_GPU else []
    for kind, stage, precision, changes in cases:
        engine = engine_of(
            build_loss(kind, dropout=0.0), ranks=ranks, machine__zero_stage=stage, precision=precision, **changes
        )
        batch = build_batch(rows, sizes=sizes, rank=0, world_size=1)
        results = [engine.step(batch, step=step) for step in (1, 2, 3)]
        largest = max(
            apart(float(result.loss_sum) / batch.target_tokens, value)
            for result, value in zip(results, wanted[kind], strict=True)
        )
        name = f"{kind} ZeRO {stage} {precision} {' '.join(changes)}".strip()
        found[name] = largest
        # fp16 skips its first steps while it looks for a loss scale
        assert precision == "fp16" or largest < (1e-4 if precision == "fp32" else 2e-2), (name, largest)
    return found


def search(is_tiny: bool) -> Any:
    """Rows of which our hypotheses differ from generate(), by family, precision and beams: none in fp32."""
    found = {}
    for family in FAMILIES:
        for dtype in (torch.float32, torch.bfloat16):
            for num_beams in (1, 4):
                model = decoding_cases.build_model(family).to(DEVICE, dtype)
                config = GenerationConfig(
                    pad_token_id=model.config.pad_token_id, eos_token_id=model.config.eos_token_id,
                    decoder_start_token_id=model.config.decoder_start_token_id, max_new_tokens=24, num_beams=num_beams,
                )  # fmt: skip
                ids = torch.randint(3, 110, (12, 8), generator=torch.Generator().manual_seed(1)).to(DEVICE)
                mask = torch.ones_like(ids)
                mask[::2, 6:] = 0
                with evaluation_mode(model, loss_module=model):
                    ours = generate(model, source_ids=ids, source_mask=mask, encoded=None, generation=config)
                    stock = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
                texts = [
                    [
                        read_sequence(row, row=0, pad_id=model.config.pad_token_id, generation=config).token_ids
                        for row in rows.cpu().numpy()
                    ]
                    for rows in (ours, stock)
                ]
                found[f"{family} {str(dtype)[6:]} {num_beams}"] = sum(a != b for a, b in zip(*texts, strict=True))
    assert not any(number for name, number in found.items() if "float32" in name), found
    return {name: number for name, number in found.items() if number} or "all alike"


def syncs(is_tiny: bool) -> Any:
    """Where a step waits for the GPU, by file and line; nothing in dstrain but the reads of the step's end."""
    ranks, found = join(), {}
    for stage in (1, 2, 3):
        module = build_loss("m2m100", dropout=0.1)
        engine = engine_of(module, ranks=ranks, machine__zero_stage=stage, precision="bf16")
        for step, sizes in ((1, [8, 8]), (2, [8, 8]), (3, [4] * 4)):
            batch = build_batch(build_rows(), sizes=sizes, rank=0, world_size=1)
            if ON_GPU:
                batch = replace(batch, micro_batches=tuple(part.pinned() for part in batch.micro_batches))
                torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                engine.step(batch, step=step)
            if ON_GPU:
                torch.cuda.set_sync_debug_mode("default")
            places = Counter(f"{w.filename}:{w.lineno}" for w in seen if "synchroniz" in str(w.message).lower())
            found[f"ZeRO {stage}, {len(sizes)} micro-batches, step {step}"] = dict(places)
    return found


def saves(is_tiny: bool) -> Any:
    """Seconds that training stands still for a save; the file holds what the snapshot saw, while the next step runs."""
    from safetensors.torch import load_file

    from dstrain.checkpoint.saver import RunIdentity, Saver
    from dstrain.checkpoint.state import RunState
    from dstrain.engine.shards import owned_shards

    ranks, seconds = join(), []
    engine = engine_of(build_loss("m2m100", dropout=0.1), ranks=ranks, machine__zero_stage=2, precision="bf16")
    batch = build_batch(build_rows(), sizes=[8, 8], rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as folder:
        saver = Saver(
            Path(folder), engine=engine, identity=RunIdentity("", {}, {}), ranks=ranks.beside(), check_lease=lambda: None,
            sync_records=lambda: None, prune=lambda: None, on_stage=lambda phase: None,
        )  # fmt: skip
        for step in (1, 2, 3):
            engine.step(batch, step=step)
            before = {
                f"master/{piece.name}@{piece.start}": piece.master.cpu().clone()
                for piece in owned_shards(engine.wrapped, moments=engine.moments)
            }
            started = time.perf_counter()
            saver.save(RunState(step=step, epoch=0, step_in_epoch=step, cut={}, data={}), scores=None)
            seconds.append(round(time.perf_counter() - started, 4))
            engine.step(batch, step=step)
            (outcome,) = saver.finish()
            assert outcome.directory is not None, outcome.problem
            written = load_file(outcome.directory / "weights-00000.safetensors")
            assert all(torch.equal(written[name], master) for name, master in before.items()), step
    return seconds


def export(is_tiny: bool) -> Any:
    """Reloaded models generate what live ones do, whose weights are views into DeepSpeed's buffer."""
    from dstrain.models import save

    ranks = join()
    for seed in range(4 if is_tiny else 12):
        module = Seq2SeqLoss(decoding_cases.build_model(("m2m100", "mt5")[seed % 2], seed=seed))
        engine = engine_of(module, ranks=ranks, machine__zero_stage=1 + seed % 3, precision="bf16")
        no_tokenizer = SimpleNamespace(from_pretrained=lambda folder: None)
        with tempfile.TemporaryDirectory() as folder, engine.gathered() as model:
            model.generation_config.max_new_tokens, model.generation_config.num_beams = 30, 4
            model.save_pretrained(folder)
            with patch.object(save, "AutoTokenizer", no_tokenizer):
                tokenizer: Any = SimpleNamespace(pad_token_id=1)
                save.check_export(Path(folder), model=model, sources=[list(range(5, 20))] * 8, tokenizer=tokenizer)
    return "none differ"


def autotune(is_tiny: bool) -> Any:
    """A run under torchrun that measures its micro-batches and compiled layers, as users start it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", "launch/train.py"]
        keys = {
            "output_dir": f"{folder}/run", "machine.cache_dir": f"{folder}/cache", "machine.micro_batch_tokens": "null",
            "machine.compile": "null", "machine.zero_stage": "1", "training.max_steps": "4", "logging.tensorboard": "false",
            "precision": "bf16",
        }  # fmt: skip
        overrides = [f"{key}={value}" for key, value in keys.items()]
        done = subprocess.run([*command, "--config", "debug", *overrides], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    return [line for line in done.stderr.splitlines() if "tokens" in line or "compiled" in line][:4]


def speed(name: str, *, is_tiny: bool) -> Any:
    """Milliseconds of a step, of the host alone, share of the peak and memory, by ZeRO stage, compiling and rows of 32 tokens."""
    ranks, found = join(), {}
    shapes = ((4, 1), (4, 2)) if is_tiny else ((16, 1), (16, 2), (128, 1), (512, 1))
    warm, counted = (1, 2) if is_tiny else (3, 5)

    def wait() -> float:
        if ON_GPU:
            torch.cuda.synchronize()
        return time.perf_counter()

    for stage, compiled in ((1, False), (2, False), (1, True)):
        model = build_published(name, is_tiny=is_tiny)
        if compiled:
            compile_layers(model)
        precision = "bf16" if ON_GPU else "fp32"
        engine = engine_of(Seq2SeqLoss(model), ranks=ranks, machine__zero_stage=stage, precision=precision)
        for rows, parts in shapes:
            batch = _rows_of_32(rows, parts=parts)
            times = []
            for step in range(1, 1 + warm + counted):
                began = wait()
                engine.step(batch, step=step)
                host = time.perf_counter() - began
                times.append((wait() - began, host))
            seconds, host = sorted(times[warm:])[counted // 2]
            arithmetic = 6 * rows * 32 * sum(MULTIPLY_ADDS[name])
            found[f"ZeRO {stage}{' compiled' * compiled}, {rows} rows in {parts}"] = {
                "ms": round(1e3 * seconds, 1), "host_ms": round(1e3 * host, 1), "share": round(arithmetic / seconds / PEAK, 3),
                "gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if ON_GPU else None,
            }  # fmt: skip
        del engine, model
        if ON_GPU:
            torch.cuda.empty_cache()
    return found


def _rows_of_32(num_rows: int, *, parts: int) -> StepBatch:
    sides = [np.full(32, 9, np.int32)] * (num_rows // parts), [np.full(32, 11, np.int32)] * (num_rows // parts)
    rows = np.arange(num_rows // parts)
    pieces = [collate(*sides, pad_id=1, decoder_start_id=2, index=index, rows=rows) for index in range(parts)]
    plan = StepPlan(Position(0, 0), Position(0, 1), np.arange(num_rows), (), num_rows * 32)
    return StepBatch(plan, tuple(each.pinned() if ON_GPU else each for each in pieces), num_rows * 32, 0, 0, 0)


def decode_speed(is_tiny: bool) -> Any:
    """Milliseconds of a generated token by rows and beams: from where on is the host no longer the limit?"""
    found, num_tokens = {}, 6 if is_tiny else 40
    shapes = ((4, 1), (4, 5)) if is_tiny else ((16, 1), (128, 1), (1024, 1), (16, 5), (128, 5), (400, 5))
    for name in ("m2m100", "mt5"):
        model = build_published(name, is_tiny=is_tiny).to(DEVICE, torch.bfloat16).eval()
        for rows, num_beams in shapes:
            source = torch.full((rows, 32), 9, device=DEVICE)
            rules = Rules(
                start_id=2, forced_first_id=None, end_ids=(3,), forbidden_ids=(), pad_id=1, max_new_tokens=num_tokens,
                num_beams=num_beams, length_penalty=1.0,
            )  # fmt: skip
            with torch.no_grad():
                encoded = model.get_encoder()(input_ids=source, attention_mask=source.sign()).last_hidden_state
                for _ in range(2):  # the second counts
                    with shared_attention(model):
                        began = time.perf_counter()
                        decoder = Decoder(model, encoded=encoded, source_mask=source.sign())
                        find = greedy_search if num_beams == 1 else beam_search
                        find(decoder, rules=rules, num_rows=rows, device=DEVICE).cpu()
                        seconds = time.perf_counter() - began
            found[f"{name}, {rows} rows, {num_beams} beams"] = round(1e3 * seconds / num_tokens, 2)
    return found


@dataclass(frozen=True)
class Check:
    """A check and the seconds that it may take."""

    run: Callable[[bool], Any]
    limit_seconds: float = 60.0


CHECKS = {
    "versions": Check(versions),
    "loss": Check(loss),
    "own_gpu": Check(own_gpu),
    "engines": Check(engines, 120.0),
    "search": Check(search),
    "syncs": Check(syncs),
    "saves": Check(saves),
    "export": Check(export),
    "autotune": Check(autotune, 120.0),
    "speed_m2m100": Check(lambda is_tiny: speed("m2m100", is_tiny=is_tiny), 100.0),
    "speed_mt5": Check(lambda is_tiny: speed("mt5", is_tiny=is_tiny), 80.0),
    "decode_speed": Check(decode_speed, 80.0),
}
