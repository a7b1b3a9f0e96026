"""Random trees: the live state, the state that a restart loads, and the log as somebody reads it who knows nothing of
how either is kept agree about the path, what stands beside each message, and where one arrives by going to it."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from log_tree import LogTree
from strandline.core.branch import branches, newest_leaf, siblings
from strandline.core.events import (
    BranchSelected,
    Event,
    MessageCreated,
    MessageDeleted,
    MessageReplaced,
    RunEnded,
    RunQueued,
    RunStarted,
)
from strandline.core.plain import to_plain
from strandline.core.project import project as change_by
from strandline.core.records import MessageRecord, SessionRecord
from strandline.core.run import Status
from strandline.core.session import SessionState
from strandline.stores import MemoryStore
from strandline.stores.port import Batch

WISHES = st.lists(
    st.tuples(
        st.sampled_from(["say", "answer", "edit", "spawn", "select", "delete", "replace"]), st.integers(0, 10**6)
    ),
    max_size=40,
)
SAID = ({"type": "text", "text": "said"},)


def events_of(wish: str, dice: int, number: int, state: SessionState) -> list[Event]:
    """What somebody does next; nothing where there is nothing to do it to."""
    there = [each for each in state.messages.values() if not each.deleted and not each.spawned]
    if wish == "say":
        return [MessageCreated(number, "u", f"v{number}", f"m{number}", state.record.leaf, "user", SAID)]
    if not there:
        return []
    one = there[dice % len(there)]
    match wish:
        case "answer" | "spawn":
            run, message = f"r{number}", f"v{number}"
            spawned = True if wish == "spawn" else None
            return [
                RunQueued(number, "u", run, message, message, one.version, "a", spawned=spawned),
                RunStarted(number, run, message, message),
                RunEnded(number, "a", run, message, message, Status.COMPLETED, "completed"),
            ]
        case "edit":
            return [MessageCreated(number, "u", f"v{number}", one.message_id, one.parent, one.role, SAID)]
        case "select":
            leaf = newest_leaf(state.messages, one.version)
            assert leaf is not None
            return [BranchSelected(number, "u", leaf, state.messages[leaf].message_id)]
        case "delete":
            return [MessageDeleted(number, "u", one.version, one.message_id)]
        case _:
            return [MessageReplaced(number, "u", one.version, one.message_id, SAID)]


def on_branches(state: SessionState) -> list[MessageRecord]:
    return [each for each in state.messages.values() if not each.spawned]


def tree(state: SessionState) -> dict[str, Any]:
    """All that there is to know about the branches of a session."""
    path = state.path()
    return {
        "leaf": state.record.leaf,
        "path": [each.version for each in path],
        "beside": {each.version: siblings(state.messages, each) for each in path},
        "places": {id: place.plain() for id, place in branches(state.messages, path).items()},
        "leaves": {each.version: newest_leaf(state.messages, each.version) for each in on_branches(state)},
    }


async def loaded(store: MemoryStore) -> SessionState:
    record, outline = await store.session("c"), await store.outline("c")
    assert record is not None
    return SessionState(record, outline.messages, outline.runs, outline.decisions, outline.annotations)


async def grow(wishes: list[tuple[str, int]]) -> None:
    store, reading = MemoryStore(), LogTree()
    await store.open()
    state = SessionState(SessionRecord("c", "abcd1234", "ann", 0, 0, 0))
    for number, (wish, dice) in enumerate(wishes, 1):
        events = events_of(wish, dice, number, state)
        if not events:
            continue
        contents = {event.message: (SAID, None) for event in events if isinstance(event, RunEnded)}
        change = change_by(state, events, contents)
        state.absorb(change)
        await store.commit(
            Batch(
                number,
                sessions=(change.record,),
                messages=tuple(change.messages.values()),
                runs=tuple(change.runs.values()),
            )
        )
        for event in events:
            reading.take(to_plain(event))
    assert state.record.leaf == reading.leaf
    assert state.record.leaf is None or not state.messages[state.record.leaf].deleted
    known = tree(state)
    assert known["path"] == reading.path()
    assert known["beside"] == {version: reading.beside(version) for version in known["path"]}
    assert known["leaves"] == {each.version: reading.newest_under(each.version) for each in on_branches(state)}
    if wishes and state.messages:
        assert tree(await loaded(store)) == known


@given(WISHES)
def test_everybody_agrees_about_the_tree(wishes: list[tuple[str, int]]) -> None:
    asyncio.run(grow(wishes))
