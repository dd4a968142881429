"""What every tracker has."""

import pytest

from dstrain.tracking.tracker import Place, Point, Tracker
from tests.unit.tracking.tracking_cases import Server, memory


def test_a_tracker_that_lacks_a_function_cannot_be_made(tmp_path: object) -> None:
    class Half(Tracker):
        @property
        def destination(self) -> str:
            return "nowhere"

    with pytest.raises(TypeError, match="abstract"):
        Half(Place(folder=None))  # type: ignore[abstract, arg-type]


def test_a_tracker_needs_no_package_and_no_address_and_keeps_what_it_is_sent(tmp_path: object) -> None:
    tracker = memory(Server())(Place(folder=None))  # type: ignore[arg-type]
    assert (tracker.package, tracker.address, tracker.is_sure_when_sent) == ("", None, True)


def test_a_point_is_known_by_its_part_and_step() -> None:
    assert Point("eval", 7, {"eval/bleu": 1.0}, number=3).key == ("eval", 7)
