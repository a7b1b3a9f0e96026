"""What one reader of a run is sent on the TanStack AI and AG-UI wire (PROTOCOL §11.5).

The frames of a run depend on everything that the run said before, so a reader always begins by reading the run from its
first event: for one that joins, that is what it is sent; for one that resumes, it is how the frames get their numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from strandline.codecs import ag_ui, native
from strandline.codecs.ag_ui import Encoder
from strandline.codecs.sse import OPENING
from strandline.core.events import Event, RunEnded
from strandline.core.message import FoldError
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.core.unfold import revive
from strandline.errors import Conflict
from strandline.runtime.feed import Entry
from strandline.runtime.live import LiveSession
from strandline.runtime.reading import PAGE, PIECE, Reader, attached
from strandline.stores.port import Store

_CODEC = "ag-ui"
_CUT = ag_ui.error_frame("store-unavailable", "The reply cannot be stored just now. Load it again later.")
_CLOSED = ag_ui.error_frame("shutting-down", "The server is restarting. Load the reply again.")


@dataclass(slots=True)
class Begun:
    """A reader that has been caught up: what it is sent first, and from which event on it is to be sent more.

    ``over``: there will not be more.
    """

    first: list[bytes]
    encoder: Encoder
    position: int
    over: bool = False
    cursor: Cursor | None = field(default=None)


async def begin(session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None) -> Begun:
    """Read a run up to now. Without ``cursor`` the reader is sent all of it, else what follows strictly after.

    Raises Conflict (``resync``) for a cursor that cannot be continued: it names no frame of this run, the log has been
    let go, or the message has changed since in a way that only a fresh reader can be shown.
    """
    try:
        return await _begin(session, store, run, cursor)
    except FoldError:
        # Logged where it was published. What is stored of an ended run can be shown all the same.
        return await _expired(session, store, session.state.runs[run.id], cursor)


async def _begin(session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None) -> Begun:
    epoch = session.state.record.epoch
    begun = Begun([], Encoder(session.id), run.first_seq)
    size = 0
    found = cursor is None
    while not begun.over and begun.position <= session.feed.last_seq:
        entries, upto = await _entries(session, store, begun.position, run.id)
        if begun.position == run.first_seq and (not entries or entries[0][0] != run.first_seq):
            return await _expired(session, store, run, cursor)
        for seq, event, entry in entries:
            frames = _frames(begun.encoder, epoch, seq, event, entry)
            size += sum(map(len, frames))
            if size >= PIECE:
                size = 0
                await asyncio.sleep(0)
            begun.over = isinstance(event, RunEnded)
            begun.cursor = Cursor(epoch, seq, len(frames)) if frames else begun.cursor
            if cursor is not None and seq <= cursor.seq:
                if seq < cursor.seq:
                    continue
                if cursor.frame > len(frames):
                    raise _resync()
                found, frames = True, frames[cursor.frame :]
            if frames and frames[-1] is ag_ui.RESYNC_FRAME:
                if cursor is not None:
                    raise _resync()
                begun.first = [ag_ui.recapped(begun.encoder.recap or [], begun.cursor)]
            else:
                begun.first += frames
        begun.position = upto + 1
    if not begun.over and _is_past(session, run.id, begun.position):
        return await _expired(session, store, session.state.runs[run.id], cursor)
    if not found:
        raise _resync()
    return begun


async def _expired(session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None) -> Begun:
    """A run whose events are no longer in the log, which only happens to ended ones."""
    if cursor is not None and (cursor.seq, bool(cursor.frame)) == (run.last_seq, True):
        return Begun([], Encoder(session.id), run.first_seq, over=True)
    if cursor is not None or run.active:
        raise _resync()
    stored = await store.messages(session.id, [run.message])
    parts, metadata = (stored[0].parts or (), stored[0].metadata) if stored else ((), None)
    fold = revive(run.message_id, parts, metadata)
    whole = ag_ui.finished(session.id, run, fold, session.state.record.epoch)
    return Begun([whole], Encoder(session.id), run.first_seq, over=True)


async def ag_ui_stream(
    session: LiveSession, store: Store, run: RunRecord, begun: Begun, reader: Reader
) -> AsyncIterator[bytes]:
    """One run from where ``begin`` left off, to its last event."""
    reader.run = run.id
    reader.cursor = str(begun.cursor) if begun.cursor is not None else None
    with attached(session, reader):
        epoch, position = session.state.record.epoch, begun.position
        for piece in _pieces([OPENING, *begun.first]):
            yield piece
        begun.first = []
        while not begun.over:
            while position <= session.feed.last_seq:
                entries, upto = await _entries(session, store, position, run.id)
                joined = bytearray()
                for seq, event, entry in entries:
                    frames = _frames(begun.encoder, epoch, seq, event, entry)
                    joined += b"".join(frames)
                    if isinstance(event, RunEnded) or (frames and frames[-1] is ag_ui.RESYNC_FRAME):
                        yield bytes(joined)
                        return
                    if frames:
                        reader.cursor = str(Cursor(epoch, seq, len(frames)))
                if joined:
                    yield bytes(joined)
                position = upto + 1
            if _is_past(session, run.id, position):
                yield ag_ui.RESYNC_FRAME
                return
            if session.feed.failure is not None:
                yield _CUT
                return
            if session.feed.closed:
                yield _CLOSED
                return
            await session.feed.wait(position)


def _is_past(session: LiveSession, run_id: str, position: int) -> bool:
    """The run has ended before ``position``, and a reader that is there has not seen it end: the log has expired."""
    ended_at = session.state.runs[run_id].last_seq
    return ended_at is not None and position > ended_at


def _frames(encoder: Encoder, epoch: str, seq: int, event: Event, entry: Entry | None) -> tuple[bytes, ...]:
    """The frames of an event; made once for all readers while it is in the tail."""
    if entry is None:
        return encoder.frames(epoch, seq, event)
    frames = entry.frames[_CODEC] = encoder.frames(epoch, seq, event, entry.frames.get(_CODEC))
    return frames


async def _entries(
    session: LiveSession, store: Store, first: int, run: str
) -> tuple[list[tuple[int, Event, Entry | None]], int]:
    """Published events of a run from number ``first`` on, and the number up to which nothing was left out. Cold ones
    come from the log first; the tail is a slice, taken without an await."""
    feed = session.feed
    if first < feed.first_seq:
        upto = min(feed.first_seq, feed.last_seq + 1, first + PAGE) - 1
        cold = await store.events(session.id, first, upto, run)
        await asyncio.sleep(0)  # not every store makes its callers wait
        return [(seq, native.decode(line), None) for seq, line in cold], upto
    return [(entry.seq, entry.event, entry) for entry in feed.since(first) if entry.run == run], feed.last_seq


def _pieces(frames: list[bytes]) -> list[bytes]:
    """The frames, joined into writes of a bounded size."""
    pieces, joined = [], bytearray()
    for data in frames:
        joined += data
        if len(joined) >= PIECE:
            pieces.append(bytes(joined))
            joined.clear()
    return [*pieces, bytes(joined)] if joined else pieces


def _resync() -> Conflict:
    return Conflict("The cursor cannot be continued. Load the conversation again and join the run.", code="resync")
