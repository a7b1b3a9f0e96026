"""What stands beside a message, and where one arrives by going there."""

from __future__ import annotations

import pytest
from session_samples import answered, begun, created, empty, ended, play, queued

from strandline.core.branch import MOST_VERSIONS, Place, branches, leaf_without, newest_leaf, siblings
from strandline.core.events import BranchSelected, MessageDeleted, MessageReplaced, RunQueued, SessionChanged
from strandline.core.session import SessionState

SAID = ({"type": "text", "text": "now this"},)


def reply(run: str, parent: str) -> tuple[object, ...]:
    return queued(run, parent), begun(run), ended(run)


def deleted(version: str) -> MessageDeleted:
    return MessageDeleted(20, "user:ann", version, version.removeprefix("v-"))


def tree() -> SessionState:
    """u1 with replies r1 and r2; after r1 the messages u2 and its edit, which was answered."""
    state = play(answered(), created("u2", "v-r1"), created("u2", "v-r1", "v-edit"), *reply("r3", "v-edit"))  # type: ignore[arg-type]
    return play(state, *reply("r2", "v-u1"))  # type: ignore[arg-type]


def test_a_message_without_siblings_has_no_place() -> None:
    state = answered()
    assert branches(state.messages, state.path()) == {}


def test_places_count_from_the_oldest() -> None:
    state = tree()
    assert branches(state.messages, state.path()) == {"a-r2": Place(1, 2, ("v-r1", "v-r2"))}
    other = state.path("v-r3")
    assert branches(state.messages, other) == {
        "a-r1": Place(0, 2, ("v-r1", "v-r2")),
        "u2": Place(1, 2, ("v-u2", "v-edit")),
    }


def test_a_reply_is_no_sibling_of_a_user_message_and_a_spawned_one_of_nobody() -> None:
    state = play(answered(), created("u9", "v-u1"))
    spawned = RunQueued(11, "user:ann", "s1", "v-s1", "a-s1", "v-u1", "reply", spawned=True)
    play(state, spawned)
    assert siblings(state.messages, state.messages["v-r1"]) == ["v-r1"]
    assert newest_leaf(state.messages, "v-u1") == "v-u9"


def test_going_to_a_message_ends_at_the_newest_that_followed() -> None:
    state = tree()
    assert newest_leaf(state.messages, "v-r1") == "v-r3"
    assert newest_leaf(state.messages, "v-u2") == "v-u2"
    assert newest_leaf(state.messages, "v-u1") == "v-r2"
    assert newest_leaf(state.messages, "nobody") is None


def test_only_the_newest_of_many_versions_are_named() -> None:
    state = answered()
    for number in range(MOST_VERSIONS + 5):
        play(state, *reply(f"x{number}", "v-u1"))  # type: ignore[arg-type]
    (place,) = branches(state.messages, state.path()).values()
    assert (place.index, place.count) == (MOST_VERSIONS + 5, MOST_VERSIONS + 6)
    assert len(place.versions) == MOST_VERSIONS
    assert place.versions[-1] == state.record.leaf


@pytest.mark.parametrize(
    ("gone", "leaf"),
    [
        ("v-r2", "v-r3"),  # the reply beside it, and what followed that
        ("v-r3", "v-r2"),  # it is not the leaf: nothing changes
    ],
)
def test_deleting_the_leaf_goes_to_the_branch_beside_it(gone: str, leaf: str) -> None:
    assert play(tree(), deleted(gone)).record.leaf == leaf


def test_deleting_the_leaf_without_siblings_goes_to_what_came_before() -> None:
    state = answered()
    assert leaf_without(state.messages, "v-r1") == "v-u1"
    assert play(state, deleted("v-r1")).record.leaf == "v-u1"
    assert play(state, deleted("v-u1")).record.leaf is None
    assert state.path() == []


def test_deleting_passes_over_what_was_deleted_before() -> None:
    state = play(answered(), deleted("v-u1"), created("u2", "v-r1"))
    play(state, deleted("v-r1"))
    assert [each.version for each in state.path()] == ["v-u2"]
    assert play(state, deleted("v-u2")).record.leaf is None


def test_a_deleted_message_is_no_sibling() -> None:
    state = play(tree(), deleted("v-r1"))
    assert branches(state.messages, state.path()) == {}
    assert [each.version for each in state.path("v-r3")] == ["v-u1", "v-edit", "v-r3"]


def test_a_switch_moves_the_path_and_nothing_else() -> None:
    state = tree()
    messages = dict(state.messages)
    play(state, BranchSelected(30, "user:ann", "v-r3", "a-r3"))
    assert [each.version for each in state.path()] == ["v-u1", "v-r1", "v-edit", "v-r3"]
    assert state.messages == messages


def test_a_session_that_gave_up_its_title_gets_one_from_the_message_that_was_changed() -> None:
    state = answered()
    assert state.record.title == "hello"
    play(state, SessionChanged(20, "user:ann", None, False), MessageReplaced(20, "user:ann", "v-u1", "u1", SAID))
    assert state.record.title == "now this"
    play(state, MessageReplaced(21, "user:ann", "v-u1", "u1", ({"type": "text", "text": "and this"},)))
    assert state.record.title == "now this"


def test_only_what_is_being_written_on_the_path_is_shown_as_such() -> None:
    state = play(answered(active=True), created("u8", None, "v-u8"))
    assert [run.id for run in state.active()] == ["r1"]
    assert state.writing() == []
    play(state, BranchSelected(30, "user:ann", "v-r1", "a-r1"))
    assert [run.id for run in state.writing()] == ["r1"]
    assert empty().writing() == []
