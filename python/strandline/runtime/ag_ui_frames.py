"""The frames of a session's events on the TanStack AI and AG-UI wire, made once for all readers (PROTOCOL §11.5).

What a chunk becomes depends on everything that its run said before. So a run that is active has one encoder, which all
readers share and which is brought up to date by whoever comes first; what it made stays with the events of the tail.
Only a reader that is so far behind that it reads the log encodes for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from strandline.codecs import ag_ui, native
from strandline.codecs.ag_ui import Encoder
from strandline.core.events import (
    Annotated,
    AnnotationRemoved,
    BranchSelected,
    DecisionMade,
    Event,
    MessageCreated,
    MessageDeleted,
    MessageReplaced,
    RunEnded,
    RunStarted,
    run_of,
)
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.runtime.bases import Expired, base_of
from strandline.runtime.feed import Entry, Feed
from strandline.runtime.live import LiveSession
from strandline.runtime.reading import PAGE, PIECE
from strandline.stores.port import Store

_FRAMES = "ag-ui"
_RECAP = "ag-ui-recap"

_encoding: WeakKeyDictionary[LiveSession, dict[str, Encoding]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Told:
    """One event as this wire tells it. ``recap``: what the run says up to and including this event, for a reader that
    was shown nothing of it, instead of frames that only go on, or whose last one is RESYNC_FRAME."""

    seq: int
    event: Event
    frames: tuple[bytes, ...]
    recap: bytes | None = None

    @property
    def of_run(self) -> tuple[bytes, ...]:
        """The frames for who reads this run alone, and was told at its beginning that it exists."""
        return () if isinstance(self.event, RunStarted) else self.frames

    @property
    def resync(self) -> bool:
        """True when open streams cannot be shown what happened here."""
        return bool(self.frames) and self.frames[-1] is ag_ui.RESYNC_FRAME


class Encoding:
    """One run on its way into frames: every event of it before number ``position`` was taken. ``renewed``: the newest
    event that open streams could not be shown; ``over``: the run's last event was taken."""

    __slots__ = ("_again", "_encoder", "_epoch", "_first", "over", "position", "renewed")

    def __init__(self, session: LiveSession, run: RunRecord, base: FoldState | None = None) -> None:
        asked = (each for each in session.state.decisions.values() if each.run == run.parent_run)
        decided = [each.tool_call for each in asked if base is not None and base.tool(each.tool_call) is not None]
        self._encoder = Encoder(session.id, wire_id(session), base, decided)
        self._epoch = session.state.record.epoch
        self._first = run.first_seq
        self._again = ag_ui.started(session.id, run, wire_id(session))
        self.position = run.first_seq
        self.renewed: int | None = None
        self.over = False

    def take(self, seq: int, event: Event, feed: Feed | None = None) -> Told:
        """The next event of the run; ``feed`` where it is in the tail. Raises FoldError."""
        known = feed.frames(_FRAMES, seq) if feed is not None else None
        frames = self._encoder.frames(self._epoch, seq, event, known)
        recap = None
        if self._encoder.recap is not None:
            recap = ag_ui.recapped(self._encoder.recap, Cursor(self._epoch, seq, len(frames)))
        if isinstance(event, RunStarted) and seq != self._first + 1:
            # It has waited: to who follows the whole thread it begins now.
            frames = (ag_ui.frame(self._again, Cursor(self._epoch, seq, 1)),)
        if frames and frames[-1] is ag_ui.RESYNC_FRAME:
            self.renewed = seq
        if feed is not None:
            feed.keep(_FRAMES, seq, frames)
            if recap is not None:
                feed.keep(_RECAP, seq, (recap,))
        self.position = seq + 1
        self.over = isinstance(event, RunEnded)
        return Told(seq, event, frames, recap)


async def told(
    session: LiveSession, store: Store, first: int, run: RunRecord | None, own: dict[str, Encoding]
) -> tuple[list[Told], int]:
    """Published events from number ``first`` on, of one run or of all of the session, and the number up to which none
    was left out. ``own``: the caller's encodings of what it has read from the log. Raises Expired and FoldError."""
    feed = session.feed
    if first < feed.first_seq and first <= feed.last_seq:
        return await _from_log(session, store, first, run, own)
    for run_id, encoding in own.items():
        _shared(session).setdefault(run_id, encoding)
    own.clear()
    entries = [entry for entry in feed.since(first)[:PAGE] if run is None or entry.run == run.id]
    upto = min(feed.last_seq, first + PAGE - 1)
    # First what nothing has to be waited for: what is taken back meanwhile goes from what was kept, not from these
    # entries.
    for entry in entries:
        if entry.run is None and feed.frames(_FRAMES, entry.seq) is None:
            feed.keep(_FRAMES, entry.seq, _of_session(session, entry.seq, entry.event))
    for entry in entries:
        if entry.run is not None and feed.frames(_FRAMES, entry.seq) is None:
            await encoded(session, store, session.state.runs[entry.run], entry.seq)
    found = [_of(feed, entry) for entry in entries]
    if None in found:
        # It left the tail meanwhile, or was taken back.
        return await told(session, store, first, run, own)
    return [each for each in found if each is not None], upto


