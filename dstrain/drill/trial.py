"""A few steps of a recipe on this machine, undisturbed, to see how long they take. Runs the run's own code.

It leaves nothing behind but the token ids in the cache, which the run itself would make.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.drill.launch import interrupted_like_ctrl_c, launch_ranks
from dstrain.drill.scenarios import RankLaunch
from dstrain.errors import UserError
from dstrain.forecast.pace import WARM_UP_STEPS, Trial
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import RunRecord, load_record

MIN_STEPS = WARM_UP_STEPS + 2
MOST_EVALUATED_ROWS = 512
LAUNCH_MINUTES = 60.0
TAIL_LINES = 5


def run_trial(config: RunConfig, *, steps: int, num_ranks: int, environment: Mapping[str, str]) -> Trial:
    """Train the first `steps` steps of a recipe on this machine and evaluate once, in a temporary folder.

    Raises:
        UserError: the run failed; the message has the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="dstrain-plan-") as place, interrupted_like_ctrl_c():
        folder = Path(place)
        file, run_dir, log = folder / "recipe.yaml", folder / "run", folder / "log"
        write_file(file, dump_config(shorten(config, steps=steps, folder=run_dir)))
        began = time.monotonic()
        end = launch_ranks(
            RankLaunch(num_ranks),
            config=file,
            run_dir=run_dir,
            log=log,
            minutes=LAUNCH_MINUTES,
            environment=environment,
        )
        seconds = time.monotonic() - began
        if any(end.codes) or end.timed_out:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise UserError(
                f"--measure: the run of {steps} steps did not end well (exit codes {list(end.codes)}):\n{last}"
            )
        try:
            record = load_record(run_dir)
        except RunFolderError as error:
            raise UserError(f"--measure: {error}") from error
    return read_trial(record, seconds=seconds, num_ranks=num_ranks)


def shorten(config: RunConfig, *, steps: int, folder: Path) -> RunConfig:
    """The recipe with so many steps, one evaluation at their end, and a row for each step."""
    values = config.model_dump()
    values |= {"output_dir": str(folder)}
    values["training"] |= {"max_steps": steps, "epochs": None, "early_stopping": None}
    values["evaluation"] |= {"every_steps": None, "every_epochs": None, "external": None, "average_last": None}
    values["evaluation"]["max_rows"] = min(MOST_EVALUATED_ROWS, config.evaluation.max_rows or MOST_EVALUATED_ROWS)
    # the set that chooses the best model may not be among the rows
    values["evaluation"]["best_metric"] = config.best_metric.rpartition("/")[2]
    values["machine"]["evaluation_job"] = None
    values["checkpoint"] |= {"every_steps": None, "every_minutes": 0.0}
    values["logging"] |= {"every_steps": 1, "tensorboard": False, "trackers": {}}
    return RunConfig.model_validate(values)


def read_trial(record: RunRecord, *, seconds: float, num_ranks: int) -> Trial:
    """What a finished run of a few steps says, which took so many seconds from start to end.

    Raises:
        UserError: it has too few rows.
    """
    times, positions, before = list[float](), list[int](), 0.0
    for row in record.train_rows:
        if row.elapsed_seconds is None:
            continue
        times.append(row.elapsed_seconds - before)
        positions.append(row.padded_source_tokens + row.padded_target_tokens)
        before = row.elapsed_seconds
    final = record.final
    if len(times) < MIN_STEPS or final is None or not final.seconds or not final.num_rows:
        raise UserError(f"--measure: the run has {len(times)} steps with a time, and {MIN_STEPS} are needed")
    return Trial(
        tuple(times),
        tuple(positions),
        evaluation_seconds=final.seconds,
        evaluation_rows=final.num_rows,
        mean_length=final.scores.get("gen_len"),
        around_seconds=max(0.0, seconds - sum(times) - final.seconds),
        num_ranks=num_ranks,
    )
