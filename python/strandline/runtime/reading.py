"""What one attached reader of a run is sent on the AI SDK wire, as bytes (PROTOCOL §3, §4, §6), and how events are
gathered for a reader of any wire.

A reader is a position. Each turn it takes everything that is due, joined into one piece, and waits for more. Readers
never touch an agent, write nothing and own nothing that would need cleaning up but their place in the list.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from strandline.codecs import ai_sdk, native
from strandline.codecs.sse import DONE, OPENING
from strandline.core.decisions import told
from strandline.core.events import Event, RunEnded
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.core.replay import Own, Tail, Whole
from strandline.core.session import Content
from strandline.core.unfold import revive, unfold, unfold_message
from strandline.runtime.feed import Entry, Feed, Frames
from strandline.runtime.live import LiveSession, SessionGone
from strandline.runtime.live_run import LiveRun
from strandline.runtime.readers import Reader
from strandline.runtime.stopping import DELETED
from strandline.stores.port import Store

PIECE = 262_144
"""Bytes that are gathered for one write, about."""
PAGE = 512
"""Events that are read from the log at once: a reader with an old cursor must not keep the others waiting."""

_UNAVAILABLE = ai_sdk.error_frame("store-unavailable", "The reply cannot be stored just now. It can be resumed later.")
_CLOSED = ai_sdk.error_frame("shutting-down", "The server is restarting. The reply can be resumed.")
_REPLACED = ai_sdk.error_frame("replaced", "A newer connection of the same reader has taken the place of this one.")

Settled = Literal["sent", "resync"]

Due = tuple[int, Event, Frames]
"""The number of an event, the event, and its frames."""

Encode = Callable[[str, int, Event], Frames]


async def ai_sdk_stream(
    session: LiveSession,
    store: Store,
    plan: Tail | Whole | Own,
    reader: Reader,
    *,
    major: int,
    shim: bool,
    settle: Callable[[Settled], None],
) -> AsyncGenerator[bytes]:
    """One run on the AI SDK wire, from ``plan`` to its terminal frame. ``settle`` is told when all of it was sent, or
    that the reader was told to read it anew."""
    feed, epoch = session.feed, session.state.record.epoch
    if isinstance(plan, Tail):
        cursor = plan.cursor
        yield OPENING
    elif isinstance(plan, Own):
        # The run has started with the event after the one that queued it, in the same commit.
        cursor = Cursor(epoch, session.state.runs[plan.run].first_seq + 1, 1)
        yield OPENING
        try:
            begun = await _begun(session, store, plan.run)
        except SessionGone:
            yield ai_sdk.RESYNC_FRAME
            return
        reader.hand(cursor)
        yield ai_sdk.snapshot(major, begun, cursor)
        reader.handed()
    elif (live := session.live.get(plan.run)) is not None:
        # Folded at the last published event, and the cursor set there, with no await in between (DESIGN §14.4).
        cursor = live.position
        reader.hand(cursor if cursor.frame else None)
        yield OPENING + (_snapshot(live, major) if cursor.frame else b"")
        reader.handed()
    else:
        yield OPENING
        try:
            whole = await _finished(session, store, plan.run, major)
        except (SessionGone, MessageGone):
            yield ai_sdk.RESYNC_FRAME
            return
        reader.hand(Cursor(epoch, session.state.runs[plan.run].last_seq or 1, 1))
        yield whole
        reader.handed()
        settle("sent")
        return

    encode = partial(ai_sdk.frames, major)
    codec, position, skip = f"ai{major}", cursor.seq, cursor.frame
    while True:
        erasures = feed.erasures
        if position == feed.fresh_seq and not skip:
            # Who follows live is sent the newest publication, which is joined once for all of them.
            turn = feed.joined.get((codec, plan.run))
            if turn is None:
                fresh = feed.fresh(plan.run)
                due_now = [(entry.seq, entry.event, encode(epoch, entry.seq, entry.event)) for entry in fresh]
                turn = feed.joined[codec, plan.run] = _turn(epoch, due_now, feed.last_seq)
        else:
            try:
                events, upto = await due(session, store, position, plan.run, codec, encode)
            except SessionGone:
                yield ai_sdk.RESYNC_FRAME
                return
            erasures = feed.erasures
            turn = _turn(epoch, events, upto, position, skip)
        for piece in turn.pieces:
            if feed.erasures != erasures:
                # What was gathered may say what was deleted while the piece before was sent.
                settle("resync")
                yield ai_sdk.RESYNC_FRAME
                return
            if piece.then == "resync":
                settle("resync")
            reader.hand(piece.cursor)
            yield piece.data
            reader.handed()
            if piece.then == "ended":
                settle("sent")
            if piece.then != "more":
                return
        if turn.upto >= position:
            position, skip = turn.upto + 1, 0
        if position <= feed.last_seq and not reader.replaced:
            continue
        ended_at = session.state.runs[plan.run].last_seq
        if ended_at is not None and position > ended_at:
            # Its end was not among what was read: the log has expired under a reader that took its time.
            settle("resync")
            yield ai_sdk.RESYNC_FRAME
            return
        if feed.failure is not None:
            yield _UNAVAILABLE
            return
        if reader.replaced or feed.closed:
            if not shim:
                yield _REPLACED if reader.replaced else _CLOSED
            return
        if shim and feed.time >= reader.ends_at:
            return
        await feed.wait(position, until=reader.ends_at if shim else math.inf)


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent in one write. ``cursor``: the place after it, None where it has no id. ``then``: whether more can
    follow, the run has ended, or the reader has to begin again."""

    data: bytes
    cursor: Cursor | None
    then: Literal["more", "ended", "resync"] = "more"


