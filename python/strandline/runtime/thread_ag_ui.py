"""The live thread: everything that is said in a session, as a reader on the AG-UI wire is sent it (PROTOCOL §11.10)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from strandline.codecs import ag_ui
from strandline.codecs.sse import OPENING
from strandline.core.events import RunEnded, run_of
from strandline.core.message import FoldError
from strandline.core.offset import Cursor
from strandline.runtime.ag_ui_frames import Encoding, Told, encoded, told
from strandline.runtime.bases import Expired
from strandline.runtime.live import LiveSession
from strandline.runtime.readers import Reader
from strandline.runtime.reading_ag_ui import CLOSED, REPLACED, UNAVAILABLE, pieces, resync
from strandline.stores.port import Store

ALL_FRAMES = 999_999
"""The ordinal of a place after all frames of an event, however many: as large as a cursor's can be."""


async def renewals(session: LiveSession, store: Store) -> dict[str, int]:
    """For active runs that said something which open streams could not be shown: the newest event of that kind. A
    reader that was shown nothing of such a run begins there."""
    found: dict[str, int] = {}
    for run in session.state.writing():
        try:
            renewed = (await encoded(session, store, run, session.feed.last_seq)).renewed
        except (Expired, FoldError):
            continue  # a broken run, which is about to be ended
        if renewed is not None:
            found[run.id] = renewed
    return found


def place_after_history(session: LiveSession, renewed: dict[str, int]) -> Cursor:
    """Where one goes on who has everything before the first message that is being written: before the reply that writes
    it begins; where that has to wait, before the first one after it that does not. What has waited begins when its turn
    has come: before that others may have said what is history by now. Where they have not, its turn may come next, and
    then it is only told that it begins where it was queued."""
    epoch, last = session.state.record.epoch, session.feed.last_seq
    writing = session.state.writing()
    for run in writing:
        live = session.live.get(run.id)
        if live is not None and live.began is not None:
            first = run.first_seq
            return Cursor(epoch, renewed.get(run.id, first if live.began == first + 1 else live.began), 0)
    if writing and writing[0].first_seq == last:
        return Cursor(epoch, last, 0)
    return Cursor(epoch, max(last, 1), ALL_FRAMES)


class Thread:
    """What one reader is still to be sent: everything after ``cursor``."""

    def __init__(self, session: LiveSession, store: Store, cursor: Cursor) -> None:
        self._session = session
        self._store = store
        self._own: dict[str, Encoding] = {}
        self._checked: tuple[list[Told], int] | None = None
        shown = {run.id for run in session.state.writing()}
        self._elsewhere = {run.id for run in session.state.active()} - shown
        self._renewed: dict[str, int] = {}
        self._from = cursor.seq if cursor.frame == 0 else 0
        self._first: str | None = None
        self._skip = 0 if cursor.frame == ALL_FRAMES else cursor.frame
        self.position = cursor.seq + 1 if cursor.frame == ALL_FRAMES else cursor.seq
        self.cursor = cursor
        path = {message.version for message in session.state.path()}
        self._ended_elsewhere = {
            run.id
            for run in session.state.runs.values()
            if run.first_seq < self.position <= (run.last_seq or 0) and run.message not in path
        }
        """Runs in whose middle the cursor is. Its history did not have them, or it is to load another one soon."""

    async def check(self) -> None:
        """Raise Conflict (``resync``) when the log does not reach back to the cursor, or has no such frame there."""
        if self._from:
            # It is a history's: of what is being written this reader was shown nothing.
            self._renewed = await renewals(self._session, self._store)
        if self.position > self._session.feed.last_seq:
            return
        try:
            self._checked = events, _ = await told(self._session, self._store, self.position, None, self._own)
        except (Expired, FoldError):
            raise resync() from None
        if not events or events[0].seq != self.position or self._skip > len(events[0].frames):
            raise resync()

    async def turn(self) -> tuple[list[bytes], bool]:
        """The frames of some more published events; and False when it cannot go on from there."""
        try:
            events, upto = self._checked or await told(self._session, self._store, self.position, None, self._own)
        except (Expired, FoldError):
            return [ag_ui.RESYNC_FRAME], False
        self._checked = None
        found: list[bytes] = []
        for each in events:
            if each.seq != self.position:
                break  # retention has taken some
            due = self._due(each)
            found += due
            if due and due[-1] is ag_ui.RESYNC_FRAME:
                return found, False
            self.position, self._skip = each.seq + 1, 0
            if due:
                self.cursor = Cursor(self.cursor.epoch, each.seq, len(each.frames))
        return (found, True) if self.position > upto else ([*found, ag_ui.RESYNC_FRAME], False)

    def _is_elsewhere(self, each: Told) -> bool:
        """Whether a run has said this on a branch that was not shown when this reader came. Who goes there is told to
        load it. The end of a run that was left behind meanwhile is told: somebody may wait for it."""
        run_id = run_of(each.event)
        run = self._session.state.runs.get(run_id or "")
        # Clients of this wire know one conversation: what is spawned would be a message of that.
        return run is not None and (run.id in self._elsewhere or run.spawned)

    def _due(self, each: Told) -> tuple[bytes, ...]:
        if self._is_elsewhere(each):
            return ()
        run_id = run_of(each.event) or ""
        if each.seq == self._from:
            self._first = run_id
        if run_id in self._ended_elsewhere:
            # The end is told: somebody may wait for it.
            last = len(each.frames) - 1 if isinstance(each.event, RunEnded) else len(each.frames)
            return each.frames[max(last, self._skip) :]
        if each.resync and run_id != self._first and self._session.state.runs[run_id].first_seq < self._from:
            # It is in the history, or comes after what the history ends with: nothing of it was shown that is not so.
            return each.frames[self._skip : -1]
        renewed = self._renewed.get(run_id, 0)
        if each.seq <= renewed:
            return (each.recap,) if each.recap is not None and each.seq == renewed else ()
        if each.recap is not None and (self.cursor.seq, self.cursor.frame) == (each.seq, 0):
            return (each.recap,)  # it was shown nothing of this run: so its history said
        return each.frames[self._skip :]


async def thread_stream(session: LiveSession, thread: Thread, reader: Reader) -> AsyncGenerator[bytes]:
    """All of the session from where ``thread`` is. It ends with the server, its age, or a place that it cannot go on
    from: the reader comes back."""
    feed = session.feed
    yield OPENING
    while True:
        while thread.position <= feed.last_seq and not reader.replaced:
            frames, going_on = await thread.turn()
            if frames:
                reader.hand(thread.cursor)
                for piece in pieces(frames):
                    yield piece
                reader.handed()
            if not going_on:
                return
        if feed.failure is not None:
            yield UNAVAILABLE
            return
        if feed.closed or reader.replaced:
            yield REPLACED if reader.replaced else CLOSED
            return
        if feed.deleted or feed.time >= reader.ends_at:
            return
        await feed.wait(thread.position, until=reader.ends_at)
