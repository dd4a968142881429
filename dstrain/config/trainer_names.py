"""What Seq2SeqTrainer, its example scripts and its model cards call the keys of a recipe. Pure data.

Read where somebody types such a name (`habits.py`) and where a card states one (`dstrain/draft`).
"""

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "adam_epsilon": "training.epsilon",
    "dropout": "model.dropout",
    "early_stopping_patience": "training.early_stopping.patience",
    "early_stopping_threshold": "training.early_stopping.min_delta",
    "epochs": "training.epochs",
    "eval_batch_size": "evaluation.batch_size",
    "eval_steps": "evaluation.every_steps",
    "generation_max_length": "evaluation.max_new_tokens",
    "generation_num_beams": "evaluation.num_beams",
    "label_smoothing": "training.label_smoothing",
    "label_smoothing_factor": "training.label_smoothing",
    "learning_rate": "training.learning_rate",
    "length_penalty": "evaluation.length_penalty",
    "logging_steps": "logging.every_steps",
    "lora_alpha": "model.adapter.alpha",
    "lora_dropout": "model.adapter.dropout",
    "lora_r": "model.adapter.rank",
    "lr": "training.learning_rate",
    "lr_scheduler_type": "training.schedule",
    "lr_scheduler_warmup_steps": "training.warmup_steps",
    "max_eval_samples": "evaluation.max_rows",
    "max_grad_norm": "training.max_grad_norm",
    "max_new_tokens": "evaluation.max_new_tokens",
    "max_source_length": "task.max_source_tokens",
    "max_steps": "training.max_steps",
    "max_target_length": "task.max_target_tokens",
    "max_train_samples": "data.train.0.max_rows",
    "metric_for_best_model": "evaluation.best_metric",
    "model": "model.name",
    "model_name": "model.name",
    "model_name_or_path": "model.name",
    "model_revision": "model.revision",
    "num_beams": "evaluation.num_beams",
    "num_epochs": "training.epochs",
    "num_train_epochs": "training.epochs",
    "optim": "training.optimizer",
    "output_dir": "output_dir",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "preprocessing_num_workers": "machine.data_processes",
    "run_name": "name",
    "save_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep_last",
    "seed": "seed",
    "source_lang": "task.source_language",
    "source_prefix": "task.source_prefix",
    "target_lang": "task.target_language",
    "total_train_batch_size": "training.batch_size",
    "training_steps": "training.max_steps",
    "val_max_target_length": "evaluation.max_new_tokens",
    "warmup_steps": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
}
"""A name there to the key here that takes the same value."""

BATCH_SIZES = ("per_device_train_batch_size", "train_batch_size", "batch_size")
"""Names of the sequences of one device before an update; ours counts those of a step over all ranks."""
ACCUMULATION = "gradient_accumulation_steps"

SWITCHES: Mapping[str, str] = {
    "bf16": "precision=bf16",
    "fp16": "precision=fp16",
    "gradient_checkpointing": "machine.activation_checkpointing=true",
    "torch_compile": "machine.compile=true",
    "use_cpu": "machine.device=cpu",
    "no_cuda": "machine.device=cpu",
}
"""A switch there to the override here."""

FILES: Mapping[str, str] = {
    "train_file": "data.train=[{{path: {}}}]",
    "validation_file": "data.eval=[{{path: {}}}]",
    "dataset_name": "data.train=[{{hub: {}}}]",
}
"""An option that names data to the override here."""

BETAS = ("adam_beta1", "adam_beta2")

MEANT: Mapping[str, str] = {
    **KEYS,
    **{name: override.partition("=")[0] for name, override in SWITCHES.items()},
    **dict.fromkeys(BATCH_SIZES, "training.batch_size"),
    **dict.fromkeys(BETAS, "training.betas"),
    "train_file": "data.train.path",
    "validation_file": "data.eval.path",
    "dataset_name": "data.train.hub",
}
"""A name there to the key that is meant here."""

SCHEDULES: Mapping[str, tuple[str, str]] = {
    "linear": ("linear", "falls to 0 at the last step"),
    "polynomial": ("linear", "the card's `polynomial`, which with the power 1 of its default is a line"),
    "cosine": ("cosine", "falls to 0 at the last step"),
    "constant": ("constant", "stays at the peak"),
    "constant_with_warmup": ("constant", "the card's `constant_with_warmup`"),
    "inverse_sqrt": ("inverse_sqrt", "falls with the square root of the step"),
}
"""`lr_scheduler_type` to `training.schedule`, and what to say of it."""

