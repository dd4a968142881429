"""How a run was trained, under the names of Hugging Face's cards: hyperparameters, machine, attempts, versions.

Pure functions of a RunRecord. A value that depends on how steps are split into micro-batches is one number only if it is
exact; otherwise it is a range.
"""

import json
from datetime import timedelta
from statistics import median

from dstrain.config.schema import RunConfig
from dstrain.reporting.command import command_overrides, command_to_copy
from dstrain.reporting.markdown import NOT_RECORDED, Markdown, code, count, join, number, percent, phrase
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.outcome import RunOutcome, summarize
from dstrain.run_folder.record import ModelInfo, RunRecord
from dstrain.run_folder.rows import EventRow

Line = tuple[str, object]

PRECISIONS = {"fp32": "none (fp32)", "bf16": "bf16 (DeepSpeed)", "fp16": "fp16 (DeepSpeed, dynamic loss scaling)"}
FRAMEWORKS = {
    "transformers": "Transformers",
    "torch": "Pytorch",
    "datasets": "Datasets",
    "tokenizers": "Tokenizers",
    "deepspeed": "DeepSpeed",
    "dstrain": "dstrain",
    "python": "Python",
}


def describe_procedure(record: RunRecord) -> list[str]:
    """How the loss is normalised and how the data are ordered, in sentences."""
    smoothing = record.config.training.label_smoothing
    smoothed = f" with label smoothing {smoothing:g} (the validation loss has none)" if smoothing else ""
    return [
        f"The loss of an optimizer step is the sum of the token cross-entropies{smoothed}, divided by the number of"
        " target tokens in the step. Both are taken over all ranks and micro-batches, so loss and gradient do not depend"
        " on how the step is split.",
        "The order of the rows is a function of the data fingerprint, the seed and the epoch. The last step of an epoch"
        " contains the remaining rows.",
    ]


def describe_hyperparameters(record: RunRecord) -> list[Line]:
    """The hyperparameters of the recipe, under the names used by Hugging Face's cards."""
    config = record.config
    training = config.training
    pinned = pinned_accumulation(record)
    lines: list[Line] = [
        ("learning_rate", repr(training.learning_rate)),
        ("train_batch_size", _micro_batch_size(record)),
        ("eval_batch_size", _evaluation_batch_size(config)),
        ("seed", str(config.seed)),
        ("gradient_accumulation_steps", _accumulation(record) if pinned is None else str(pinned)),
        ("total_train_batch_size", _total_batch_size(config)),
        ("optimizer", _optimizer(config)),
        ("lr_scheduler_type", training.schedule),
    ]
    if training.warmup_steps:
        lines.append(("lr_scheduler_warmup_steps", str(training.warmup_steps)))
    if training.epochs is not None:
        lines.append(("num_epochs", f"{training.epochs:g}"))
    else:
        lines.append(("training_steps", str(training.max_steps)))
    lines.append(("mixed_precision_training", _precision(record)))
    lines.append(("max_grad_norm", f"{training.max_grad_norm:g}" if training.max_grad_norm else "none (no clipping)"))
    lines.append(("label_smoothing_factor", f"{training.label_smoothing:g}"))
    if training.early_stopping:
        stopping = training.early_stopping
        beyond = ", beyond chance" if stopping.significant else ""
        shown = f"patience {stopping.patience} evaluations, min_delta {stopping.min_delta:g}{beyond}"
        lines.append(("early_stopping", shown))
    return lines


def pinned_accumulation(record: RunRecord) -> int | None:
    """Micro-batches per rank and full step if all micro-batches have the same size; None if sizes vary."""
    machine, training, world_size = record.config.machine, record.config.training, record.info.world_size
    size = machine.micro_batch_size
    if (
        size is None
        or world_size is None
        or training.batch_unit != "sequences"
        or training.batch_size % (size * world_size)
    ):
        return None
    micro_batches = training.batch_size // size
    return micro_batches // world_size if micro_batches >= machine.min_micro_batches else None


def _micro_batch_size(record: RunRecord) -> str:
    machine, largest = record.config.machine, record.info.micro_batches.largest_rows
    if pinned_accumulation(record) is not None:
        return str(machine.micro_batch_size)
    if machine.micro_batch_size is not None:
        return f"at most {machine.micro_batch_size} sequences per micro-batch (pinned; the step does not divide evenly)"
    cut = f"varies: steps are split under a budget of {machine.micro_batch_tokens} tokens, padding included"
    if largest is None:
        return f"number of sequences per micro-batch not recorded ({cut})"
    return f"at most {largest} sequences per micro-batch{_sample(record)} ({cut})"


def _sample(record: RunRecord) -> str:
    """The steps on which micro-batches were counted; empty if all steps were."""
    counted, total = record.info.micro_batches.num_steps, record.info.total_steps
    return f" in the first {count(counted)} steps" if counted is not None and counted != total else ""


