"""What the rows of a run say about how it ended, where nothing else is known."""

import pytest

from dstrain.reporting.standing import Standing, read_standing
from dstrain.run_folder.record import build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.reporting_cases import run_info, translation_config


@pytest.mark.parametrize(
    ("rows", "standing"),
    [
        ([], Standing("interrupted")),
        ([EventRow("start", 0, message="requested")], Standing("interrupted")),
        ([EventRow("start", 0), EventRow("finish", 9)], Standing("finished")),
        (
            [EventRow("finish", 9, message="no better score\n  for 3 of them")],
            Standing("finished", "no better score for 3 of them"),
        ),
        (
            [EventRow("stop", 9, message="received SIGTERM"), EventRow("unsaved", 9, message="no room")],
            Standing("stopped", "received SIGTERM"),
        ),
    ],
)
def test_the_last_event_says_how_a_run_ended_and_why(rows: list[Row], standing: Standing) -> None:
    assert read_standing(build_record(translation_config(), info=run_info(), rows=rows)) == standing