OPTIMIZERS: Mapping[str, str] = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "adam": "adam",
    "sgd": "sgd",
}
"""`optim` to `training.optimizer`."""

_ALWAYS = "a run always does: leave it out"
_NEVER = "there is no such thing here: leave it out"
_LOGS = "metrics.jsonl and TensorBoard are written; others: `'logging.trackers.wandb={project: NAME}'`, or `mlflow`"
_CADENCE = "the cadence says it (`evaluation.every_steps` or `every_epochs`, `checkpoint.every_steps`): leave it out"
_LINES = "`logging.every_steps` says how often a step is logged, and rank 0 alone prints: leave it out"
_PRECISION = "evaluation computes in the precision of training (`precision`): leave it out"
_SCORES = "every hypothesis is kept, and the scores are those of the task and of `evaluation.metrics`: leave it out"
_LOADER = "the data are planned and loaded otherwise here: leave it out"
_CHECKPOINT = "a checkpoint has all that resuming needs, and is written once: leave it out"
_DEEPSPEED = "DeepSpeed distributes: leave it out, or see `machine.zero_stage` and `machine.deepspeed`"
_LOSS = "the loss never holds all logits at once: leave it out"
_HUB = "leave it out: when the run has ended, `dstrain push RUN OWNER/NAME` sends its best model, checked for secrets"
ELSEWHERE: Mapping[str, str] = {
    "deepspeed": "leave it out: dstrain configures DeepSpeed. `machine.zero_stage=2` chooses the stage",
    "deepspeed_config": "leave it out: dstrain configures DeepSpeed. `machine.zero_stage=2` chooses the stage",
    "fsdp": "models are sharded by ZeRO: leave it out, and choose with `machine.zero_stage`",
    ACCUMULATION: "leave it out: `training.batch_size` counts the sequences of a whole step, and it is cut so that it fits",
    "auto_find_batch_size": "leave it out: `machine.micro_batch_tokens=null` finds what fits, and the step stays the same",
    "adafactor": "there is no Adafactor here; `training.optimizer=adamw` with a constant learning rate comes close",
    "warmup_ratio": "write the steps: `training.warmup_steps=N`",
    "lr_scheduler_warmup_ratio": "write the steps: `training.warmup_steps=N`",
    "resume_from_checkpoint": "the same command resumes from the newest checkpoint: leave it out",
    "overwrite_output_dir": "a run folder is resumed, never overwritten: choose another `output_dir=…`, or remove the folder",
    "do_train": _ALWAYS,
    "do_eval": _ALWAYS,
    "do_predict": "use `dstrain predict RUN` afterwards",
    "predict_with_generate": _ALWAYS,
    "load_best_model_at_end": "the best model is in `best/` of the run folder: leave it out",
    "greater_is_better": "it follows from `evaluation.best_metric`: leave it out",
    "eval_strategy": _CADENCE,
    "evaluation_strategy": _CADENCE,
    "save_strategy": _CADENCE,
    "logging_strategy": _CADENCE,
    "report_to": _LOGS,
    "logging_dir": _LOGS,
    "group_by_length": _LOADER,
    "dataloader_num_workers": _LOADER,
    "dataloader_drop_last": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "remove_unused_columns": _LOADER,
    "ddp_find_unused_parameters": "leave it out: DeepSpeed distributes",
    "trust_remote_code": "code that comes with a model is never run: leave it out",
    "push_to_hub": _HUB,
    "hub_model_id": _HUB,
    "hub_token": "an option is no place for a secret: `hf auth login`, or the variable HF_TOKEN",
    "token": "an option is no place for a secret: `hf auth login`, or the variable HF_TOKEN",
    "hub_always_push": _HUB,
    "hub_private_repo": "`dstrain push RUN OWNER/NAME --private`, when the run has ended",
    "hub_revision": _HUB,
    "hub_strategy": _HUB,
    "trackio_bucket_id": _LOGS,
    "trackio_space_id": _LOGS,
    "trackio_static_space_id": _LOGS,
    "lr_scheduler_kwargs": "a schedule has `training.warmup_steps` and no other setting: leave it out",
    "optim_args": "an optimizer has `training.betas`, `epsilon` and `weight_decay`, and no other setting: leave it out",
    "optim_target_modules": _NEVER,
    "average_tokens_across_devices": "the loss is always the mean over all target tokens of a step: leave it out",
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "tf32": "fp32 is computed as fp32: leave it out; `precision=bf16` is faster",
    "activation_checkpointing_kwargs": "`machine.activation_checkpointing` is true or false: leave it out",
    "gradient_checkpointing_kwargs": "`machine.activation_checkpointing` is true or false: leave it out",
    "torch_compile_backend": "`machine.compile` is true or false: leave it out",
    "torch_compile_mode": "`machine.compile` is true or false: leave it out",
    "use_liger_kernel": _LOSS,
    "liger_kernel_config": _LOSS,
    "use_cache": "the search keeps keys and values, and training does not: leave it out",
    "neftune_noise_alpha": _NEVER,
    "torch_empty_cache_steps": _NEVER,
    "logging_first_step": _LINES,
    "logging_nan_inf_filter": "a step that is not finite is not applied, and is recorded: leave it out",
    "log_level": _LINES,
    "log_level_replica": _LINES,
    "log_on_each_node": _LINES,
    "disable_tqdm": "bars are shown on a terminal only: leave it out, or add `2>&1 | cat` behind the command",
    "include_num_input_tokens_seen": "metrics.jsonl has the tokens of every logged step: leave it out",
    "eval_delay": _CADENCE,
    "eval_on_start": _ALWAYS,
    "prediction_loss_only": "an evaluation always generates: leave it out",
    "eval_do_concat_batches": _SCORES,
    "eval_use_gather_object": _SCORES,
    "eval_accumulation_steps": _SCORES,
    "include_for_metrics": _SCORES,
    "batch_eval_metrics": _SCORES,
    "save_only_model": "a checkpoint always resumes, and `best/` and `final/` hold the model alone: leave it out",
    "save_on_each_node": _CHECKPOINT,
    "enable_jit_checkpoint": "a run saves when a signal says that its time ends: leave it out",
    "restore_callback_states_from_checkpoint": _CHECKPOINT,
    "ignore_data_skip": "a run resumes at its place in the data at once: leave it out",
    "full_determinism": "the random numbers follow from `seed` alone, after a resume too: leave it out",
    "data_seed": "`seed` orders the data too: leave it out",
    "dataloader_persistent_workers": _LOADER,
    "dataloader_prefetch_factor": "`machine.prefetch_steps=N` says how many steps are prepared ahead",
    "dataloader_multiprocessing_context": _LOADER,
    "dataloader_in_order": _LOADER,
    "train_sampling_strategy": _LOADER,
    "sortish_sampler": _LOADER,
    "length_column_name": _LOADER,
    "label_names": "name the columns of the data instead: `data.train.0.source_column=…` and `target_column`",
    "accelerator_config": _DEEPSPEED,
    "parallelism_config": _DEEPSPEED,
    "fsdp_config": _DEEPSPEED,
    "ddp_bucket_cap_mb": _DEEPSPEED,
    "ddp_broadcast_buffers": _DEEPSPEED,
    "ddp_static_graph": _DEEPSPEED,
    "ddp_backend": _DEEPSPEED,
    "ddp_timeout": "write minutes: `machine.collective_timeout_minutes=N`",
    "local_rank": "the launcher says it: leave it out",
    "debug": "`--debug` of launch/train.py is another thing here: it runs any recipe shrunk to seconds",
    "skip_memory_metrics": "memory is measured at every logged step, at no cost: leave it out",
    "generation_config": "the search has keys of its own: `evaluation.num_beams`, `length_penalty` and `max_new_tokens`",
    "tokenizer_name": "the tokenizer is that of `model.name`: leave it out",
    "config_name": "the architecture is that of `model.name`: leave it out; `model.scratch` makes a new one",
}
"""An option that has no key here, and what to do instead."""

WITHOUT_VALUE = frozenset({
    *SWITCHES, "adafactor", "auto_find_batch_size", "average_tokens_across_devices", "batch_eval_metrics", "bf16_full_eval",
    "disable_tqdm", "do_eval", "do_predict", "do_train", "eval_on_start", "fp16_full_eval", "full_determinism", "group_by_length",
    "hub_always_push", "hub_private_repo", "ignore_data_skip", "include_num_input_tokens_seen", "load_best_model_at_end",
    "logging_first_step", "overwrite_output_dir", "predict_with_generate", "prediction_loss_only", "push_to_hub",
    "save_on_each_node", "save_only_model", "skip_memory_metrics", "sortish_sampler", "tf32", "trust_remote_code",
    "use_liger_kernel",
})  # fmt: skip
"""Options that may stand without a value."""