@dataclass(frozen=True, slots=True)
class Turn:
    """What is due for a reader, up to event number ``upto``."""

    pieces: tuple[Piece, ...]
    upto: int


def _turn(epoch: str, events: Sequence[Due], upto: int, first: int = 0, skip: int = 0) -> Turn:
    """Events as pieces; of event number ``first`` the reader has seen ``skip`` frames."""
    pieces: list[Piece] = []
    joined = bytearray()
    cursor: Cursor | None = None
    for seq, event, frames in events:
        for data in frames[skip if seq == first else 0 :]:
            joined += data
            if data is ai_sdk.RESYNC_FRAME:
                return Turn((*pieces, Piece(bytes(joined), cursor, "resync")), upto)
        if frames:
            cursor = Cursor(epoch, seq, len(frames))
        if isinstance(event, RunEnded):
            return Turn((*pieces, Piece(bytes(joined) + DONE, cursor, "ended")), upto)
        if len(joined) >= PIECE:
            pieces.append(Piece(bytes(joined), cursor))
            joined.clear()
    if joined:
        pieces.append(Piece(bytes(joined), cursor))
    return Turn(tuple(pieces), upto)


async def _begun(session: LiveSession, store: Store, run_id: str) -> list[dict[str, Any]]:
    """What a continuation begins with: what was decided is not among its events. Raises SessionGone."""
    run, live = session.state.runs[run_id], session.live.get(run_id)
    decided = [each for each in session.state.decisions.values() if each.run == run.parent_run]
    if live is not None:
        fold = live.fold
    else:
        found = await store.messages(session.id, [run.message])
        if session.feed.deleted or not found:
            raise SessionGone(session.id)
        fold = revive(run.message_id, found[0].parts or (), found[0].metadata)
    chunks: list[dict[str, Any]] = [{"type": "start", "messageId": run.message_id}]
    return chunks + [chunk for each in decided for chunk in told(each, fold)]


def _snapshot(live: LiveRun, major: int) -> bytes:
    return live.snapshot(f"ai{major}", lambda fold: ai_sdk.snapshot(major, unfold(fold), live.position))


