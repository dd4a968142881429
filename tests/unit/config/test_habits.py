"""Arguments of other tools' habit: each is answered with what to type here, and what is right stays as it is."""

import shlex
from pathlib import Path

import pytest

from dstrain.config.arguments import TRAINING_OPTIONS, parse_arguments
from dstrain.config.habits import correct
from dstrain.config.load import ConfigError, load_config
from dstrain.config.trainer_names import ELSEWHERE, KEYS, SWITCHES
from dstrain.config.vocabulary import all_keys, is_key

OWN = ["--config", "debug"]


def told(*arguments: str, num_ranks: int = 1, takes_recipe: bool = False, takes_key: bool = False) -> str:
    message = correct(
        arguments,
        program="train.py",
        options=TRAINING_OPTIONS,
        num_ranks=num_ranks,
        takes_recipe=takes_recipe,
        takes_key=takes_key,
    )
    assert message is not None, arguments
    return message


def typed(*arguments: str, num_ranks: int = 1, takes_key: bool = False) -> list[str]:
    """The words of the last line after the program: the whole command as it should be typed."""
    last = told(*arguments, num_ranks=num_ranks, takes_key=takes_key).splitlines()[-1]
    assert last.startswith("all together: train.py ")
    return shlex.split(last.removeprefix("all together: train.py "))


@pytest.mark.parametrize(
    "arguments",
    [
        [*OWN],
        ["--config=debug", "training.max_steps=5", "data.train=[{path: a.tsv}]"],
        [*OWN, "--debug", "--overfit", "8", "--allow-changed", "training.learning_rate", "training.learning_rate=1e-4"],
        ["--local_rank=1", *OWN],
        ["--local_rank", "1", *OWN, "--over", "8"],
        ["--help"],
        [*OWN, "nonsense", "a.b.c"],
        [],
        ["--"],
        [*OWN, "--", "-x=1", "--lr", "3"],
        ["-h"],
        [*OWN, "seed=1", "seed=2"],
        [*OWN, "training", "8"],
    ],
)
def test_right_arguments_and_those_that_only_the_recipe_can_judge_are_left_alone(arguments: list[str]) -> None:
    assert correct(arguments, program="train.py", options=TRAINING_OPTIONS) is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--training.max_steps", "5"], "training.max_steps=5"),
        (["--training.max_steps=5"], "training.max_steps=5"),
        (["training.max_steps", "5"], "training.max_steps=5"),
        (["seed", "7"], "seed=7"),
        (["--max_steps", "5"], "training.max_steps=5"),
        (["--max-steps=5"], "training.max_steps=5"),
        (["--num_train_epochs", "3"], "training.epochs=3"),
        (["--learning_rate", "1e-4"], "training.learning_rate=1e-4"),
        (["--lr", "1e-4"], "training.learning_rate=1e-4"),
        (["--output_dir", "my runs/a"], "output_dir=my runs/a"),
        (["--bf16"], "precision=bf16"),
        (["--bf16", "True"], "precision=bf16"),
        (["--fp16"], "precision=fp16"),
        (["--lr_scheduler_type", "constant_with_warmup"], "training.schedule=constant"),
        (["--optim", "adamw_torch"], "training.optimizer=adamw"),
        (["--adam_beta2", "0.98"], "training.betas=[0.9, 0.98]"),
        (["--train_file", "a.tsv"], "data.train=[{path: a.tsv}]"),
        (["--source_lang", "no"], "task.source_language='no'"),
        (["--metric_for_best_model", "eval_bleu"], "evaluation.best_metric=bleu"),
        (["--zero_stage", "2"], "machine.zero_stage=2"),
        (["--gradient_checkpointing"], "machine.activation_checkpointing=true"),
        (["--training.warmup_steps", "-1"], "training.warmup_steps=-1"),
        (["--training.max_step", "5"], "training.max_steps=5"),
        (["--data.train.0.source_column", "0"], "data.train.0.source_column=0"),
        (["training.learning_rate", "=", "1e-4"], "training.learning_rate=1e-4"),
        (["training.learning_rate=", "1e-4"], "training.learning_rate=1e-4"),
        (["training.learning_rate", "=1e-4"], "training.learning_rate=1e-4"),
        (["training", "batch_size", "8"], "training.batch_size=8"),
        (["training", "batch_size=8"], "training.batch_size=8"),
        (["training.early_stopping", "{patience: 3}"], "training.early_stopping={patience: 3}"),
        (["--data.train", "[{path: a.tsv}]"], "data.train=[{path: a.tsv}]"),
        (["-lr", "1e-4"], "training.learning_rate=1e-4"),
        (["-max_steps=5"], "training.max_steps=5"),
        (["-fp16"], "precision=fp16"),
        (["--seed", "7", "seed=7"], "seed=7"),
    ],
)
def test_the_override_to_type_is_given(arguments: list[str], expected: str) -> None:
    assert typed(*OWN, *arguments) == [*OWN, expected]


