"""A session's outline: messages with parents, runs, the active path."""

from __future__ import annotations

import pytest
from session_samples import HELLO, OTHER, answered, begun, created, empty, ended, play, project, queued

from strandline.core.project import IllegalTransition
from strandline.core.run import ACTIVE, TRANSITIONS, Status, may


def test_the_first_message_gives_the_title_and_the_path() -> None:
    state = answered()
    assert state.record.title == "hello"
    assert [message.message_id for message in state.path()] == ["u1", "a-r1"]
    assert state.record.last_seq == 4
    assert state.record.leaf == "v-r1"


@pytest.mark.parametrize(
    ("text", "title"),
    [("  two \n words ", "two words"), ("x" * 200, "x" * 79 + "…"), ("", None), ("   ", None)],
)
def test_titles_are_one_short_line(text: str, title: str | None) -> None:
    state = play(empty(), created("u1", parts=({"type": "text", "text": text}, {"type": "file", "url": "x"})))
    assert state.record.title == title


def test_a_later_message_does_not_change_the_title() -> None:
    assert play(answered(), created("u2", "v-r1", parts=OTHER)).record.title == "hello"


def test_projecting_changes_nothing_until_it_is_absorbed() -> None:
    state = empty()
    change = project(state, created("u1"), queued("r1", "v-u1"))
    assert not state.messages
    assert not state.runs
    assert state.record.last_seq == 0
    assert change.structural
    state.absorb(change)
    assert state.runs["r1"].status is Status.QUEUED
    assert state.runs["r1"].first_seq == 2


def test_the_outline_keeps_no_content_but_the_change_has_it() -> None:
    state = answered(active=True)
    change = project(state, ended("r1"))
    assert change.messages["v-r1"].parts == ({"type": "text", "text": "so"},)
    state.absorb(change)
    assert state.messages["v-r1"].parts is None
    assert state.messages["v-u1"].parts is None
    assert state.runs["r1"].last_seq == 4
    assert state.runs["r1"].ended_at == 13


def test_an_edit_makes_a_sibling_with_the_same_wire_id() -> None:
    state = play(answered(), created("u1", None, "v-edit", OTHER), queued("r2", "v-edit"))
    assert [message.version for message in state.path()] == ["v-edit", "v-r2"]
    assert [message.version for message in state.path("v-r1")] == ["v-u1", "v-r1"]
    found = state.find("u1")
    assert found is not None
    assert found.version == "v-edit"


def test_a_message_of_another_branch_is_found_when_the_path_has_none() -> None:
    state = play(answered(), created("u9", None, parts=HELLO))
    found = state.find("u1")
    assert found is not None
    assert found.version == "v-u1"
    assert state.find("nobody") is None


def test_runs_are_found_by_what_they_answer_and_by_key() -> None:
    state = play(answered(key="k1"), queued("r2", "v-u1", "k2"))
    assert [run.id for run in state.answers("v-u1")] == ["r1", "r2"]
    assert [run.id for run in state.active()] == ["r2"]
    first, second = state.keyed("k1"), state.keyed("k2")
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("r1", "r2")
    assert state.keyed("k3") is None


def test_the_table_of_transitions_is_closed_and_ends_are_final() -> None:
    assert set(TRANSITIONS) == set(Status)
    ends = set(Status) - ACTIVE
    assert {
        Status.QUEUED: {Status.RUNNING, Status.STOPPED, Status.LOST},
        Status.RUNNING: ends,
        **{end: set() for end in ends},
    } == TRANSITIONS
    for before in Status:
        for after in Status:
            assert may(before, after) == (after in TRANSITIONS[before])


@pytest.mark.parametrize("second", [Status.STOPPED, Status.COMPLETED, Status.LOST])
def test_a_run_ends_once(second: Status) -> None:
    with pytest.raises(IllegalTransition):
        project(answered(), ended("r1", second))


def test_a_run_does_not_start_twice_and_a_queued_one_does_not_complete() -> None:
    with pytest.raises(IllegalTransition):
        project(answered(active=True), begun("r1"))
    with pytest.raises(IllegalTransition):
        project(play(empty(), created("u1"), queued("r1", "v-u1")), ended("r1"))
