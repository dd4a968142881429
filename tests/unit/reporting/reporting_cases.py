"""Records that mirror the runs of the two published cards, and what those cards state."""

from typing import Any

from dstrain.config.schema import RunConfig
from dstrain.run_folder.record import INFO, RunInfo, RunRecord, build_record
from dstrain.run_folder.rows import EvalRow, EventRow, Row, TrainRow

SECTIONS = (
    "Model description",
    "Intended uses & limitations",
    "Training and evaluation data",
    "Training procedure",
    "Training hyperparameters",
    "Training results",
    "Framework versions",
)
FRONT_MATTER = ("tags", "metrics", "model-index")

TRANSLATION_HYPERPARAMETERS = {
    "learning_rate": "0.0003",
    "eval_batch_size": "16",
    "seed": "42",
    "optimizer": "Adam with betas=(0.9,0.999) and epsilon=1e-08",
    "lr_scheduler_type": "linear",
    "num_epochs": "6",
}
TRANSLATION_COLUMNS = ("Training Loss", "Epoch", "Step", "Validation Loss", "Bleu", "Gen Len")
TRANSLATION_RESULTS = ("Loss", "Bleu", "Gen Len")

PARSING_HYPERPARAMETERS = {
    "learning_rate": "0.001",
    "train_batch_size": "16",
    "eval_batch_size": "16",
    "seed": "42",
    "gradient_accumulation_steps": "32",
    "total_train_batch_size": "512",
    "optimizer": "Adam with betas=(0.9,0.999) and epsilon=1e-08",
    "lr_scheduler_type": "linear",
    "training_steps": "3000",
}
PARSING_COLUMNS = ("Training Loss", "Epoch", "Step", "Validation Loss", "Exact Match")
PARSING_RESULTS = ("Loss", "Exact Match")

VERSIONS = {
    "dstrain": "0.1.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "deepspeed": "0.19.8",
    "datasets": "5.2.0",
    "tokenizers": "0.23.0",
    "python": "3.11.2",
}
BLEU_SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
CHRF_SIGNATURE = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"


def translation_config(**changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "name": "ko-en-m2m",
        "precision": "fp16",
        "model": {"name": "facebook/m2m100_418M"},
        "task": {"kind": "translation", "source_language": "ko", "target_language": "en"},
        "data": {"train": [{"path": "data/tatoeba/train.tsv"}], "eval": [{"path": "data/tatoeba/eval.tsv"}]},
        "training": {"batch_size": 16, "epochs": 6.0, "learning_rate": 3e-4, "optimizer": "adam"},
        "evaluation": {"every_steps": 5000, "batch_size": 16},
    }
    return RunConfig.model_validate(values | changes)


def parsing_config(**changes: Any) -> RunConfig:
    source = {"hub": "mtop", "subset": "en", "source_column": "utterance", "target_column": "logical_form"}
    values: dict[str, Any] = {
        "name": "t5-small-pointer-mtop",
        "precision": "bf16",
        "model": {"name": "google/mt5-small", "revision": "abc1234"},
        "task": {"kind": "parsing", "source_language": "en", "source_prefix": "parse: "},
        "data": {"train": [source], "eval": [source | {"split": "validation"}]},
        "training": {"batch_size": 512, "max_steps": 3000, "learning_rate": 1e-3, "optimizer": "adam"},
        "evaluation": {"every_steps": 200, "batch_size": 16},
        "machine": {"micro_batch_size": 16},
    }
    return RunConfig.model_validate(values | changes)


def run_info(**changes: Any) -> RunInfo:
    report = {
        "rows_read": 110,
        "rows": 100,
        "skipped": {"empty": 7, "too_long": 3},
        "truncated": 2,
        "fingerprint": "5f3a9c",
    }
    values: dict[str, Any] = {
        "versions": VERSIONS,
        "command": "deepspeed --num_gpus 1 launch/train.py --config configs/seed.yaml",
        "world_size": 1,
        "device": "cpu",
        "launcher": "deepspeed",
        "data": {"train": report, "eval": report | {"skipped": {}, "truncated": 0, "fingerprint": "e7710b"}},
        "model": {
            "base": "facebook/m2m100_418M",
            "architecture": "M2M100ForConditionalGeneration",
            "num_parameters": 483905536,
        },
        "total_steps": 95000,
        "steps_per_epoch": 16544,
        "micro_batches": {"min": 1, "max": 4, "mean": 2.1, "largest_rows": 16},
    }
    return INFO.validate_python(values | changes)


