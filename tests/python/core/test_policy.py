"""What becomes of a message that comes while a reply is written (PROTOCOL §14.1), and whose turn it is (§14.2)."""

from __future__ import annotations

import pytest
from session_samples import HELLO, answered, begun, created, empty, ended, play, project, queued

from strandline.core.events import DecisionMade, DecisionRequested, RunEnded, RunQueued
from strandline.core.intake import Incoming, Start
from strandline.core.policy import POLICIES, Admission, Occupied, Policy, Told, admit
from strandline.core.project import project as change_by
from strandline.core.run import Status
from strandline.core.session import SessionState

NEW = Incoming("u9", "user", HELLO)


def two_waiting() -> SessionState:
    """``r1`` is running, ``r2`` and ``r3`` wait."""
    state = answered(active=True)
    play(state, created("u2", "v-r1"), queued("r2", "v-u2"))
    return play(state, created("u3", "v-r2"), queued("r3", "v-u3"))


def new(state: SessionState) -> Start:
    return Start(state.record.leaf, create=NEW)


def stopped(admitted: object) -> list[str]:
    assert isinstance(admitted, Admission)
    return [run.id for run in admitted.stops]


@pytest.mark.parametrize("policy", POLICIES)
def test_with_nothing_active_every_policy_starts_at_once(policy: str) -> None:
    for state in (empty(), answered()):
        assert admit(Policy(policy), new(state), state) == Admission()


def test_what_each_does_while_a_reply_is_written() -> None:
    state = answered(active=True)
    run = state.runs["r1"]
    assert admit(Policy.INTERRUPT, new(state), state) == Admission((run,))
    assert admit(Policy.QUEUE, new(state), state) == Admission(waits=True)
    assert admit(Policy.REJECT, new(state), state) == Occupied(run)
    assert admit(Policy.STEER, new(state), state) == Told(run)
    assert admit(Policy.CONCURRENT, new(state), state) == Admission()


def test_a_queue_that_is_about_to_go_on_is_not_overtaken_by_who_wanted_to_steer() -> None:
    state = play(two_waiting(), ended("r1"))
    assert admit(Policy.STEER, new(state), state) == Admission(waits=True)


@pytest.mark.parametrize("policy", [Policy.QUEUE, Policy.STEER, Policy.CONCURRENT])
def test_what_an_edit_leaves_behind_ends_and_what_it_follows_goes_on(policy: Policy) -> None:
    state = two_waiting()
    edit = admit(policy, Start("v-r1", create=NEW), state)
    assert stopped(edit) == ["r2", "r3"]
    assert isinstance(edit, Admission) and edit.waits is (policy is not Policy.CONCURRENT)
    assert stopped(admit(policy, Start("v-u1"), state)) == ["r1", "r2", "r3"]
    assert stopped(admit(policy, Start(None, create=NEW), state)) == ["r1", "r2", "r3"]


def test_runs_that_others_have_spawned_end_with_those_and_are_else_left_alone() -> None:
    state = answered(active=True)
    project(
        state,
        RunQueued(14, "agent:reply", "s1", "v-s1", "a-s1", "v-r1", "helper", parent_run="r1", spawned=True),
        begun("s1"),
        absorb=True,
    )
    assert stopped(admit(Policy.INTERRUPT, new(state), state)) == ["r1"]
    assert admit(Policy.STEER, new(state), state) == Told(state.runs["r1"])
    play(state, ended("r1"))
    assert admit(Policy.REJECT, new(state), state) == Admission()


def test_the_turn_goes_from_one_to_the_next() -> None:
    state = two_waiting()
    assert state.turn() is None
    play(state, ended("r1"))
    assert state.turn() == state.runs["r2"]
    play(state, begun("r2"))
    assert state.turn() is None
    play(state, ended("r3", Status.STOPPED), ended("r2"))
    assert state.turn() is None


def test_a_turn_does_not_come_while_a_decision_before_it_is_pending() -> None:
    state = two_waiting()
    asked = DecisionRequested(13, "r1", "v-r1", "a-r1", "d1", "approval", "call", "pay", {})
    play(state, asked, ended("r1", Status.SUSPENDED))
    assert state.turn() is None
    made = DecisionMade(14, "user:ann", "d1", "r1", "v-r1", "a-r1", "denied", ())
    going_on = RunQueued(14, "user:ann", "r1b", "v-r1", "a-r1", "v-u1", "reply", parent_run="r1")
    state.absorb(change_by(state, [made, going_on, begun("r1b")], {"v-r1": ((), None)}))
    # What goes on with the earlier reply stands before those that came while it was written.
    assert (state.current(), state.turn()) == (state.runs["r1b"], None)
    state.absorb(
        change_by(
            state,
            [RunEnded(15, "agent:reply", "r1b", "v-r1", "a-r1", Status.COMPLETED, "completed")],
            {"v-r1": ((), None)},
        )
    )
    assert state.turn() == state.runs["r2"]


def test_what_is_shown_and_what_a_stop_means() -> None:
    state = answered(active=True)
    play(state, created("u2", "v-r1"), queued("r2", "v-u2"), begun("r2"))
    play(state, created("u3", "v-r2"), queued("r3", "v-u3"))
    current, running = state.current(), state.running()
    assert current is not None and running is not None
    assert (current.id, running.id) == ("r1", "r2")
