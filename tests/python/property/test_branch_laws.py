"""Random trees: the live state, the state that a restart loads, and the log as somebody reads it who knows nothing of
how either is kept agree about the path, what stands beside each message, and where one arrives by going to it."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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


class Reading:
    """The log, read naively: a list of messages, and the names of those that were deleted."""

    def __init__(self) -> None:
        self.order: list[tuple[str, str | None, str, bool]] = []
        self.gone: set[str] = set()
        self.leaf: str | None = None

    def take(self, event: Event) -> None:
        match event:
            case MessageCreated():
                self.order.append((event.message, event.parent, event.role, False))
                self.leaf = event.message
            case RunQueued():
                self.order.append((event.message, event.parent, "assistant", bool(event.spawned)))
                self.leaf = self.leaf if event.spawned else event.message
            case BranchSelected():
                self.leaf = event.leaf
            case MessageDeleted():
                self.gone.add(event.message)
                while self.leaf == event.message:
                    self.leaf = self.after_deleting(event.message)
            case _:
                pass

    def parent(self, version: str) -> str | None:
        return next(parent for each, parent, _, _ in self.order if each == version)

    def path(self, leaf: str | None) -> list[str]:
        if leaf is None:
            return []
        return [*self.path(self.parent(leaf)), *([] if leaf in self.gone else [leaf])]

    def ancestors(self, version: str) -> list[str]:
        parent = self.parent(version)
        return [] if parent is None else [parent, *self.ancestors(parent)]

    def shown(self) -> list[str]:
        return [version for version, _, _, spawned in self.order if not spawned and version not in self.gone]

    def under(self, version: str) -> list[str]:
        return [each for each in self.shown() if version in (each, *self.ancestors(each))]

    def after_deleting(self, version: str) -> str | None:
        for above in self.ancestors(version):
            if self.under(above):
                return self.under(above)[-1]
        return self.shown()[-1] if self.shown() else None

    def beside(self, version: str) -> list[str]:
        kind = {each: (parent, role) for each, parent, role, _ in self.order}
        return [each for each in self.shown() if kind[each] == kind[version]]


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
    store, reading = MemoryStore(), Reading()
    await store.open()
    state = SessionState(SessionRecord("c", "abcd1234", "ann", 0, 0, 0))
    for number, (wish, dice) in enumerate(wishes, 1):
        events = events_of(wish, dice, number, state)
        if not events:
            continue
        contents = {event.message: (SAID, None) for event in events if isinstance(event, RunEnded)}
        change = state.project(events, contents)
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
            reading.take(event)
    assert state.record.leaf == reading.leaf
    assert state.record.leaf is None or not state.messages[state.record.leaf].deleted
    known = tree(state)
    assert known["path"] == reading.path(reading.leaf)
    assert known["beside"] == {version: reading.beside(version) for version in known["path"]}
    assert known["leaves"] == {
        each.version: next(reversed(reading.under(each.version)), None) for each in on_branches(state)
    }
    if wishes and state.messages:
        assert tree(await loaded(store)) == known


@given(WISHES)
def test_everybody_agrees_about_the_tree(wishes: list[tuple[str, int]]) -> None:
    asyncio.run(grow(wishes))
