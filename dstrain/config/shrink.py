"""A recipe shrunk for debugging: a few rows, and everything happens within the first steps. Pure."""

from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError

TRAIN_ROWS = 64
EVAL_ROWS = 8
DEBUG_STEPS = 20
OVERFIT_STEPS = 300


def shrink_config(config: RunConfig, *, overfit: int | None, world_size: int) -> RunConfig:
    """The recipe for `--debug`, or with `overfit` for memorising that many training rows, without dropout.

    The run goes to a folder of its own, so that it never reads the checkpoints of the real run.

    Raises:
        UserError: several ranks.
    """
    if world_size > 1:
        raise UserError(f"--debug runs one process, found {world_size}: start it with python, without a launcher")
    values = config.model_dump()
    suffix = f"-overfit{overfit}" if overfit else "-debug"
    output_dir = None if config.output_dir is None else config.output_dir.rstrip("/") + suffix
    values |= {"name": config.name + suffix, "output_dir": output_dir}
    steps = OVERFIT_STEPS if overfit else DEBUG_STEPS
    train = _first_rows(values["data"]["train"], max_rows=overfit or TRAIN_ROWS)
    evaluated = train if overfit else _first_rows(values["data"]["eval"], max_rows=EVAL_ROWS)
    values["data"] |= {"train": train, "eval": evaluated}
    values["training"] |= {
        "epochs": None,
        "max_steps": steps,
        "warmup_steps": min(values["training"]["warmup_steps"], steps // 10),
        "early_stopping": None,
        "batch_unit": "sequences",
        "batch_size": overfit or min(16, TRAIN_ROWS),
    }
    values["evaluation"] |= {"every_steps": steps // 4, "every_epochs": None, "max_rows": None}
    # the set that chooses the best model may not be among the rows
    metric = config.evaluation.best_metric
    values["evaluation"]["best_metric"] = metric and metric.rpartition("/")[2]
    values["machine"] |= {"zero_stage": 0 if config.precision == "fp32" else 1, "offload_optimizer": False}
    values["machine"] |= {"offload_parameters": False}
    values["checkpoint"] |= {"every_steps": None}
    values["logging"] |= {"every_steps": max(1, steps // 20), "trackers": {}}
    if overfit:
        values["model"]["dropout"] = 0.0
        values["training"]["schedule"] = "constant"
        # the evaluation rows are those of training
        values["data"]["rules"] |= {"overlap": "keep"}
    return RunConfig.model_validate(values)


def _first_rows(sources: list[dict[str, Any]], *, max_rows: int) -> list[dict[str, Any]]:
    first = dict(sources[0])
    first |= {"max_rows": min(max_rows, first["max_rows"] or max_rows), "repeat": 1}
    return [first]
