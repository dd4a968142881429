"""Which texts name code of the user's own."""

import pytest

from dstrain.config.load import ConfigError, load_config
from dstrain.config.own_code import is_own_code, own_name


@pytest.mark.parametrize("text", ["a:b", "my_package.my_module:Class", "_a.b1:c"])
def test_a_module_and_a_name_are_code(text: str) -> None:
    assert is_own_code(text)
    assert own_name(text) == text.split(":")[1]


@pytest.mark.parametrize("text", ["", "a", "a:", ":b", "a.:b", "a:b.c", "a:b:c", "1a:b", "a b:c", "../a:b", "a:b\n"])
def test_everything_else_is_not(text: str) -> None:
    assert not is_own_code(text)


def test_a_recipe_lists_all_its_code() -> None:
    overrides = ["task={kind: 'a.b:Task'}", "evaluation.metrics=[bleu, 'c:score']", "evaluation.best_metric=bleu"]
    config = load_config("debug", overrides=overrides)
    assert config.own_code == (("task.kind", "a.b:Task"), ("evaluation.metrics", "c:score"))
    assert (config.task.own, config.task.base_kind, config.task.title) == ("a.b:Task", "text", "Task")


def test_a_task_that_is_none_is_refused_with_what_it_may_be() -> None:
    with pytest.raises(ConfigError, match=r"must be 'translation', 'parsing' or 'text' or a class of your own as"):
        load_config("debug", overrides=["task.kind=translate"])
