"""What fits into the rest of an allocation; a clock that only tests turn."""

import pytest

from dstrain.cluster.walltime import WallTime, read_allocation_end


class Case:
    """An allocation from 0 to `end`."""

    def __init__(self, end: float | None, *, reserve_seconds: float = 10.0) -> None:
        self.time = 0.0
        self.walltime = WallTime(end, reserve_seconds=reserve_seconds, now=lambda: self.time)

    def verdicts(self, time: float) -> tuple[bool, bool, bool]:
        """Whether it is over, whether an evaluation fits, and whether to save now."""
        self.time = time
        return self.walltime.is_over(), self.walltime.fits_evaluation(), self.walltime.must_save()


def test_an_evaluation_a_step_and_a_save_are_given_up_in_this_order() -> None:
    case = Case(1000.0)
    for part, seconds in (("step", 5.0), ("evaluation", 200.0), ("save", 30.0)):
        case.walltime.record_duration(part, seconds)
    assert case.verdicts(755.0) == (False, True, False)  # 245 s are left: all of it
    assert case.verdicts(756.0) == (False, False, False)
    assert case.verdicts(955.0) == (False, False, False)
    assert case.verdicts(956.0) == (True, False, False)
    assert case.verdicts(960.0) == (True, False, False)
    assert case.verdicts(961.0) == (True, False, True)


def test_without_an_end_everything_fits() -> None:
    case = Case(None)
    case.walltime.record_duration("evaluation", 1e9)
    assert case.verdicts(1e12) == (False, True, False)


def test_the_first_evaluation_is_given_a_try_and_an_unknown_save_its_share() -> None:
    case = Case(1000.0)
    assert case.verdicts(979.0) == (False, True, False)
    assert case.verdicts(981.0) == (True, True, True)  # 10 s for a save, and 10 s after it


def test_a_save_in_flight_must_end_before_the_last_one_begins() -> None:
    case = Case(1000.0)
    case.walltime.begin_save()
    case.time = 40.0
    case.walltime.end_save()
    assert case.walltime.durations == {"save": 40.0}
    assert case.verdicts(945.0) == (False, True, False)
    case.walltime.begin_save()
    assert case.verdicts(945.0) == (True, True, True)


def test_a_save_by_time_begins_only_if_the_last_save_fits_after_it() -> None:
    case = Case(1000.0)
    case.walltime.record_duration("step", 5.0)
    case.walltime.record_duration("save", 40.0)
    case.time = 905.0  # a step, two saves and 10 s are left
    assert case.walltime.fits_save()
    case.time = 906.0
    assert not case.walltime.fits_save()
    assert Case(None).walltime.fits_save()


def test_what_takes_longer_is_believed_at_once_and_what_takes_less_slowly() -> None:
    case = Case(1000.0)
    case.walltime.record_duration("step", 1.0)
    case.walltime.record_duration("step", 9.0)
    assert case.walltime.durations["step"] == 9.0
    case.walltime.record_duration("step", 1.0)
    assert case.walltime.durations["step"] == pytest.approx(8.2)
    for _ in range(100):
        case.walltime.record_duration("step", 1.0)
    assert case.walltime.durations["step"] == pytest.approx(1.0, rel=1e-2)


def test_a_short_allocation_keeps_a_tenth_free_at_most() -> None:
    case = Case(120.0, reserve_seconds=60.0)
    case.walltime.record_duration("save", 1.0)
    assert case.verdicts(106.0) == (False, True, False)
    assert case.verdicts(108.0) == (True, True, True)


def test_the_end_is_read_from_the_environment() -> None:
    assert read_allocation_end({}) is None
    assert read_allocation_end({"SLURM_JOB_END_TIME": ""}) is None
    assert read_allocation_end({"SLURM_JOB_END_TIME": "1795617000"}) == 1795617000.0
    assert read_allocation_end({"SLURM_JOB_END_TIME": "1", "DSTRAIN_ALLOCATION_END": "2.5"}) == 2.5
    with pytest.raises(ValueError, match=r"DSTRAIN_ALLOCATION_END must be .*'soon'"):
        read_allocation_end({"DSTRAIN_ALLOCATION_END": "soon"})
