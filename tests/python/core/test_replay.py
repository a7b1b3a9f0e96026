"""What a reader that comes back is given (PROTOCOL §3, §6.2), and which cursors can be read at all."""

from __future__ import annotations

import pytest
from session_samples import answered, begun, created, empty, ended, play, queued

from strandline.core.events import Appended
from strandline.core.offset import Cursor, MalformedCursor, Standing, parse, standing
from strandline.core.replay import (
    NOTHING,
    Tail,
    Unresumable,
    Whole,
    fallback,
    plan_fresh,
    plan_named,
    plan_tail,
    read_cursor,
)

GARBAGE = [
    "", " ", "abcd1234", "abcd1234.1", "abcd1234.1.1.1", "abcd1234.0.1", "abcd1234.01.1", "abcd1234.-1.1",
    "abcd1234.1.-1", "abcd1234.+1.1", "abcd1234.1.1 ", "\nabcd1234.1.1", "abcd1234.1.1\n", "ABCD1234.1.1",
    "abc.1.1", "a" * 17 + ".1.1", "abcd1234.1e3.1", "abcd1234.١.1", "abcd1234.1.1234567", "0.0.0", "null",
    "abcd1234." + "9" * 16 + ".1", "'; DROP TABLE log; --", "🦩", "abcd1234\x00.1.1", "-1", "now",
]  # fmt: skip
APPENDED = Appended(12, "r1", "v-r1", ({"type": "start-step"}, {"type": "finish-step"}))


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_not_a_cursor(text: str) -> None:
    with pytest.raises(MalformedCursor):
        parse(text)
    assert read_cursor(text, answered()) == "The cursor was not minted by this service."


@pytest.mark.parametrize("cursor", [Cursor("abcd1234", 1, 0), Cursor("0000", 10**15 - 1, 999_999)])
def test_a_cursor_survives_the_wire(cursor: Cursor) -> None:
    assert parse(str(cursor)) == cursor


def test_a_cursor_stands_in_a_log_or_outside_it() -> None:
    log = {"epoch": "abcd1234", "first_seq": 3, "last_seq": 9}
    for seq, expected in [(2, Standing.EXPIRED), (3, Standing.GOOD), (9, Standing.GOOD), (10, Standing.FUTURE)]:
        assert standing(Cursor("abcd1234", seq, 0), **log) is expected  # type: ignore[arg-type]
    assert standing(Cursor("zzzz1234", 5, 0), **log) is Standing.OTHER_EPOCH  # type: ignore[arg-type]


def test_cursors_of_another_epoch_or_from_the_future_are_told_apart() -> None:
    state = answered()
    assert "incarnation" in str(read_cursor("zzzz1234.1.1", state))
    assert "ahead" in str(read_cursor("abcd1234.5.0", state))
    assert read_cursor("abcd1234.4.1", state) == Cursor("abcd1234", 4, 1)


def test_a_reader_without_cursor_gets_the_active_run_else_what_it_is_owed_else_nothing() -> None:
    assert plan_fresh(answered(active=True), None) == Whole("r1")
    assert plan_fresh(answered(active=True), "r1") == Whole("r1")
    assert plan_fresh(answered(), "r1") == Whole("r1")
    assert plan_fresh(answered(), None) is NOTHING
    assert plan_fresh(answered(), "gone") is NOTHING
    assert plan_fresh(empty(), None) is NOTHING


def test_a_named_run_is_given_whole_in_every_state_and_an_unknown_one_not_at_all() -> None:
    assert plan_named(answered(), "r1") == Whole("r1")
    assert plan_named(answered(active=True), "r1") == Whole("r1")
    assert plan_named(answered(), "r2") is NOTHING


def test_a_cursor_belongs_to_the_run_whose_frame_it_names() -> None:
    state = play(answered(), created("u2", "v-r1"), queued("r2", "v-u2"), begun("r2"))
    assert plan_tail(state, Cursor("abcd1234", 3, 1), begun("r1")) == Tail("r1", Cursor("abcd1234", 3, 1))
    assert plan_tail(state, Cursor("abcd1234", 7, 1), begun("r2")) == Tail("r2", Cursor("abcd1234", 7, 1))


def test_after_the_end_there_is_nothing_even_when_the_log_has_gone() -> None:
    state = answered()
    assert plan_tail(state, Cursor("abcd1234", 4, 1), ended("r1")) is NOTHING
    assert plan_tail(state, Cursor("abcd1234", 4, 1), None) is NOTHING
    assert plan_tail(state, Cursor("abcd1234", 4, 0), ended("r1")) == Tail("r1", Cursor("abcd1234", 4, 0))


def test_a_cursor_that_the_log_does_not_reach_is_answered_with_a_run_to_show() -> None:
    planned = plan_tail(answered(), Cursor("abcd1234", 2, 1), None)
    assert isinstance(planned, Unresumable)
    assert planned.run == "r1"
    planned = plan_tail(answered(), Cursor("abcd1234", 1, 1), created("u1"))
    assert isinstance(planned, Unresumable)


def test_a_frame_that_the_event_does_not_have_is_not_skipped_over() -> None:
    state = answered(active=True)
    assert plan_tail(state, Cursor("abcd1234", 3, 2), APPENDED) == Tail("r1", Cursor("abcd1234", 3, 2))
    assert isinstance(plan_tail(state, Cursor("abcd1234", 3, 3), APPENDED), Unresumable)
    assert isinstance(plan_tail(state, Cursor("abcd1234", 3, 2), begun("r1")), Unresumable)


def test_what_is_shown_instead_is_the_active_run_else_the_newest() -> None:
    state = play(answered(), created("u2", "v-r1"), queued("r2", "v-u2"), begun("r2"))
    assert fallback(state) == "r2"
    assert fallback(play(state, ended("r2"), queued("r3", "v-u1"), begun("r3"), ended("r3"))) == "r3"
    assert fallback(empty()) is None
