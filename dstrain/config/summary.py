"""A configuration in ten lines of text. Pure."""

from dstrain.config.arguments import shell_command
from dstrain.config.load import recipe_hash
from dstrain.config.schema import RunConfig


def summary(config: RunConfig) -> str:
    """One aligned line per topic: model, task, length, step, machine and so on."""
    training, model = config.training, config.model
    scratch = model.scratch
    length = f"{training.max_steps} steps" if training.max_steps else f"{training.epochs:g} epochs"
    unit = training.batch_unit.replace("_", " ")
    rows = {
        "name": config.name,
        "model": f"scratch: {scratch.architecture}" if scratch else f"{model.from_run or model.name}",
        "task": config.task.kind,
        "length": length,
        "step": f"{training.batch_size} {unit} over all ranks",
        "precision": config.precision,
        "best by": config.best_metric,
        **({"own code": ", ".join(item for _, item in config.own_code)} if config.own_code else {}),
        **({"programs": _programs(config)} if config.evaluation.external else {}),
        **({"trackers": _trackers(config)} if config.logging.trackers else {}),
        "machine": f"{_zero_stage(config)}, micro-batches of {_micro_batch(config)}{_compiled(config)}",
        "run folder": config.run_dir,
        "recipe": recipe_hash(config)[:16],
    }
    width = max(map(len, rows))
    return "\n".join(f"  {topic:<{width}}  {value}" for topic, value in rows.items())


def _programs(config: RunConfig) -> str:
    programs = (config.evaluation.external or {}).items()
    return "; ".join(f"{name}: {shell_command(external.command)}" for name, external in programs)


def _trackers(config: RunConfig) -> str:
    """Whom the rows and the recipe are sent to; the server is named where the recipe names it."""
    trackers = config.logging.trackers.items()
    return "; ".join(name if tracker.uri is None else f"{name}: {tracker.uri}" for name, tracker in trackers)


def _zero_stage(config: RunConfig) -> str:
    stage = config.machine.zero_stage
    return "the ZeRO stage that fits" if stage is None else f"ZeRO {stage}"


def _micro_batch(config: RunConfig) -> str:
    machine = config.machine
    if machine.micro_batch_size is not None:
        return f"{machine.micro_batch_size} sequences"
    if machine.micro_batch_tokens is None:
        return "as many tokens as fit into the GPU's memory"
    return f"at most {machine.micro_batch_tokens} tokens"


def _compiled(config: RunConfig) -> str:
    return {True: ", compiled layers", False: "", None: ", layers compiled if that is faster"}[config.machine.compile]
