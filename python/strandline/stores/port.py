"""What a store promises. Every implementation passes one contract suite (``tests/python/stores``).

The store is dumb on purpose: the runtime decides *what* is written, the store makes it durable and finds it again.
There is one writer (the runtime's journal) per store, and it commits one batch at a time.

Promises
--------
1. **Atomic.** ``commit`` writes all of a batch or nothing of it. When it raises, nothing of the batch is visible,
   neither now nor after a restart of the store, and the same batch may be given again.
2. **Durable.** When ``commit`` returns, the batch survives the death of the process; with ``durability="full"``
   (the default) also the loss of power.
3. **Idempotent.** A batch has a number. Committing the same number again after a success changes nothing.
4. **Gone.** After a batch that deletes a session nothing of it can be read, also not after a crash: what the journal
   still holds of it is void. Its id may be used again by a later batch.
   After a batch with an erasure the same holds for what it names: the events that have said it are ``Erased``, in every
   segment, in those of the same batch, and in what a restart reads from the journal.
5. **Ordered.** Numbers grow. Sequence numbers of a session are gapless and given by the caller; the store returns
   events ordered by them.
6. **Nothing is lost in between.** After ``open`` returns, every event of every committed batch is readable with
   ``events``: what the journal of an earlier process held has been turned into log segments. While the store is open
   the caller keeps events in memory until a segment that holds them was committed.
7. **Reads never block the writer**, and never see half a batch.
8. **Exclusive.** A second ``open`` of the same file, from any process, raises StoreInUse and says what to do.

Errors: ``StoreUnavailable`` when the medium refuses (disk full, locked, read-only, I/O error): nothing acknowledged is
lost, the caller may try again. Whatever else ``commit`` raises says that this batch is not taken as it is: the caller
may give the same work in other batches, under new numbers. ``StoreRefused`` (StoreInUse, StoreTooNew, StoreDamaged)
from ``open`` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from strandline.core.erasing import Erasure, TakenBack
from strandline.core.records import (
    AnnotationRecord,
    DecisionRecord,
    MessageRecord,
    ReceiptRecord,
    RunRecord,
    SessionRecord,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one session appended in one commit: encoded events, the first of which has number ``first_seq``.

    An encoded event is the JSON object of ``core.plain.to_plain`` on one line.
    """

    session: str
    first_seq: int
    events: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed piece of a session's log: events of one run (or of none), in order, not necessarily adjacent.

    ``at`` is the time of the newest event (ms); retention counts from it.
    """

    session: str
    run: str | None
    at: int
    events: tuple[tuple[int, bytes], ...]

    @property
    def first_seq(self) -> int:
        return self.events[0][0]

    @property
    def last_seq(self) -> int:
        return self.events[-1][0]


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one commit writes.

    number: grows with every batch; entries go into the journal under it (no journal row when there are none).
    sessions, messages, runs: whole rows to insert or replace. segments: log segments to add.
    trim: journal rows up to and including this number are deleted (their events are all in segments), or None.
    deleted: sessions whose rows, messages, runs and segments are deleted, after everything else of the batch was
    written; no entry of the batch is theirs. decisions, annotations: whole rows; of a decision that is known only what
    was decided is taken. unannotated: (session, id) of annotations to delete. erased: what messages, and
    what annotations have said up to this batch; it goes after everything else was written, that of messages with the
    rows of decisions (and annotations) of them, and the digests of receipts. receipts: rows to insert.
    """

    number: int
    entries: tuple[Entry, ...] = ()
    sessions: tuple[SessionRecord, ...] = ()
    messages: tuple[MessageRecord, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    segments: tuple[Segment, ...] = field(default=())
    trim: int | None = None
    deleted: tuple[str, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()
    annotations: tuple[AnnotationRecord, ...] = ()
    unannotated: tuple[tuple[str, str], ...] = ()
    erased: tuple[Erasure | TakenBack, ...] = ()
    receipts: tuple[ReceiptRecord, ...] = ()

    @property
    def only_entries(self) -> bool:
        """True when it writes nothing but journal entries: nine of ten do."""
        rows = self.sessions or self.messages or self.runs or self.decisions or self.annotations or self.receipts
        others = self.segments or self.deleted or self.unannotated or self.erased
        return bool(self.entries) and not rows and not others and self.trim is None


@dataclass(frozen=True, slots=True)
class Outline:
    """What a session's state is made of, without the content of messages, everything in order of creation."""

    messages: tuple[MessageRecord, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()
    annotations: tuple[AnnotationRecord, ...] = ()
    receipts: tuple[ReceiptRecord, ...] = ()


DUE_AT_ONCE = 100
"""As many decisions does one call of ``due`` return."""

Place = tuple[int, str]
"""Where a page of sessions ended: ``updated_at`` (ms) and ``id`` of its last one."""


class Store(Protocol):
    """The port. See the module docstring for what every method together promises."""

    async def open(self) -> int:
        """Take the store into use; return the highest batch number that was ever committed (0 for a new store).

        Migrates an older schema forward, turns the journal into segments, gives every session a new epoch when the
        last process ended uncleanly without fsync. Raises StoreRefused or StoreUnavailable.
        """

    async def close(self) -> None:
        """Give the store back cleanly. Idempotent."""

    async def commit(self, batch: Batch) -> None:
        """Write a batch: atomic, durable, idempotent. Raises StoreUnavailable, and then nothing was written.

        Raises Conflict, and writes nothing, when a run has the ``key`` of another run of its session. Cancelling the
        caller does not cancel the commit: it runs to its end, and giving the same batch again is safe.
        """

    async def session(self, session_id: str) -> SessionRecord | None:
        """One session, or None."""

    async def sessions(
        self,
        owner: str | None = None,
        limit: int = 100,
        before: Place | None = None,
        *,
        archived: bool | None = None,
        waiting: bool = False,
    ) -> list[SessionRecord]:
        """Sessions, newest ``updated_at`` first (``id`` where equal), strictly after the place ``before``;
        ``owner`` None means everybody's, ``archived`` None both kinds, ``waiting`` those with pending decisions."""

    async def pending(self, session_ids: Sequence[str]) -> dict[str, int]:
        """How many decisions are pending in each of these sessions; those with none are left out."""

    async def outline(self, session_id: str) -> Outline:
        """Every message version of a session without its content (``parts`` None), and its runs, decisions, receipts
        and annotations (in any order, without ``data`` and ``range``). A decision that was made has no ``input``."""

    async def messages(self, session_id: str, versions: Sequence[str]) -> list[MessageRecord]:
        """The named versions with their content, in the order of ``versions``; unknown ones are left out."""

    async def run(self, run_id: str) -> RunRecord | None:
        """One run, of whatever session, or None."""

    async def unfinished(self) -> list[RunRecord]:
        """Every run that is queued or running, in order of session and ``first_seq``."""

    async def annotations(
        self, session_id: str, version: str, kind: str | None, limit: int, offset: int
    ) -> list[AnnotationRecord]:
        """A page of the annotations of a message version, of one kind or of all, in order of creation."""

    async def due(self, before: int) -> list[DecisionRecord]:
        """The first ``DUE_AT_ONCE`` pending decisions that expire at ``before`` (ms) or earlier, the oldest first."""

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        """Events ``first_seq..last_seq`` (inclusive) that are in segments, ordered; only those of ``run`` if named."""

    async def expire(self, before: int) -> int:
        """Delete log segments whose newest event is older than ``before`` (ms); return how many. Rows of messages,
        runs and sessions stay. Events of unfinished runs are kept whatever their age, and those of
        a run go together, once its end is old enough."""

    async def checkpoint(self, *, truncate: bool = False) -> bool:
        """Tidy up beside the writer (SQLite: a WAL checkpoint). Never raises for a busy store. With ``truncate`` True
        when nothing of what was deleted before is left anywhere, as far as it has left the journal."""
