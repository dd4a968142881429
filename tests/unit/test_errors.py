"""A user's mistake is told from a fault of the program by its type, and is printed once where every rank raises it."""

import pytest

from dstrain.attempt.lease import LeaseHeld, LeaseLost
from dstrain.config.load import ConfigError
from dstrain.config.yaml_source import Problem, Where
from dstrain.errors import PeerLost, UserError
from dstrain.run_folder.reading import RunFolderError

PROBLEM = Problem(Where("x.yaml", 2), ("seed",), "a number", way_out="what to do")


def test_a_mistake_of_the_user_is_a_value_error_and_a_lost_peer_is_not() -> None:
    assert issubclass(UserError, ValueError)
    assert not issubclass(PeerLost, ValueError)
    assert issubclass(PeerLost, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [ConfigError([PROBLEM]), RunFolderError("what to do"), LeaseHeld("what to do"), LeaseLost("what to do")],
)
def test_messages_for_the_user_are_all_caught_as_one_type(error: Exception) -> None:
    with pytest.raises(UserError, match="what to do"):
        raise error


@pytest.mark.parametrize(
    ("kind", "by_rank_0"), [(UserError, False), (RunFolderError, False), (LeaseLost, False), (LeaseHeld, True)]
)
def test_only_an_error_that_every_rank_raises_is_left_to_rank_0(kind: type[UserError], by_rank_0: bool) -> None:
    assert kind("no").is_said_by_rank_0 is by_rank_0
