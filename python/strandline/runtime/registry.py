"""Which sessions are in memory: loads them, lets go of idle ones, and never has the same one twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakValueDictionary

from strandline.core.records import SessionRecord
from strandline.core.session import SessionState
from strandline.errors import TooMany
from strandline.runtime.clock import Clock
from strandline.runtime.counters import Tally
from strandline.runtime.journal_log import aside
from strandline.runtime.live import LiveSession
from strandline.runtime.promises import drop_expired
from strandline.runtime.readers import Reader, Resting
from strandline.settings import Settings
from strandline.stores.port import Store
from strandline.stores.schema import mint_epoch

logger = logging.getLogger("strandline.session")

ALL_SEQS = 2**62


class Place:
    """What a response holds as long as it lasts (``Registry.place``). Not a generator: there are thousands."""

    __slots__ = ("_counted", "_reader", "_registry", "_session")

    def __init__(self, registry: Registry, session: LiveSession, reader: Reader, counted: bool) -> None:
        self._registry = registry
        self._session = session
        self._reader = reader
        self._counted = counted

    def __enter__(self) -> Reader:
        self._registry.enter(self._session, self._reader, self._counted)
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._registry.leave(self._session, self._reader)


class Registry:
    """The sessions of one store. ``closed``: the server is going away, nothing more will come on any feed, and those
    ``at_close`` were told. ``elsewhere``: whether the agent of this name runs in a process that outlives this one."""

    def __init__(self, store: Store, clock: Clock, settings: Settings, tally: Tally) -> None:
        self.store = store
        self.tally = tally
        self._clock = clock
        self._settings = settings
        self._live: dict[str, LiveSession] = {}
        # A session that was let go of while somebody still holds it must be found again, not loaded twice.
        self._held: WeakValueDictionary[str, LiveSession] = WeakValueDictionary()
        self._loading: dict[str, asyncio.Task[LiveSession | None]] = {}
        self._resting = Resting()
        self._readers = 0
        self.closed = False
        self.at_close: list[Callable[[], None]] = []
        self.elsewhere: Callable[[str], bool] = lambda agent: False

    @property
    def clock(self) -> Clock:
        """What tells the time here, and makes up ids."""
        return self._clock

    def in_memory(self) -> list[LiveSession]:
        """Every session that is loaded."""
        return list(self._live.values())

    def reachable(self) -> list[LiveSession]:
        """Every session that is loaded, and those that were let go of while somebody still holds them."""
        return list(self._held.values())

    async def find(self, session_id: str) -> LiveSession | None:
        """The session, loaded if need be, or None if it does not exist (or was never written to)."""
        session = await self._load(session_id)
        return session if session is not None and session.stored else None

    def admit_reader(self, session_id: str, reader: Reader | None = None) -> None:
        """Raise TooMany when this session, or this process, has as many readers as it may have. One that takes the
        place of another is not one more."""
        session = self._live.get(session_id)
        if session is not None and reader is not None and session.readers.replaces(reader):
            return
        if self._readers >= self._settings.max_readers:
            raise TooMany("Too many streams are open.", code="too-many-readers", retry_after=5.0)
        if session is not None and len(session.readers) >= self._settings.max_readers_per_session:
            raise TooMany("Too many streams are open on this session.", code="too-many-readers", retry_after=5.0)

    def place(self, session: LiveSession, reader: Reader, *, counted: bool = True) -> Place:
        """A place among the session's readers, counted and taken in one step when it is entered: those who come at the
        same moment are not all let in. ``counted`` ones may be refused (TooMany), before anything was sent."""
        return Place(self, session, reader, counted)

    def enter(self, session: LiveSession, reader: Reader, counted: bool) -> None:
        """See ``place``. Raises TooMany."""
        if not session.feed.deleted:
            self.keep(session)
        if counted:
            self.admit_reader(session.id, reader)
        if self._settings.max_stream_age:
            reader.ends_at = self._clock.monotonic() + self._settings.max_stream_age
        self.tally.readers_attached += 1
        self._readers -= len(session.readers)
        session.readers.enter(reader)
        self._readers += len(session.readers)

    def leave(self, session: LiveSession, reader: Reader) -> None:
        """The reader's connection is over."""
        self._readers -= len(session.readers)
        session.readers.leave(reader, self._clock.now(), self._clock.monotonic() + self._settings.reader_memory)
        self._readers += len(session.readers)
        self._count_end(session, reader)

    def _count_end(self, session: LiveSession, reader: Reader) -> None:
        """Of those that did not just leave."""
        ids = {"session": session.id, "reader": reader.id, "run": reader.run}
        if reader.replaced:
            self.tally.readers_replaced += 1
            logger.debug("reader %s has come again", reader.id, extra={"action": "reader-replaced", **ids})
        elif reader.dropped:
            self.tally.readers_dropped += 1
            logger.info("reader %s did not read and was dropped", reader.id, extra={"action": "reader-dropped", **ids})

    def keep(self, session: LiveSession) -> None:
        """Something happened in this session: it is in memory, whoever let go of it meanwhile."""
        self._live[session.id] = session

    def forget(self, session: LiveSession) -> None:
        """The session was deleted: whoever asks for its id from now on finds nothing, or a new one."""
        if self._live.get(session.id) is session:
            del self._live[session.id]
        if self._held.get(session.id) is session:
            del self._held[session.id]
        self._resting.take(session.id)
        self.tally.sessions_deleted += 1
        aside(_log_deleted, session.id)

    def forget_idle(self, now: float) -> None:
        """Let go of sessions that nobody has used for a while."""
        for session in list(self._live.values()):
            drop_expired(session, now)
            session.readers.sweep(now)
            session.feed.tick(now)
            if session.idle and now - session.touched >= self._settings.session_idle:
                del self._live[session.id]
                self.tally.sessions_evicted += 1
                self._resting.keep(session.id, session.state.record.epoch, session.readers.left)
        self._resting.expire(now)

    async def _load(self, session_id: str) -> LiveSession | None:
        session = self._live.get(session_id) or self._held.get(session_id)
        if session is not None:
            self._live[session_id] = session
        else:
            task = self._loading.get(session_id)
            if task is None:
                task = asyncio.get_running_loop().create_task(self._read(session_id))
                self._loading[session_id] = task
                task.add_done_callback(lambda _: self._loading.pop(session_id, None))
            session = await asyncio.shield(task)
        if session is not None:
            session.touched = self._clock.monotonic()
        return session

    async def _read(self, session_id: str) -> LiveSession | None:
        record = await self.store.session(session_id)
        if record is None:
            return None
        outline, newer = await asyncio.gather(
            self.store.outline(session_id),
            # The row is written when the structure changes; the log may have gone on since.
            self.store.events(session_id, record.last_seq + 1, ALL_SEQS),
        )
        if newer:
            record = replace(record, last_seq=newer[-1][0])
        if session_id in self._live:
            return self._live[session_id]
        return self._register(
            SessionState(
                record, outline.messages, outline.runs, outline.decisions, outline.annotations, outline.receipts
            ),
            stored=True,
        )

    def _register(self, state: SessionState, *, stored: bool) -> LiveSession:
        session = LiveSession(state, stored=stored, at=self._clock.monotonic())
        session.readers.remember(self._resting.take(session.id, state.record.epoch))
        if self.closed:
            session.feed.close()
        self._live[session.id] = self._held[session.id] = session
        return session

    def close(self) -> None:
        """Nothing more will come on any feed: the server is going away."""
        self.closed = True
        for session in self.reachable():
            session.feed.close()
        for told in self.at_close:
            told()

    async def load_or_new(self, session_id: str, owner: str) -> LiveSession:
        """The session, or a new one that exists in memory only until something is committed to it."""
        session = await self._load(session_id)
        if session is None:
            session = self._live.get(session_id)
        if session is None:
            now = self._clock.now()
            record = SessionRecord(session_id, mint_epoch(), owner, now, now, 0)
            session = self._register(SessionState(record), stored=False)
        return session


def _log_deleted(session_id: str) -> None:
    logger.info("session %s was deleted", session_id, extra={"action": "session-deleted", "session": session_id})
