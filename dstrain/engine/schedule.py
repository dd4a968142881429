"""The learning rate as a pure function of the step."""

import math

from dstrain.config.recipe import Training


def learning_rate_at(step: int, *, training: Training, total_steps: int) -> float:
    """Learning rate of optimizer step `step`, counted from 1.

    Warm-up rises linearly from 0 and reaches the peak after `warmup_steps` steps. Then linear and cosine fall to 0 one step
    after the last, as in transformers' schedules (whose scheduler steps after the optimizer); inverse_sqrt is that of
    Vaswani et al. 2017, section 5.3, scaled to the peak.
    """
    done = step - 1
    warmup = training.warmup_steps
    if done < warmup:
        return training.learning_rate * done / warmup
    return training.learning_rate * _decay(done, training=training, total_steps=total_steps)


def _decay(done: int, *, training: Training, total_steps: int) -> float:
    warmup = training.warmup_steps
    progress = (done - warmup) / max(1, total_steps - warmup)
    match training.schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1.0 - progress)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
        case "inverse_sqrt":
            return math.sqrt(max(1, warmup) / max(1, done))