def test_several_arguments_are_answered_at_once_and_the_whole_command_follows() -> None:
    words = [
        "recipe.yaml",
        "--num_train_epochs",
        "3",
        "--bf16",
        "--adam_beta1=0.8",
        "--adam_beta2=0.9",
        "--debug",
        "seed=1",
    ]
    assert typed(*words) == [
        *("--config", "recipe.yaml", "training.epochs=3", "precision=bf16"),
        *("training.betas=[0.8, 0.9]", "--debug", "seed=1"),
    ]


def test_the_table_has_what_was_typed_beside_what_to_type() -> None:
    lines = told(*OWN, "--num_train_epochs", "3", "--deepspeed", "ds.json").splitlines()
    assert lines[0] == "train.py: this is written otherwise here:"
    assert lines[1].split("  ")[1:] == ["--num_train_epochs 3", "training.epochs=3"]
    assert lines[2].startswith("  --deepspeed ds.json   leave it out: dstrain configures DeepSpeed.")
    assert lines[3] == "all together: train.py --config debug training.epochs=3"


@pytest.mark.parametrize("recipe", ["my_recipe.yaml", "a/b.yml", "debug"])
def test_a_recipe_by_itself_needs_its_option(recipe: str) -> None:
    assert typed(recipe, "training.max_steps=5") == ["--config", recipe, "training.max_steps=5"]


def test_where_the_recipe_is_an_argument_its_option_is_left_out() -> None:
    options = {"--json": False}
    message = correct(["--config", "a.yaml", "seed=1"], program="dstrain plan", options=options, takes_recipe=True)
    assert message is not None
    assert message.splitlines()[-1] == "all together: dstrain plan a.yaml seed=1"
    assert correct(["a.yaml", "--json"], program="dstrain plan", options=options, takes_recipe=True) is None


def test_the_short_option_of_a_recipe_is_its_long_one() -> None:
    assert typed("-c", "configs/debug.yaml", "seed=1") == ["--config", "configs/debug.yaml", "seed=1"]
    assert typed("-c=debug", "seed", "3") == ["--config", "debug", "seed=3"]
    assert told("-c", "debug", takes_recipe=True).splitlines()[-1] == "all together: train.py debug"


@pytest.mark.parametrize(
    ("arguments", "inner"),
    [
        (["--training", "batch_size"], "training.batch_size"),
        (["--training", "8"], "training.batch_size"),
        (["training", "=", "8"], "training.batch_size"),
        (["--evaluation.external", "comet"], "evaluation.external.NAME.command"),
    ],
)
def test_no_override_is_made_of_a_section(arguments: list[str], inner: str) -> None:
    message = told(*OWN, *arguments)
    assert f"it has keys of its own, such as {inner}=…" in message
    assert "all together" not in message
    assert "it needs a value: training.batch_size=…" in told(*OWN, "training", "batch_size")
    assert "it needs a value: training.batch_size=…" in told(*OWN, "training.batch_size", "=")
    assert "it is written whole: 'data.train=[{path: file.tsv}]'" in told(*OWN, "--data.train", "a.tsv")


@pytest.mark.parametrize(
    ("arguments", "key", "values"),
    [
        (["--output_dir", "a", "--output_dir", "b"], "output_dir", '"a" and "b"'),
        (["--lr", "1", "--learning_rate", "2"], "training.learning_rate", '"1" and "2"'),
        (["--seed", "1", "seed=2"], "seed", '"1" and "2"'),
        (["seed=1", "seed", "2"], "seed", '"1" and "2"'),
        (["--adam_beta1", "0.8", "--adam_beta1", "0.7"], "adam_beta1", '"0.8" and "0.7"'),
    ],
)
def test_a_key_with_two_values_is_said_to_be_given_twice(arguments: list[str], key: str, values: str) -> None:
    message = told(*OWN, *arguments)
    assert f"{key} is given twice, {values}: leave one of them out" in message
    assert "all together" not in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fp16"], ["fp16"]),
        (["-lr"], ["lr"]),
        (["--learning_rate", "1e-4"], ["learning_rate"]),
        (["--training.batch-size"], ["training.batch_size"]),
        (["training.batch_size=8"], ["training.batch_size"]),
        (["--config", "debug", "--fp16"], ["--config", "debug", "fp16"]),
        (["seed", "--config", "debug", "--fp16"], ["seed", "--config", "debug", "precision=fp16"]),
        (["seed", "debug"], ["seed", "--config", "debug"]),
        (["debug", "seed"], ["--config", "debug", "seed"]),
        (["debug", "seed", "seed=3"], ["--config", "debug", "seed", "seed=3"]),
        (["-c", "debug", "seed"], ["--config", "debug", "seed"]),
        (["seed", "seed=3"], ["seed"]),
    ],
)
def test_a_command_that_takes_a_name_keeps_it(arguments: list[str], expected: list[str]) -> None:
    assert typed(*arguments, takes_key=True) == expected