def train_row(step: int, **changes: Any) -> TrainRow:
    values: dict[str, Any] = {
        "step": step,
        "epoch": step / 16544,
        "loss": 0.6 - step / 1e6,
        "learning_rate": 3e-4,
        "grad_norm": 1.2,
        "loss_scale": 65536.0,
        "skipped_steps": 4,
        "source_tokens": 900,
        "target_tokens": 950,
        "padded_source_tokens": 1000,
        "padded_target_tokens": 1000,
        "target_tokens_per_second": 1234.5,
        "peak_memory_mb": 731.0,
        "elapsed_seconds": 3723.4,
    }
    return TrainRow(**values | changes)


def translation_row(step: int, *, bleu: float, loss: float, **changes: Any) -> EvalRow:
    values: dict[str, Any] = {
        "step": step,
        "epoch": step / 16544,
        "train_loss": 0.502,
        "scores": {"loss": loss, "bleu": bleu, "chrf": 2 * bleu, "gen_len": 10.9556, "hit_cap_rate": 0.0},
        "signatures": {"bleu": BLEU_SIGNATURE, "chrf": CHRF_SIGNATURE},
        "generation": {"num_beams": 1, "length_penalty": 1.0, "max_new_tokens": 86, "do_sample": False},
        "num_rows": 1000,
        "hypotheses": f"hypotheses/step-{step:08d}",
    }
    return EvalRow(**values | changes)


def parsing_row(step: int, *, exact_match: float, loss: float, **changes: Any) -> EvalRow:
    scores = {"exact_match_tokens": exact_match, "exact_match_parse": exact_match, "valid_brackets": 0.99}
    values: dict[str, Any] = {
        "step": step,
        "epoch": step / 30,
        "train_loss": 0.0724,
        "scores": {"loss": loss, "exact_match": exact_match, **scores, "gen_len": 21.5, "hit_cap_rate": 0.25},
        "generation": {"num_beams": 1, "max_new_tokens": 20},
        "num_rows": 2235,
        "hypotheses": f"hypotheses/step-{step:08d}",
    }
    return EvalRow(**values | changes)


def translation_record(config: RunConfig | None = None, *, info: RunInfo | None = None) -> RunRecord:
    curve = [(5000, 12.7212, 0.7640), (50000, 16.9704, 0.5834), (95000, 25.8137, 0.4282)]
    rows: list[Row] = [EventRow("start", 0, "2026-11-23T10:00:00Z")]
    rows += [train_row(step) for step in range(5000, 95001, 5000)]
    rows += [translation_row(step, bleu=bleu, loss=loss) for step, bleu, loss in curve]
    rows.append(EventRow("finish", 95000, "2026-11-23T20:00:00Z"))
    return build_record(
        config or translation_config(), info=info or run_info(), rows=rows, exports={"best": 95000, "final": 95000}
    )


def parsing_record(config: RunConfig | None = None, *, info: RunInfo | None = None) -> RunRecord:
    curve = [(200, 0.0134, 0.5966), (1200, 0.5365, 0.1202), (2400, 0.5539, 0.1462), (3000, 0.5512, 0.1505)]
    rows: list[Row] = [EventRow("start", 0, "2026-11-23T10:00:00Z")]
    rows += [train_row(step, loss=2.0 / step, loss_scale=None, skipped_steps=0) for step in range(200, 3001, 200)]
    rows += [parsing_row(step, exact_match=score, loss=loss) for step, score, loss in curve]
    rows.append(EventRow("finish", 3000, "2026-11-23T20:00:00Z"))
    model = {"base": "google/mt5-small", "architecture": "MT5ForConditionalGeneration", "num_parameters": 300176768}
    given = info or run_info(model=model, total_steps=3000, steps_per_epoch=30)
    return build_record(config or parsing_config(), info=given, rows=rows, exports={"best": 2400, "final": 3000})
