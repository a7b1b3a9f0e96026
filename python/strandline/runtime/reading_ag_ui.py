"""What one reader of a run is sent on the TanStack AI and AG-UI wire (PROTOCOL §11.5)."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field

from strandline.codecs import ag_ui
from strandline.codecs.sse import OPENING
from strandline.core.events import Erased, RunEnded
from strandline.core.message import FoldError
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.core.unfold import revive
from strandline.errors import Conflict
from strandline.runtime.ag_ui_frames import Encoding, told, wire_id
from strandline.runtime.bases import Expired
from strandline.runtime.live import LiveSession, SessionGone
from strandline.runtime.readers import Reader
from strandline.runtime.reading import PIECE, MessageGone, stored_content
from strandline.stores.port import Store

UNAVAILABLE = ag_ui.error_frame("store-unavailable", "The reply cannot be stored just now. Load it again later.")
CLOSED = ag_ui.error_frame("shutting-down", "The server is restarting. Load the reply again.")
REPLACED = ag_ui.error_frame("replaced", "A newer connection of the same reader has taken the place of this one.")


@dataclass(slots=True)
class Begun:
    """A reader that has been caught up: what it is sent first, and from which event on it is to be sent more.

    ``over``: there will not be more. ``own``: its encodings, where it reads from the log. ``erasures``: those that it
    has seen.
    """

    first: list[bytes]
    position: int
    over: bool = False
    cursor: Cursor | None = None
    own: dict[str, Encoding] = field(default_factory=dict)
    erasures: int = 0


async def begin(
    session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None, *, own: bool = False
) -> Begun:
    """Read a run up to now. Without ``cursor`` the reader is sent all of its message, or, with ``own``, all that the
    run itself adds to it; else what follows strictly after.

    Raises Conflict (``resync``) for a cursor that cannot be continued: it names no frame of this run, the log has been
    let go, or the message has changed since in a way that only a fresh reader can be shown.
    """
    try:
        return await _begin(session, store, run, cursor, own)
    except (Expired, FoldError):
        if own:
            raise resync() from None
        # A log that does not fold was reported where it was published. What is stored of the run can be shown.
        return await _stored(session, store, session.state.runs[run.id], cursor)


async def _begin(session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None, own: bool) -> Begun:
    epoch, erasures = session.state.record.epoch, session.feed.erasures
    at = run.first_seq if cursor is None else cursor.seq
    begun = Begun([], at, erasures=erasures)
    while not begun.over and begun.position <= session.feed.last_seq:
        events, upto = await told(session, store, begun.position, run, begun.own)
        if begun.position == at and (not events or events[0].seq != at):
            raise Expired
        for each in events:
            if isinstance(each.event, Erased):
                raise Expired  # what it said is no longer in the log
            frames = each.of_run
            begun.over = isinstance(each.event, RunEnded)
            begun.cursor = Cursor(epoch, each.seq, len(frames)) if frames else begun.cursor
            if cursor is not None and each.seq == at:
                if cursor.frame > len(frames):
                    raise resync()
                frames = frames[cursor.frame :]
            if frames and each.resync and (cursor is not None or own):
                raise resync()
            if frames and each.recap is not None and cursor is None and not own:
                begun.first = [each.recap]
            else:
                begun.first += frames
        begun.position = upto + 1
    if not begun.over and _is_past(session, run.id, begun.position):
        raise Expired
    if session.feed.erasures != erasures:
        return await _begin(session, store, run, cursor, own)  # what was read may have been deleted meanwhile
    return begun


async def _stored(session: LiveSession, store: Store, run: RunRecord, cursor: Cursor | None) -> Begun:
    """A run that has ended, from what is stored: its events are no longer in the log, or of no use."""
    if cursor is not None and (cursor.seq, bool(cursor.frame)) == (run.last_seq, True):
        return Begun([], run.first_seq, over=True, erasures=session.feed.erasures)
    if cursor is not None or run.active:
        raise resync()
    try:
        parts, metadata = await stored_content(session, store, run)
    except (SessionGone, MessageGone):
        raise resync() from None
    fold = revive(run.message_id, parts, metadata)
    pending = [each for each in session.state.waiting(run.message) if each.run == run.id]
    whole = ag_ui.finished(session.id, run, fold, pending, session.state.record.epoch, wire_id(session))
    return Begun([whole], run.first_seq, over=True, erasures=session.feed.erasures)


async def ag_ui_stream(
    session: LiveSession, store: Store, run: RunRecord, begun: Begun, reader: Reader
) -> AsyncGenerator[bytes]:
    """One run from where ``begin`` left off, to its last event."""
    reader.hand(begun.cursor)
    feed, epoch, position = session.feed, session.state.record.epoch, begun.position
    for piece in pieces([OPENING, *begun.first]):
        if feed.erasures != begun.erasures:
            # What was gathered may say what has been deleted since.
            yield OPENING + ag_ui.RESYNC_FRAME
            return
        yield piece
    sent = bool(begun.first)
    if sent:
        reader.handed()
    begun.first = []
    while not begun.over:
        while position <= feed.last_seq and not reader.replaced:
            try:
                events, upto = await told(session, store, position, run, begun.own)
            except (Expired, FoldError):
                yield ag_ui.RESYNC_FRAME
                return
            joined = bytearray()
            for each in events:
                if isinstance(each.event, Erased):
                    yield bytes(joined) + ag_ui.RESYNC_FRAME
                    return
                joined += b"".join(each.of_run)
                if each.of_run:
                    reader.hand(Cursor(epoch, each.seq, len(each.of_run)))
                if isinstance(each.event, RunEnded) or each.resync:
                    yield bytes(joined)
                    reader.handed()
                    return
            if joined:
                yield bytes(joined)
                reader.handed()
                sent = True
            position = upto + 1
        if _is_past(session, run.id, position):
            yield ag_ui.RESYNC_FRAME
            return
        if feed.failure is not None:
            yield UNAVAILABLE
            return
        if feed.closed or reader.replaced:
            yield REPLACED if reader.replaced else CLOSED
            return
        # Before anything was sent, a stock client would take the end for a run that said nothing (DESIGN §14.6).
        ends_at = reader.ends_at if sent else math.inf
        if feed.time >= ends_at:
            return
        await feed.wait(position, until=ends_at)


def _is_past(session: LiveSession, run_id: str, position: int) -> bool:
    """The run has ended before ``position``, and a reader that is there has not seen it end: the log has expired."""
    ended_at = session.state.runs[run_id].last_seq
    return ended_at is not None and position > ended_at


def pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames, joined into writes of a bounded size."""
    joined = bytearray()
    for data in frames:
        joined += data
        if len(joined) >= PIECE:
            yield bytes(joined)
            joined.clear()
    if joined:
        yield bytes(joined)


def resync() -> Conflict:
    """The refusal of a cursor that cannot be continued."""
    return Conflict("The cursor cannot be continued. Load the conversation again and join the run.", code="resync")