async def continues(session: LiveSession, store: Store, plan: Tail, major: int) -> bool:
    """False when something after the cursor cannot be told on an open stream: the message was started over, or is
    gone."""
    first = plan.cursor.seq
    while first <= session.feed.last_seq:
        try:
            events, upto = await due(session, store, first, plan.run, f"ai{major}", partial(ai_sdk.frames, major))
        except SessionGone:
            return False
        for seq, _, frames in events:
            unseen = frames[plan.cursor.frame if seq == plan.cursor.seq else 0 :]
            if any(data is ai_sdk.RESYNC_FRAME for data in unseen):
                return False
        first = upto + 1
    return True


async def _finished(session: LiveSession, store: Store, run_id: str, major: int) -> bytes:
    """A run that is over, whole: its message as history has it, then its terminal frame. Raises SessionGone or
    MessageGone."""
    run = session.state.runs[run_id]
    parts, metadata = await stored_content(session, store, run)
    chunks = unfold_message(run.message_id, parts, metadata)
    terminal = ai_sdk.terminal_of(major, run, session.state.record.epoch)
    return ai_sdk.snapshot(major, chunks, None) + terminal + DONE


async def stored_content(session: LiveSession, store: Store, run: RunRecord) -> Content:
    """What the message of a run that is over says. Raises SessionGone or MessageGone where it went meanwhile, with its
    session or by itself: it did not end with an empty message. Of a run that was stopped by that, the end is all that
    is left (PROTOCOL §8.4, §16.5)."""
    while True:
        erasures = session.feed.erasures
        found = await store.messages(session.id, [run.message])
        if session.feed.deleted and run.reason != DELETED:
            raise SessionGone(session.id)
        if erasures == session.feed.erasures:
            break
    if run.reason != DELETED and any(message.deleted for message in found):
        raise MessageGone(run.message)
    return (found[0].parts or (), found[0].metadata) if found else ((), None)


async def due(
    session: LiveSession, store: Store, first: int, run: str | None, codec: str, encode: Encode
) -> tuple[list[Due], int]:
    """Published events from number ``first`` on (of one run, or all), with their frames, and the number up to which
    nothing was left out. Cold ones come from the log first; the tail is a slice, taken without an await.

    Raises SessionGone when cold ones are due of a session that was deleted."""
    epoch, feed = session.state.record.epoch, session.feed
    if first < feed.first_seq and first <= feed.last_seq:
        upto = min(feed.first_seq, first + PAGE) - 1
        cold, size, erasures = [], PIECE, feed.erasures
        lines = await store.events(session.id, first, upto, run)
        if feed.deleted:
            # What the log has under this id may be somebody else's by now.
            raise SessionGone(session.id)
        for seq, line in lines:
            size += len(line)
            if size >= PIECE:
                # Events may be large, and others wait for their turn meanwhile.
                size = 0
                await asyncio.sleep(0)
            event = native.decode(line)
            cold.append((seq, event, encode(epoch, seq, event)))
        if feed.erasures != erasures:
            # What was read may have been deleted meanwhile.
            return await due(session, store, first, run, codec, encode)
        return cold, upto
    warm = [entry for entry in feed.since(first) if run is None or entry.run == run]
    return [(entry.seq, entry.event, _kept(feed, entry, codec, epoch, encode)) for entry in warm], feed.last_seq


def _kept(feed: Feed, entry: Entry, codec: str, epoch: str, encode: Encode) -> Frames:
    frames = feed.frames(codec, entry.seq)
    return feed.keep(codec, entry.seq, encode(epoch, entry.seq, entry.event)) if frames is None else frames


class MessageGone(Exception):
    """The message of a run was deleted. Never shown to anybody."""


async def event_at(session: LiveSession, store: Store, seq: int) -> Event | None:
    """Event number ``seq``, or None when it is no longer in the log."""
    if seq >= session.feed.first_seq:
        entries = session.feed.since(seq)
        return entries[0].event if entries else None
    found = await store.events(session.id, seq, seq)
    return native.decode(found[0][1]) if found else None
