"""What every store promises about messages that are deleted or replaced (stores/port.py). One suite, each
implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import annotation, decision, message, reopen, run, segment, session

from strandline.codecs import native
from strandline.core.erasing import Erasure, TakenBack, without
from strandline.core.events import (
    Annotated,
    Appended,
    DecisionMade,
    DecisionRequested,
    Erased,
    Event,
    MessageCreated,
    MessageReplaced,
    RunQueued,
    RunStarted,
    SessionChanged,
    Steered,
)
from strandline.core.plain import to_plain
from strandline.stores import Store
from strandline.stores.port import Batch, Entry, Segment

EVER = 2**62
SECRET = "the word is tamarind"
SAID = ({"type": "text", "text": SECRET},)


@pytest.fixture
def store(any_store: Store) -> Store:
    return any_store


def appended(run: str, message: str) -> Appended:
    return Appended(1, run, message, ({"type": "text-delta", "id": "t", "delta": SECRET},))


LOG: list[Event] = [
    MessageCreated(1, "user:ann", "v1", "m-v1", None, "user", SAID),
    SessionChanged(1, "user:ann", SECRET, True),
    RunQueued(1, "user:ann", "r1", "v-r1", "m-r1", "v1", "reply", body={"said": SECRET}),
    RunStarted(1, "r1", "v-r1", "m-r1"),
    appended("r1", "v-r1"),
    Steered(1, "user:ann", "r1", "s1", SAID),
    DecisionRequested(1, "r1", "v-r1", "m-r1", "d1", "approval", "call", "delete", {"path": SECRET}),
    DecisionMade(1, "user:ann", "d1", "r1", "v-r1", "m-r1", "output", ({"type": "x", "output": SECRET},)),
    Annotated(1, "user:ann", "a1", "v-r1", "m-r1", "note", SECRET),
    MessageCreated(1, "user:ann", "v2", "m-v2", "v-r1", "user", ({"type": "text", "text": "kept"},)),
    appended("r2", "v-r2"),
]
OF_THE_REPLY = {3: "run-queued", 5: "erased", 6: "erased", 7: "erased", 8: "erased", 9: "erased"}
"""What becomes of events when the reply is deleted, by number."""
OF_THE_QUESTION = {1: "erased", 2: "session-changed", 3: "run-queued"}
"""The same for the user message."""


def erasure(version: str = "v-r1", **changes: object) -> Erasure:
    wrote = ("r1",) if version == "v-r1" else ()
    near = () if wrote else ("r1",)
    what = Erasure("s1", version, version.replace("v-", "m-") if wrote else "m-v1", wrote, near, 100, True)
    return replace(what, **changes)  # type: ignore[arg-type]


def lines(events: list[Event] = LOG) -> list[bytes]:
    return [native.encode(event) for event in events]


def begun(*, segmented: int = 0) -> Batch:
    """One session whose first ``segmented`` events are in segments, and one that says the same."""
    pieces: dict[str | None, list[tuple[int, bytes]]] = {}
    for seq, (event, line) in enumerate(zip(LOG, lines(), strict=True), 1):
        if seq <= segmented:
            pieces.setdefault(getattr(event, "run", None), []).append((seq, line))
    return Batch(
        1,
        entries=(Entry("s1", 1, tuple(lines())), Entry("s2", 1, tuple(lines()))),
        sessions=(session(last_seq=len(LOG)), session("s2", last_seq=len(LOG))),
        messages=(message("v1"), message("v-r1", role="assistant"), message("v9", session="s2")),
        runs=(run(body={"said": SECRET}), run("r2", session="s2", body={"said": SECRET})),
        segments=tuple(Segment("s1", of, 1, tuple(piece)) for of, piece in pieces.items()),
        decisions=(decision(), decision(session="s2")),
        annotations=(annotation(message="v-r1"), annotation("a2"), annotation(session="s2", message="v-r1")),
    )


def gone(version: str = "v-r1") -> tuple[object, ...]:
    return (message(version, parts=(), deleted=True),)


async def kinds(store: Store, id: str = "s1") -> list[str]:
    assert [seq for seq, _ in await store.events(id, 0, EVER)] == list(range(1, len(LOG) + 1))
    return [to_plain(native.decode(line))["type"] for _, line in await store.events(id, 0, EVER)]


def expected(changed: dict[int, str]) -> list[str]:
    return [changed.get(seq, to_plain(event)["type"]) for seq, event in enumerate(LOG, 1)]


@pytest.mark.parametrize("segmented", [0, 5, len(LOG)])
@pytest.mark.parametrize("version", ["v-r1", "v1"])
async def test_nothing_of_a_deleted_message_is_read_again(store: Store, segmented: int, version: str) -> None:
    what = erasure(version, title=SECRET)
    changed = OF_THE_REPLY | {2: "session-changed"} if version == "v-r1" else OF_THE_QUESTION
    await store.commit(begun(segmented=segmented))
    await store.commit(Batch(2, messages=gone(version), erased=(what,)))  # type: ignore[arg-type]
    for _ in range(2):
        await reopen(store)
        assert await kinds(store) == expected(changed)
        for seq, line in await store.events("s1", 0, EVER):
            plain = to_plain(native.decode(line))
            if seq in changed:
                assert SECRET.encode() not in line
                assert "body" not in plain
                assert plain.get("title") is None
            else:
                assert line == lines()[seq - 1]
    assert await kinds(store, "s2") == expected({})


async def test_segments_of_the_same_commit_go_too(store: Store) -> None:
    """What was published just before is written into a segment by the very commit that deletes."""
    await store.commit(replace(begun(), segments=()))
    pieces = begun(segmented=len(LOG)).segments
    await store.commit(Batch(2, messages=gone(), segments=pieces, trim=1, erased=(erasure(),)))  # type: ignore[arg-type]
    assert await kinds(store) == expected(OF_THE_REPLY)


async def test_what_is_said_later_stays(store: Store) -> None:
    await store.commit(begun(segmented=len(LOG)))
    again = MessageReplaced(2, "user:ann", "v1", "m-v1", ({"type": "text", "text": "now this"},))
    number = len(LOG) + 1
    entry = Entry("s1", number, (native.encode(again),))
    what = erasure("v1", before=number, deleted=False)
    await store.commit(Batch(2, entries=(entry,), messages=(message("v1", parts=again.parts),), erased=(what,)))
    await reopen(store)
    found = dict(await store.events("s1", 0, EVER))
    assert native.decode(found[number]) == again
    assert native.decode(found[1]) == Erased(1)
    assert native.decode(found[3]) == LOG[2], "what was sent along stays with a message that only changed"


async def test_rows_of_a_deleted_message_go_and_those_of_others_stay(store: Store) -> None:
    await store.commit(begun())
    await store.commit(Batch(2, messages=gone(), erased=(erasure(),)))  # type: ignore[arg-type]
    outline = await store.outline("s1")
    assert outline.decisions == ()
    assert [each.id for each in outline.annotations] == ["a2"]
    assert [each.body for each in outline.runs] == [None]
    assert [each.parts for each in await store.messages("s1", ["v1", "v-r1"])] == [message("v1").parts, ()]
    other = await store.outline("s2")
    assert (len(other.decisions), len(other.annotations)) == (1, 1)
    assert [each.body for each in other.runs] == [{"said": SECRET}]


async def test_a_replaced_message_keeps_what_others_said_of_it(store: Store) -> None:
    await store.commit(begun(segmented=len(LOG)))
    await store.commit(Batch(2, erased=(erasure(deleted=False),)))
    outline = await store.outline("s1")
    assert outline.decisions == ()
    assert [each.id for each in outline.annotations] == ["a1", "a2"]
    assert await kinds(store) == expected({5: "erased", 6: "erased", 7: "erased", 8: "erased"})


@pytest.mark.parametrize("segmented", [0, 8, len(LOG) + 3])
async def test_what_was_taken_back_is_not_read_again(store: Store, segmented: int) -> None:
    both, rest = {"count": 2, "names": {SECRET: 1, "b": 1}}, {"count": 1, "names": {"b": 1}}
    place = {"part": 0, "start": 0, "end": 3}
    more = [
        # Of one that was taken back after the secret had come: that is what was left then.
        Annotated(1, "user:ann", "a2", "v-r1", "m-r1", "mark", both),
        Annotated(2, "user:ann", "a3", "v-r1", "m-r1", "mark", {"count": 1}, data={"name": SECRET}, range=place),
        Annotated(3, "user:bob", "a4", "v-r1", "m-r1", "mark", both, data={"name": "b"}),
        Annotated(3, "user:bob", "a5", "v1", "m-v1", "mark", both, data={"name": "b"}),
    ]
    log = [*LOG, *more]
    pieces: dict[str | None, list[tuple[int, bytes]]] = {}
    for seq, event in enumerate(log[:segmented], 1):
        pieces.setdefault(getattr(event, "run", None), []).append((seq, native.encode(event)))
    segments = tuple(Segment("s1", of, 3 if len(piece) > 3 else 2, tuple(piece)) for of, piece in pieces.items())
    entries = tuple(Entry(of, 1, tuple(lines(log))) for of in ("s1", "s2"))
    rows = (session(last_seq=len(log)), session("s2", last_seq=len(log)))
    await store.commit(Batch(1, entries=entries, sessions=rows, segments=segments))
    what = TakenBack("s1", "v-r1", "a3", "mark", rest, len(log) + 1)
    await store.commit(Batch(2, erased=(what,)))
    for _ in range(2):
        await reopen(store)
        found = [native.decode(line) for _, line in await store.events("s1", 0, EVER)]
        unsaid = replace(more[1], data=None, range=None, summary=rest)
        assert found == [*LOG, replace(more[0], summary=rest), unsaid, replace(more[2], summary=rest), more[3]]
        assert [native.decode(line) for _, line in await store.events("s2", 0, EVER)] == log


async def test_a_session_that_has_the_same_id_later_is_not_touched(store: Store) -> None:
    await store.commit(begun())
    await store.commit(Batch(2, messages=gone(), erased=(erasure(),)))  # type: ignore[arg-type]
    await store.commit(Batch(3, deleted=("s1",)))
    again = Entry("s1", 1, tuple(lines()))
    await store.commit(Batch(4, entries=(again,), sessions=(session(last_seq=len(LOG)),)))
    await reopen(store)
    assert await kinds(store) == expected({})


async def test_a_segment_that_is_no_log_does_not_keep_the_commit(store: Store) -> None:
    await store.commit(Batch(1, sessions=(session(),), segments=(segment("s1", [1, 2]),)))
    await store.commit(Batch(2, erased=(erasure(),)))
    assert len(await store.events("s1", 0, EVER)) == 2


def test_what_is_no_event_of_the_message_stays_as_it_is() -> None:
    for seq, event in enumerate(LOG, 1):
        left = without(to_plain(event), seq, erasure())
        assert (left is not None) == (seq in OF_THE_REPLY), event
        assert without(to_plain(event), seq, erasure(before=seq)) is None