@pytest.mark.parametrize(
    "arguments", [["debug"], ["training", "batch_size"], ["exit", "codes"], ["seed", *OWN, "seed=3"]]
)
def test_names_of_several_words_and_those_that_are_a_recipe_too_are_left_alone(arguments: list[str]) -> None:
    assert correct(arguments, program="explain", options=TRAINING_OPTIONS, takes_key=True) is None


@pytest.mark.parametrize(
    ("arguments", "num_ranks", "size", "why"),
    [
        (["--per_device_train_batch_size", "8"], 1, 8, "the sequences of a step over all ranks"),
        (["--per_device_train_batch_size=8"], 2, 16, "8 × 2 ranks: the sequences"),
        (
            ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "4"],
            2,
            64,
            "8 × 4 accumulated × 2 ranks",
        ),
    ],
)
def test_a_batch_size_of_one_device_becomes_that_of_a_step(
    arguments: list[str], num_ranks: int, size: int, why: str
) -> None:
    assert typed(*OWN, *arguments, num_ranks=num_ranks) == [*OWN, f"training.batch_size={size}"]
    assert why in told(*OWN, *arguments, num_ranks=num_ranks)


def test_an_option_with_a_slip_is_that_option() -> None:
    assert typed(*OWN, "--allow_changed", "training.epochs") == [*OWN, "--allow-changed", "training.epochs"]
    assert typed("--confg", "debug") == ["--config", "debug"]


def test_where_it_cannot_be_told_no_command_is_made_up() -> None:
    message = told(*OWN, "--frobnicate", "7")
    assert "--frobnicate 7" in message
    assert "not known here" in message
    assert "all together" not in message
    several = told(*OWN, "--max_rows", "5")
    assert "data.train.max_rows=…, data.eval.max_rows=…, evaluation.max_rows=…" in several
    assert "it needs a value: training.epochs=…" in told(*OWN, "--num_train_epochs")


def test_a_secret_is_not_repeated() -> None:
    secret = "hf_" + "a" * 34
    assert secret not in told(*OWN, "--hub_token", secret)


def test_what_is_printed_cannot_control_a_terminal() -> None:
    assert "\x1b" not in told(*OWN, "--frob\x1b[2J", "x\x1b]0;y\x07")


def test_every_name_leads_to_a_key_that_exists() -> None:
    for key in KEYS.values():
        assert is_key(key), key
    for override in SWITCHES.values():
        assert is_key(override.partition("=")[0])
    assert not KEYS.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize("name", [*SWITCHES, "deepspeed", "do_train", "per_device_train_batch_size"])
def test_no_name_of_a_trainer_hides_a_key_of_ours(name: str) -> None:
    assert (name,) not in set(all_keys())


def test_what_is_to_be_typed_is_accepted_by_the_program_and_the_recipe(tmp_path: Path) -> None:
    words = typed(
        *("debug", "--num_train_epochs", "3", "--training.max_steps", "null", "--learning_rate", "1e-4", "--seed", "3"),
        *("--output_dir", str(tmp_path / "a b"), "--per_device_train_batch_size", "4", "--source_lang", "ko", "--bf16"),
        *("--eval_steps", "5", "--save_steps", "5", "--warmup_steps", "2", "--generation_num_beams", "2"),
    )
    options = parse_arguments(words)
    config = load_config(options.config, overrides=options.overrides)
    assert (config.training.epochs, config.training.batch_size, config.precision) == (3, 4, "bf16")
    assert (config.output_dir, config.evaluation.num_beams) == (str(tmp_path / "a b"), 2)


def test_the_options_of_a_training_are_those_that_it_parses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    hidden = {"--local_rank", "--local-rank"}
    assert {option for option in TRAINING_OPTIONS if option in shown} == TRAINING_OPTIONS.keys() - hidden
    assert {word.strip("[],") for word in shown.split() if word.startswith("--")} <= TRAINING_OPTIONS.keys()


def test_a_recipe_that_is_missing_is_still_reported_by_its_name() -> None:
    with pytest.raises(ConfigError, match="no-such-recipe"):
        load_config(typed("no-such-recipe.yaml")[1])