async def encoded(session: LiveSession, store: Store, run: RunRecord, upto: int) -> Encoding:
    """The run's encoding, having taken every published event up to number ``upto`` at least, those of the tail with
    their entries. Raises Expired and FoldError."""
    shared = _shared(session)
    # Taken out while it is worked on: another reader that comes meanwhile makes its own.
    encoding = shared.pop(run.id, None) or Encoding(session, run, await base_of(session, store, run))
    while not encoding.over and encoding.position <= upto:
        if encoding.position < session.feed.first_seq:
            end = min(session.feed.first_seq, encoding.position + PAGE) - 1
            for seq, event in await _log(session, store, encoding.position, end, run, encoding):
                encoding.take(seq, event)
            encoding.position = end + 1
            continue
        entries = session.feed.since(encoding.position)[:PAGE]
        for entry in entries:
            if entry.run == run.id:
                encoding.take(entry.seq, entry.event, session.feed)
        encoding.position = entries[-1].seq + 1
        if encoding.position <= upto:
            await asyncio.sleep(0)
    if not encoding.over:
        for ended in [other for other in shared if not session.state.runs[other].active]:
            del shared[ended]
        shared.setdefault(run.id, encoding)
    return encoding


def wire_id(session: LiveSession) -> ag_ui.WireId:
    """How messages of the session are called on the wire."""
    return lambda version: session.state.messages[version].message_id


async def _from_log(
    session: LiveSession, store: Store, first: int, run: RunRecord | None, own: dict[str, Encoding]
) -> tuple[list[Told], int]:
    upto = min(session.feed.first_seq, session.feed.last_seq + 1, first + PAGE) - 1
    found: list[Told] = []
    size, erasures = 0, session.feed.erasures
    lines = await store.events(session.id, first, upto, run.id if run is not None else None)
    if session.feed.deleted:
        raise Expired  # what the log has under this id may be somebody else's by now
    for seq, line in lines:
        event = native.decode(line)
        run_id = run_of(event)
        if run_id is None:
            found.append(Told(seq, event, _of_session(session, seq, event)))
        else:
            if run_id not in own:
                own[run_id] = await _before(session, store, session.state.runs[run_id], seq)
            found.append(own[run_id].take(seq, event))
            if own[run_id].over:
                del own[run_id]
        size += sum(map(len, found[-1].frames))
        if size >= PIECE:
            # Events may be large, and others wait for their turn meanwhile.
            size = 0
            await asyncio.sleep(0)
    await asyncio.sleep(0)  # not every store makes its callers wait
    if session.feed.erasures != erasures:
        raise Expired  # what was read may have been deleted meanwhile
    return found, upto


async def _before(session: LiveSession, store: Store, run: RunRecord, seq: int) -> Encoding:
    """An encoding of the run that has taken every event before number ``seq``."""
    encoding = Encoding(session, run, await base_of(session, store, run))
    while encoding.position < seq:
        end = min(seq, encoding.position + PAGE) - 1
        for number, event in await _log(session, store, encoding.position, end, run, encoding):
            encoding.take(number, event)
        encoding.position = end + 1
    return encoding


async def _log(
    session: LiveSession, store: Store, first: int, upto: int, run: RunRecord, encoding: Encoding
) -> Sequence[tuple[int, Event]]:
    lines = await store.events(session.id, first, upto, run.id)
    await asyncio.sleep(0)
    if session.feed.deleted or (first == run.first_seq and (not lines or lines[0][0] != first)):
        raise Expired
    return [(seq, native.decode(line)) for seq, line in lines]


def _of_session(session: LiveSession, seq: int, event: Event) -> tuple[bytes, ...]:
    """What belongs to no run: a whole message, or that what was told before is not how things stand."""
    epoch = session.state.record.epoch
    match event:
        case MessageCreated():
            return ag_ui.message_frames(epoch, seq, event, wire_id(session))
        case BranchSelected() | MessageReplaced() | MessageDeleted():
            return ag_ui.changed_frames(epoch, seq)
        case Annotated() | AnnotationRemoved():
            return ag_ui.annotation_frames(epoch, seq, event)
        case DecisionMade():
            return ag_ui.decision_frames(epoch, seq, event)
        case _:
            return ()


def _of(feed: Feed, entry: Entry) -> Told | None:
    frames, recap = feed.frames(_FRAMES, entry.seq), feed.frames(_RECAP, entry.seq)
    return None if frames is None else Told(entry.seq, entry.event, frames, recap[0] if recap is not None else None)


def _shared(session: LiveSession) -> dict[str, Encoding]:
    return _encoding.setdefault(session, {})
