"""What a tracker must still be sent: nothing twice and nothing never, wherever a process is killed."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dstrain.run_folder.tracked import Sent
from dstrain.tracking.mirror import after_arrival, after_opening, before_sending, points_to_send
from dstrain.tracking.tracker import Point


def point(part: str, step: int) -> Point:
    return Point(part, step, {f"{part}/loss": 1.0})


def train(*steps: int) -> list[Point]:
    return [point("train", step) for step in steps]


def deliver(points: list[Point], *, sent: Sent) -> Sent:
    return after_arrival(before_sending(sent, points), points)


def described(points: list[Point]) -> list[tuple[str, int, int]]:
    return [(each.part, each.step, each.number) for each in points]


def test_points_are_numbered_on_over_all_sendings() -> None:
    first = points_to_send([*train(10, 20), point("eval", 20)], sent=Sent())
    assert described(first) == [("train", 10, 0), ("train", 20, 1), ("eval", 20, 2)]
    sent = deliver(first, sent=Sent())
    assert sent == Sent(20, {"eval": (20,)}, (), 3)
    second = points_to_send([*train(10, 20, 30), point("eval", 20)], sent=sent)
    assert described(second) == [("train", 30, 3)]


def test_a_step_that_a_resumed_run_repeats_is_not_sent_again() -> None:
    sent = deliver(points_to_send(train(*range(1, 121)), sent=Sent()), sent=Sent())
    # killed after 120 and resumed from 100: the rows of 101 to 120 are gone until they are computed again
    assert points_to_send(train(*range(1, 101)), sent=sent) == []
    again = points_to_send(train(*range(1, 151)), sent=sent)
    assert described(again) == [("train", step, step - 1) for step in range(121, 151)]


def test_an_evaluation_that_arrives_late_is_sent_although_its_step_is_older() -> None:
    sent = deliver(points_to_send([*train(100, 200), point("eval", 200)], sent=Sent()), sent=Sent())
    late = points_to_send([point("eval", 100), *train(100, 200), point("eval", 200)], sent=sent)
    assert described(late) == [("eval", 100, 3)]


def test_what_is_unsure_is_sent_again_under_its_number_and_before_what_is_new() -> None:
    first = points_to_send(train(10, 20), sent=Sent())
    sent = before_sending(Sent(), first)
    again = points_to_send([*train(10, 20, 30), point("eval", 5)], sent=sent)
    assert described(again) == [("train", 10, 0), ("train", 20, 1), ("train", 30, 2), ("eval", 5, 3)]
    assert [each.is_unsure for each in again] == [True, True, False, False]
    # noted once, however often it is sent
    assert before_sending(sent, again[:2]) == sent


def test_what_is_unsure_and_gone_after_a_resume_waits_until_it_is_computed_again() -> None:
    sent = deliver(points_to_send(train(10), sent=Sent()), sent=Sent())
    sent = before_sending(sent, points_to_send(train(10, 20, 30), sent=sent))
    assert points_to_send(train(10), sent=sent) == []
    sent = deliver(points_to_send(train(10, 20), sent=sent), sent=sent)
    assert (sent.train_step, sent.unsure) == (20, (("train", 30, 2),))
    assert described(points_to_send(train(10, 20, 30), sent=sent)) == [("train", 30, 2)]


def test_a_destination_that_can_tell_how_many_points_it_has_leaves_nothing_unsure() -> None:
    points = [*train(10, 20, 30), point("eval", 30)]
    sent = before_sending(Sent(), points_to_send(points, sent=Sent()))
    known = after_opening(sent, num_there=2)
    assert known == Sent(20, {}, (), 2)
    assert described(points_to_send(points, sent=known)) == [("train", 30, 2), ("eval", 30, 3)]
    assert after_opening(sent, num_there=4) == Sent(30, {"eval": (30,)}, (), 4)
    assert after_opening(sent, num_there=None) == sent


def test_a_destination_that_begins_anew_is_sent_everything() -> None:
    sent = deliver(points_to_send(train(10, 20), sent=Sent()), sent=Sent())
    assert after_opening(sent, num_there=0) == Sent()


KILLS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4), st.sampled_from(["before", "after"])), max_size=8)


@given(kills=KILLS, tells=st.booleans())
def test_every_point_arrives_once_wherever_a_process_is_killed(kills: list[tuple[int, int, str]], tells: bool) -> None:
    """Each attempt sees more of the run, sends in batches, and is killed before or after the server has got one."""
    points = [each for step in range(1, 9) for each in (point("train", step), point("eval", step))]
    sent, server = Sent(), list[Point]()

    def attempt(visible: list[Point], *, size: int, kill_at: int, when: str) -> None:
        nonlocal sent
        sent = after_opening(sent, num_there=len(server) if tells and server else None)
        waiting = points_to_send(visible, sent=sent)
        for number, first in enumerate(range(0, len(waiting), size)):
            batch = waiting[first : first + size]
            sent = before_sending(sent, batch)
            if (number, when) == (kill_at, "before"):
                return
            numbers = {each.number for each in server}
            server.extend(replace(each, is_unsure=False) for each in batch if each.number not in numbers)
            if (number, when) == (kill_at, "after"):
                return
            sent = after_arrival(sent, batch)

    for count, (size, kill_at, when) in enumerate(kills, start=1):
        attempt(points[: 2 * count], size=size, kill_at=kill_at - 1, when=when)
    attempt(points, size=3, kill_at=-1, when="never")
    assert sorted(each.key for each in server) == sorted(each.key for each in points)
    assert [each.number for each in server] == sorted({each.number for each in server})
