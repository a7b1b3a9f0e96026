"""What one reader of a session's feed is sent (PROTOCOL §8.8-8.11): a snapshot, then every event, then live."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from strandline.codecs import ai_sdk, native
from strandline.codecs.filters import Filter
from strandline.codecs.sse import OPENING, RETRY, frame
from strandline.core.events import Event
from strandline.core.offset import Cursor
from strandline.runtime.live import LiveSession, SessionGone
from strandline.runtime.readers import Reader
from strandline.runtime.reading import PIECE, Due, due
from strandline.stores.port import Store

TICK = 0.5
"""Seconds between two ticks of a feed (``janitor.py``)."""

_DELETED = frame({"type": "session-deleted"})
_REPLACED = frame({"type": "replaced"})

Snapshot = Callable[[], Awaitable[tuple[dict[str, Any], Cursor]]]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Events joined: what of them is told and the last one that is, and the last one that was left out after that."""

    data: bytes
    told: tuple[int, Event] | None
    passed: tuple[int, Event] | None


def _pieces(epoch: str, events: Sequence[Due], wanted: Filter, first: int, skip: int) -> list[_Piece]:
    """Events as pieces of about PIECE bytes; of event number ``first`` the reader has seen ``skip`` chunks."""
    pieces: list[_Piece] = []
    joined = bytearray()
    told: tuple[int, Event] | None = None
    passed: tuple[int, Event] | None = None
    for seq, event, frames in events:
        if skip and seq == first:
            frames = native.filtered(epoch, seq, event, wanted, skip)
        if not frames or not wanted.wants(event):
            passed = (seq, event)
            continue
        if len(joined) >= PIECE:
            pieces.append(_Piece(bytes(joined), told, passed))
            joined.clear()
        joined += b"".join(frames)
        told, passed = (seq, event), None
    return [*pieces, _Piece(bytes(joined), told, passed)]


async def session_stream(
    session: LiveSession,
    store: Store,
    cursor: Cursor | None,
    snapshot: Snapshot,
    reader: Reader,
    wanted: Filter,
    heartbeat: float,
) -> AsyncGenerator[bytes]:
    """Everything that happens in a session, as ``wanted``: what follows ``cursor``, or a snapshot first.

    ``heartbeat``: seconds after which the position is told at the latest where something was left out, but at most
    every ``TICK``.
    """
    feed, epoch = session.feed, session.state.record.epoch
    encode = native.frames if wanted.changes_nothing else partial(native.filtered, wanted=wanted)
    first = OPENING + RETRY
    notices = -1
    patience = max(heartbeat - TICK, TICK)
    # The last event that was told; the last one that was left out since, whose place is to be told at `tell_at`.
    told: tuple[int, Event] | None = None
    passed: tuple[int, Event] | None = None
    tell_at = 0.0
    fresh = cursor is None
    position, skip = (cursor.seq, cursor.frame) if cursor is not None else (0, 0)
    if cursor == feed.cursor(epoch):
        # Up to date: that goes on also when the log no longer has the last event.
        position, skip = position + 1, 0
    while True:
        if fresh:
            try:
                data, at = await snapshot()
            except SessionGone:
                yield first + _DELETED
                return
            reader.hand(at)
            yield first + frame({"type": "snapshot", **data}, str(at))
            reader.handed()
            first, fresh, told, passed = b"", False, None, None
            position, skip = at.seq + 1, 0
        elif first:
            yield first
            first = b""
        live = position == feed.fresh_seq and not skip
        pieces: Sequence[_Piece] | None = feed.joined.get((wanted.key, wanted.runs)) if live else None
        upto = feed.last_seq
        if pieces is None:
            try:
                events, upto = await due(session, store, position, None, wanted.key, encode)
            except SessionGone:
                yield _DELETED
                return
            if len(events) <= upto - position:
                # Retention has taken some of them: there is no going on from here, only beginning again.
                fresh = True
                continue
            pieces = _pieces(epoch, events, wanted, position, skip)
            if live:
                feed.joined[wanted.key, wanted.runs] = pieces
        joined = bytearray()
        erasures = feed.erasures
        for piece in pieces:
            if feed.erasures != erasures:
                # What was gathered may say what was deleted while the piece before was sent.
                fresh = True
                break
            if len(joined) >= PIECE and told is not None:
                reader.hand(native.end(epoch, *told))
                yield bytes(joined)
                reader.handed()
                joined.clear()
            if piece.data:
                joined += piece.data
                told, passed = piece.told, None
            if piece.passed is not None:
                tell_at = feed.time + patience if passed is None else tell_at
                passed = piece.passed
        if fresh:
            continue
        if upto >= position:
            position, skip = upto + 1, 0
        ends = feed.closed or feed.time >= reader.ends_at
        if position > feed.last_seq:
            if notices != feed.notices:
                notices = feed.notices
                joined += session.readers.frame()
            if passed is not None and (ends or feed.time >= tell_at):
                joined += frame({"type": "position"}, str(native.end(epoch, *passed)))
                told, passed = passed, None
        if joined:
            reader.hand(native.end(epoch, *told) if told is not None else None)
            yield bytes(joined)
            reader.handed()
        if reader.replaced:
            yield _REPLACED
            return
        if position <= feed.last_seq:
            continue
        if feed.deleted:
            yield _DELETED
            return
        if feed.failure is not None:
            yield ai_sdk.error_frame(feed.failure, "Nothing can be stored just now. Come back in a moment.")
            return
        if ends:
            return
        await feed.wait(position, notices, reader.ends_at if passed is None else min(tell_at, reader.ends_at))