def _accumulation(record: RunRecord) -> str:
    cut, world_size = record.info.micro_batches, record.info.world_size
    if cut.min is None or cut.max is None:
        return "varies; number of micro-batches per step not recorded"
    spread = str(cut.min) if cut.min == cut.max else f"{cut.min} to {cut.max}"
    mean = "" if cut.mean is None or cut.min == cut.max else f" (mean {number(cut.mean, decimals=2)})"
    return f"{spread} micro-batches per step over all ranks{_sample(record)}{mean}, distributed to {_ranks(world_size)}"


def _ranks(world_size: int | None) -> str:
    if world_size is None:
        return "an unrecorded number of ranks"
    return "1 rank" if world_size == 1 else f"{world_size} ranks"


def _total_batch_size(config: RunConfig) -> str:
    size = config.training.batch_size
    if config.training.batch_unit == "sequences":
        return str(size)
    return f"at most {size} target tokens (the number of sequences varies)"


def _optimizer(config: RunConfig) -> str:
    training = config.training
    first, second = training.betas
    if training.optimizer == "sgd":
        text = f"SGD with momentum={first:g}"
    else:
        name = "Adam" if training.optimizer == "adam" else "AdamW"
        text = f"{name} with betas=({first:g},{second:g}) and epsilon={training.epsilon!r}"
    return f"{text} and weight_decay={training.weight_decay:g}" if training.weight_decay else text


def _precision(record: RunRecord) -> Markdown:
    given = [code(override) for override in command_overrides(record.info.command) if override.startswith("precision=")]
    precision = PRECISIONS[record.config.precision]
    if not given:
        return phrase("{}", precision)
    return phrase("{}; **set on the command line** ({}) instead of the recipe's value", precision, given[-1])


def describe_machine(record: RunRecord) -> list[Line]:
    """The machine half of the recipe, the devices, and how well they were used."""
    machine, info = record.config.machine, record.info
    pinned = machine.micro_batch_size
    budget = f"pinned to {pinned} sequences"
    if pinned is None:
        budget = f"{machine.micro_batch_tokens} tokens, padding included; split further where this saves more than "
        budget += f"{machine.micro_batch_overhead} tokens of padding"
    if machine.min_micro_batches > 1:
        budget += f"; at least {machine.min_micro_batches} micro-batches per step"
    lines: list[Line] = [
        ("Device", info.device or NOT_RECORDED),
        ("Ranks (world size)", NOT_RECORDED if info.world_size is None else str(info.world_size)),
        ("Launcher", info.launcher or NOT_RECORDED),
        ("ZeRO stage", _zero_stage(record.config)),
        ("Micro-batch budget", budget),
        ("Micro-batches", _accumulation(record)),
        ("Compiled layers", _on(bool(machine.compile))),
        *_compact_embedding(info.model),
        ("Activation checkpointing", _on(machine.activation_checkpointing)),
        ("Offload of optimizer state", _on(machine.offload_optimizer)),
        ("Offload of weights", _on(machine.offload_parameters)),
    ]
    if machine.deepspeed:
        lines.append(("DeepSpeed keys passed through", code(json.dumps(machine.deepspeed))))
    return [*lines, *_describe_steps(record), *_describe_use(record)]


def _compact_embedding(model: ModelInfo) -> list[Line]:
    rows = model.trained_embedding_rows
    if rows is None:
        return []
    return [
        ("Compact embedding", f"{count(rows)} rows, those that training reads; the others keep their values either way")
    ]


def _on(value: bool) -> str:
    return "on" if value else "off"


def _zero_stage(config: RunConfig) -> str:
    stage = config.machine.zero_stage
    if stage == 0 and config.precision != "fp32":
        return f"1 (0 in the recipe; stage 0 with {config.precision} would hide skipped steps)"
    return NOT_RECORDED if stage is None else str(stage)


def _describe_steps(record: RunRecord) -> list[Line]:
    total, per_epoch = record.info.total_steps, record.info.steps_per_epoch
    steps = f"{count(record.last_step)} of {count(total)} optimizer steps done, {count(per_epoch)} per epoch"
    return [("Steps", steps), ("Skipped steps and loss scale", describe_scaling(record))]


def describe_scaling(record: RunRecord) -> str:
    """How many steps fp16 skipped, and the first, last and lowest loss scale."""
    if not record.train_rows:
        return NOT_RECORDED
    last_row = record.train_rows[-1]
    skipped = f"{count(last_row.skipped_steps)} of {count(last_row.step)} steps skipped"
    if last_row.skipped_steps:
        longest = max(row.halvings_in_a_row for row in record.train_rows)
        skipped += f" ({percent(last_row.skipped_steps / max(1, last_row.step))}, at most {longest} in a row)"
    scales = [row.loss_scale for row in record.train_rows if row.loss_scale is not None]
    if not scales:
        return f"{skipped}; no loss scaling"
    first, last, lowest = (f"{scale:,.0f}" for scale in (scales[0], scales[-1], min(scales)))
    return f"{skipped}; loss scale {first} at the first logged step, {last} at the last, never below {lowest}"


