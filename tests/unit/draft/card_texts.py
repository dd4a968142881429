"""Model cards as trainers write them: the two whose recipes are shipped, and one of any other values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

CARDS = Path(__file__).parent / "cards"
KO_EN = CARDS / "ko-en-m2m.md"
POINTER = CARDS / "t5-small-pointer-mtop.md"

HYPERPARAMETERS = {
    "learning_rate": "5e-05",
    "train_batch_size": "8",
    "eval_batch_size": "8",
    "seed": "42",
    "optimizer": "Adam with betas=(0.9,0.999) and epsilon=1e-08",
    "lr_scheduler_type": "linear",
    "num_epochs": "3.0",
}


def card_text(
    *,
    title: str = "my-model",
    base: str | None = "google/mt5-small",
    front: str = "tags:\n- generated_from_trainer",
    results: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    version: str = "4.44.2",
    **hyperparameters: str | None,
) -> str:
    """The card of a training; a hyperparameter of None is left out."""
    given = {key: value for key, value in (HYPERPARAMETERS | hyperparameters).items() if value is not None}
    origin = f"a fine-tuned version of [{base}](https://huggingface.co/{base})" if base else "trained from scratch"
    lines = ["---", front, "---", "", f"# {title}", "", f"This model is {origin} on an unknown dataset."]
    if results:
        lines += [
            "It achieves the following results on the evaluation set:",
            *(f"- {k}: {v}" for k, v in results.items()),
        ]
    lines += ["", "## Training procedure", "", "### Training hyperparameters", ""]
    lines += ["The following hyperparameters were used during training:", *(f"- {k}: {v}" for k, v in given.items())]
    lines += ["", "### Training results", ""]
    if columns:
        lines += [
            f"| {' | '.join(columns)} |",
            f"|{':---:|' * len(columns)}",
            *(f"| {' | '.join(row)} |" for row in rows),
        ]
    return "\n".join(
        [*lines, "", "### Framework versions", "", f"- Transformers {version}", "- Pytorch 2.4.1+cu121", ""]
    )
