"""What one attached reader is sent, as bytes (PROTOCOL §3, §4, §8.3).

A reader is a position. Each turn it takes everything that is due, joined into one piece, and waits for more. Readers
never touch an agent, write nothing and own nothing that would need cleaning up but their place in the list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from strandline.codecs import ai_sdk, native
from strandline.codecs.sse import DONE, OPENING, frame
from strandline.core.events import Event, RunEnded
from strandline.core.offset import Cursor
from strandline.core.replay import Tail, Whole
from strandline.core.unfold import unfold, unfold_message
from strandline.runtime.feed import Entry
from strandline.runtime.live import LiveSession
from strandline.stores.port import Store

PIECE = 262_144
"""Bytes that are gathered for one write, about."""
PAGE = 512
"""Events that are read from the log at once: a reader with an old cursor must not keep the others waiting."""

Settled = Literal["sent", "resync"]

Encode = Callable[[str, int, Event], tuple[bytes, ...]]


@dataclass(slots=True)
class Reader:
    """One attached connection, as ``readers`` frames show it."""

    id: str
    user: str
    device: str | None
    wire: str
    since: int
    run: str | None = None
    cursor: str | None = None
    client: str | None = field(default=None)

    def plain(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@contextmanager
def attached(session: LiveSession, reader: Reader) -> Any:
    """Be in the session's list of readers."""
    session.readers[reader.id] = reader
    session.feed.notify()
    try:
        yield
    finally:
        session.readers.pop(reader.id, None)
        session.feed.notify()