def _describe_use(record: RunRecord) -> list[Line]:
    rows = record.train_rows
    lines: list[Line] = []
    speeds = [row.target_tokens_per_second for row in rows if row.target_tokens_per_second is not None]
    if speeds:
        lines.append(
            (
                "Speed",
                f"{median(speeds):,.0f} target tokens per second, padding excluded (median of logged intervals)",
            )
        )
    padded = [sum(row.padded_source_tokens for row in rows), sum(row.padded_target_tokens for row in rows)]
    if all(padded):
        real = [sum(row.source_tokens for row in rows) / padded[0], sum(row.target_tokens for row in rows) / padded[1]]
        lines.append(
            ("Non-padding tokens", f"{percent(real[0])} of source positions, {percent(real[1])} of target positions")
        )
    memory = [row.peak_memory_mb for row in rows if row.peak_memory_mb is not None]
    if memory:
        lines.append(("Peak memory", f"{max(memory):,.0f} MB (highest logged value)"))
    if rows and rows[-1].elapsed_seconds is not None:
        trained = timedelta(seconds=round(rows[-1].elapsed_seconds))
        lines.append(("Training time", f"{trained} (hours:minutes:seconds)"))
    return lines


def describe_attempts(record: RunRecord) -> list[Markdown]:
    """How often the run resumed, then every start, resume, stop and finish in order, each with time and message.

    An attempt that neither stopped nor finished in order has a line about how it ended instead.
    """
    resumes = sum(event.event == "resume" for event in record.events)
    lines = [phrase("Resumed: {}", "once" if resumes == 1 else f"{resumes} times" if resumes else "never")]
    events = [(event.lease, _describe_event(event)) for event in record.events if event.event != "unsaved"]
    in_order = {event.lease for event in record.events if event.event in ("stop", "finish")}
    ends = [(number, _describe_end(end)) for number, end in record.ends.items() if number not in in_order]
    return [*lines, *(line for _, line in sorted([*events, *ends], key=lambda numbered: numbered[0]))]


def _describe_event(event: EventRow) -> Markdown:
    detail = join([part for part in (event.time, event.message) if part], separator=": ")
    changes = join(event.changes, separator="; ")
    return phrase(
        "{} at step {}{}{}",
        event.event,
        count(event.step),
        Markdown(f" ({detail})" if detail else ""),
        Markdown(f": {changes}" if changes else ""),
    )


def _describe_end(end: RunOutcome) -> Markdown:
    detail = join([part for part in (end.time, summarize(end.message)) if part], separator=": ")
    what = end.outcome if end.step is None else f"{end.outcome} at step {count(end.step)}"
    return phrase("{}{}", what, Markdown(f" ({detail})" if detail else ""))


def describe_reproduction(record: RunRecord) -> Markdown:
    """How to run this again: the command, the recipe file and the overrides."""
    overrides = command_overrides(record.info.command)
    listed = join([code(override) for override in overrides], separator=", ")
    given = phrase(" Overrides on the command line: {}.", listed) if overrides else Markdown()
    command = phrase(
        "The command above is that of the last attempt.{} Paths are relative to where it was typed, and `~` is the home of "
        "the user who typed it. This card names folders and files: read it before you publish it.",
        _how_to_repeat(record),
    )
    if not record.info.command:
        command = Markdown("The command was not recorded.")
    elif command_to_copy(record.info.command) is None:
        command = phrase(
            "The command in {} is left out here: it is not one that dstrain records.", code(str(NAMES.info))
        )
    return phrase(
        "{}{} The resolved recipe, overrides included, is {} in {} folder.{}",
        command,
        _describe_changes(record),
        code(str(NAMES.config)),
        "this" if record.subject is None else "the run's",
        given,
    )


def _how_to_repeat(record: RunRecord) -> Markdown:
    """That the run's own folder must not be named again. Nothing on the card of a model, which is read far from that folder."""
    if record.subject is not None:
        return Markdown()
    if record.config.output_dir is None:
        how = phrase("add {}", code("output_dir=…"))
    else:
        how = phrase("give {} another value", code("output_dir"))
    return phrase(
        " To repeat the run, {}: in its own folder a run is resumed, and nothing happens if it is finished.", how
    )


def _describe_changes(record: RunRecord) -> Markdown:
    """That earlier steps were trained with other settings than those of the last attempt, and with which."""
    changed = [
        phrase("At step {}: {}.", count(event.step), join(event.changes, separator="; "))
        for event in record.events
        if event.changes
    ]
    if not changed:
        return Markdown()
    template = " **Earlier steps had other settings, so that no one command repeats this run.** {}"
    return phrase(template, join(changed, separator=" "))


def describe_versions(record: RunRecord) -> list[Line]:
    """Framework versions under the names used by Hugging Face's cards, then any others that were recorded."""
    versions = record.info.versions
    named: list[Line] = [(name, versions.get(key) or NOT_RECORDED) for key, name in FRAMEWORKS.items()]
    return [*named, *((key, value or NOT_RECORDED) for key, value in versions.items() if key not in FRAMEWORKS)]


def _evaluation_batch_size(config: RunConfig) -> str:
    size = config.evaluation.batch_size
    if size is not None:
        return str(size)
    tokens = config.machine.evaluation_tokens
    return f"as many as fit into {tokens:,} tokens" if tokens else "as many as fit into machine.evaluation_tokens"
