"""Which findings prevent training."""

from dstrain.doctor.finding import note, ok, prevents_training, problem


def test_only_a_problem_prevents_training() -> None:
    harmless = [ok("a", "fine"), note("b", "odd", way_out="mend it")]
    assert not prevents_training([])
    assert not prevents_training(harmless)
    assert prevents_training([*harmless, problem("c", "broken", way_out="mend it")])