async def ai_sdk_stream(
    session: LiveSession,
    store: Store,
    plan: Tail | Whole,
    reader: Reader,
    *,
    major: int,
    shim: bool,
    settle: Callable[[Settled], None],
) -> AsyncGenerator[bytes]:
    """One run on the AI SDK wire, from ``plan`` to its terminal frame. ``settle`` is told when all of it was sent, or
    that the reader was told to read it anew."""
    reader.run = plan.run
    with attached(session, reader):
        epoch = session.state.record.epoch
        if isinstance(plan, Tail):
            cursor = plan.cursor
            yield OPENING
        elif (live := session.live.get(plan.run)) is not None:
            # Folded at the last published event, and the cursor set there, with no await in between (DESIGN §14.4).
            cursor = live.position
            yield OPENING + (ai_sdk.snapshot(major, unfold(live.fold), cursor) if cursor.frame else b"")
        else:
            yield OPENING
            yield await _finished(session, store, plan.run, major)
            settle("sent")
            return
        cut = ai_sdk.error_frame("store-unavailable", "The reply cannot be stored just now. It can be resumed later.")

        def encode(epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
            return ai_sdk.frames(major, epoch, seq, event)

        position, skip = cursor.seq, cursor.frame
        while True:
            events, upto = await _due(session, store, position, plan.run, f"ai{major}", encode)
            joined = bytearray()
            for seq, event, frames in events:
                for data in frames[skip if seq == position else 0 :]:
                    joined += data
                    if data is ai_sdk.RESYNC_FRAME:
                        settle("resync")
                        yield bytes(joined)
                        return
                if isinstance(event, RunEnded):
                    yield bytes(joined) + DONE
                    settle("sent")
                    return
                if frames:
                    reader.cursor = str(Cursor(epoch, seq, len(frames)))
                if len(joined) >= PIECE:
                    yield bytes(joined)
                    joined.clear()
            if joined:
                yield bytes(joined)
            if upto >= position:
                position, skip = upto + 1, 0
            if position <= session.feed.last_seq:
                continue
            ended_at = session.state.runs[plan.run].last_seq
            if ended_at is not None and position > ended_at:
                # Its end was not among what was read: the log has expired under a reader that took its time.
                settle("resync")
                yield ai_sdk.RESYNC_FRAME
                return
            if session.feed.failure is not None:
                yield cut
                return
            if session.feed.closed:
                if not shim:
                    yield ai_sdk.error_frame("shutting-down", "The server is restarting. The reply can be resumed.")
                return
            await session.feed.wait(position)


async def continues(session: LiveSession, store: Store, plan: Tail, major: int) -> bool:
    """False when something after the cursor cannot be told on an open stream: the message was started over."""

    def encode(epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
        return ai_sdk.frames(major, epoch, seq, event)

    first = plan.cursor.seq
    while first <= session.feed.last_seq:
        events, upto = await _due(session, store, first, plan.run, f"ai{major}", encode)
        for seq, _, frames in events:
            unseen = frames[plan.cursor.frame if seq == plan.cursor.seq else 0 :]
            if any(data is ai_sdk.RESYNC_FRAME for data in unseen):
                return False
        first = upto + 1
    return True


async def _finished(session: LiveSession, store: Store, run_id: str, major: int) -> bytes:
    """A run that is over, whole: its message as history has it, then its terminal frame."""
    run = session.state.runs[run_id]
    found = await store.messages(session.id, [run.message])
    parts, metadata = (found[0].parts or (), found[0].metadata) if found else ((), None)
    chunks = unfold_message(run.message_id, parts, metadata)
    terminal = ai_sdk.terminal_of(major, run, session.state.record.epoch)
    return ai_sdk.snapshot(major, chunks, None) + terminal + DONE


async def _due(
    session: LiveSession, store: Store, first: int, run: str | None, codec: str, encode: Encode
) -> tuple[list[tuple[int, Event, tuple[bytes, ...]]], int]:
    """Published events from number ``first`` on (of one run, or all), with their frames, and the number up to which
    nothing was left out. Cold ones come from the log first; the tail is a slice, taken without an await."""
    epoch, feed = session.state.record.epoch, session.feed
    if first < feed.first_seq and first <= feed.last_seq:
        upto = min(feed.first_seq, first + PAGE) - 1
        cold, size = [], PIECE
        for seq, line in await store.events(session.id, first, upto, run):
            size += len(line)
            if size >= PIECE:
                # Events may be large, and others wait for their turn meanwhile.
                size = 0
                await asyncio.sleep(0)
            event = native.decode(line)
            cold.append((seq, event, encode(epoch, seq, event)))
        return cold, upto
    warm = [entry for entry in feed.since(first) if run is None or entry.run == run]
    return [(entry.seq, entry.event, _cached(entry, codec, epoch, encode)) for entry in warm], feed.last_seq


def _cached(entry: Entry, codec: str, epoch: str, encode: Encode) -> tuple[bytes, ...]:
    frames = entry.frames.get(codec)
    if frames is None:
        frames = entry.frames[codec] = encode(epoch, entry.seq, entry.event)
    return frames


async def native_stream(
    session: LiveSession, store: Store, cursor: Cursor | None, snapshot: Callable[[], Any], reader: Reader
) -> AsyncGenerator[bytes]:
    """Everything that happens in a session: a snapshot (unless there is a cursor), then every event, then live."""
    with attached(session, reader):
        epoch = session.state.record.epoch
        if cursor is None:
            data, cursor = await snapshot()
            reader.cursor = str(cursor)
            yield OPENING + frame({"type": "snapshot", **data}, reader.cursor)
        else:
            reader.cursor = str(cursor)
            event = await event_at(session, store, cursor.seq)
            left = native.rest(epoch, cursor.seq, event, cursor.frame) if event is not None else ()
            yield OPENING + b"".join(left)
        seq, notices = cursor.seq, -1
        while True:
            events, upto = await _due(session, store, seq + 1, None, "native", native.frames)
            if len(events) < upto - seq:
                # Retention has taken some of them: there is no going on from here, only beginning again.
                data, cursor = await snapshot()
                reader.cursor, seq = str(cursor), cursor.seq
                yield frame({"type": "snapshot", **data}, reader.cursor)
                continue
            joined = bytearray().join(data for _, _, frames in events for data in frames)
            seq = max(seq, upto)
            if seq < session.feed.last_seq:
                if joined:
                    yield bytes(joined)
                continue
            if notices != session.feed.notices:
                notices = session.feed.notices
                joined += frame({"type": "readers", "readers": [each.plain() for each in session.readers.values()]})
            if joined:
                # Nothing was awaited since `upto` was taken, so the end of the tail is where this reader is.
                reader.cursor = str(session.feed.cursor(epoch))
                yield bytes(joined)
            if session.feed.failure is not None:
                yield ai_sdk.error_frame(session.feed.failure, "Nothing can be stored just now. Come back in a moment.")
                return
            if session.feed.closed:
                return
            await session.feed.wait(seq + 1, notices)


async def event_at(session: LiveSession, store: Store, seq: int) -> Event | None:
    """Event number ``seq``, or None when it is no longer in the log."""
    if seq >= session.feed.first_seq:
        entries = session.feed.since(seq)
        return entries[0].event if entries else None
    found = await store.events(session.id, seq, seq)
    return native.decode(found[0][1]) if found else None
