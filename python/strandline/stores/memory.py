"""A store that forgets: for tests, demos and services that do not need their conversations after a restart.

It keeps the promises of the port except durability. What was committed survives ``close`` and ``open`` of the same
object, journal and all, so a restart can be played without a file; a new object is empty, so every session in it
gets a new epoch from whoever creates it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from strandline.core.erasing import Erasure, TakenBack
from strandline.core.records import (
    AnnotationRecord,
    DecisionRecord,
    MessageRecord,
    ReceiptRecord,
    RunRecord,
    SessionRecord,
)
from strandline.errors import Conflict, StoreInUse, StoreUnavailable
from strandline.stores.port import DUE_AT_ONCE, Batch, Entry, Outline, Place, Segment
from strandline.stores.rows import erased, merged, segments_from


class MemoryStore:
    """A store in this process's memory. See ``stores.port`` for what it promises."""

    def __init__(self) -> None:
        self._is_open = False
        self._last = 0
        self._journal: dict[int, tuple[Entry, ...]] = {}
        self._sessions: dict[str, SessionRecord] = {}
        self._messages: dict[str, dict[str, MessageRecord]] = {}
        self._runs: dict[str, RunRecord] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._log: dict[str, list[Segment]] = {}
        self._erased: dict[str, int] = {}
        self._decisions: dict[tuple[str, str], DecisionRecord] = {}
        self._annotations: dict[tuple[str, str], AnnotationRecord] = {}
        self._receipts: dict[str, list[ReceiptRecord]] = {}

    async def open(self) -> int:
        if self._is_open:
            raise StoreInUse("This MemoryStore is open already: one application per store, close it first.")
        self._is_open = True
        self._settle_journal()
        return self._last

    async def close(self) -> None:
        self._is_open = False

    async def commit(self, batch: Batch) -> None:
        """See the port. Raises Conflict, and writes nothing, when another run of the session has a run's key."""
        self._check_open()
        if batch.number <= self._last:
            return
        # Whatever can fail comes first; nothing below this line raises or awaits, which makes it atomic.
        keys = self._keys_after(batch)
        self._keys = keys
        if batch.entries:
            self._journal[batch.number] = batch.entries
        for session in batch.sessions:
            self._sessions[session.id] = session
        for message in batch.messages:
            self._messages.setdefault(message.session, {})[message.version] = message
        for run in batch.runs:
            self._runs[run.id] = run
        for decision in batch.decisions:
            self._decisions[decision.session, decision.id] = decision
        for annotation in batch.annotations:
            self._annotations[annotation.session, annotation.id] = annotation
        for receipt in batch.receipts:
            self._receipts.setdefault(receipt.session, []).append(receipt)
        for place in batch.unannotated:
            self._annotations.pop(place, None)
        for segment in batch.segments:
            self._log.setdefault(segment.session, []).append(segment)
        for what in batch.erased:
            self._erase_content(what)
        for session_id in batch.deleted:
            self._erase(session_id)
            self._erased[session_id] = batch.number
        if batch.trim is not None:
            self._journal = {number: entries for number, entries in self._journal.items() if number > batch.trim}
            self._erased = {session: number for session, number in self._erased.items() if number > batch.trim}
        self._last = batch.number

    async def session(self, session_id: str) -> SessionRecord | None:
        self._check_open()
        return self._sessions.get(session_id)

    async def sessions(
        self,
        owner: str | None = None,
        limit: int = 100,
        before: Place | None = None,
        *,
        archived: bool | None = None,
        waiting: bool = False,
    ) -> list[SessionRecord]:
        self._check_open()
        pending = {each.session for each in self._decisions.values() if each.pending}
        place = None if before is None else (-before[0], before[1])
        found = [
            ((-record.updated_at, record.id), record)
            for record in self._sessions.values()
            if owner in (None, record.owner)
            and archived in (None, record.archived)
            and (not waiting or record.id in pending)
        ]
        return [record for at, record in sorted(found) if place is None or at > place][:limit]

    async def pending(self, session_ids: Sequence[str]) -> dict[str, int]:
        self._check_open()
        return dict(
            Counter(each.session for each in self._decisions.values() if each.pending and each.session in session_ids)
        )

    async def outline(self, session_id: str) -> Outline:
        self._check_open()
        runs = (record for record in self._runs.values() if record.session == session_id)
        decisions = (record for record in self._decisions.values() if record.session == session_id)
        return Outline(
            tuple(replace(record, parts=None) for record in self._messages.get(session_id, {}).values()),
            tuple(sorted(runs, key=lambda record: record.first_seq)),
            tuple(record if record.pending else replace(record, input=None) for record in decisions),
            tuple(
                replace(record, data=None, range=None)
                for record in self._annotations.values()
                if record.session == session_id
            ),
            tuple(self._receipts.get(session_id, ())),
        )

    async def messages(self, session_id: str, versions: Sequence[str]) -> list[MessageRecord]:
        self._check_open()
        found = self._messages.get(session_id, {})
        return [found[version] for version in versions if version in found]

    async def run(self, run_id: str) -> RunRecord | None:
        self._check_open()
        return self._runs.get(run_id)

    async def unfinished(self) -> list[RunRecord]:
        self._check_open()
        return sorted(
            (record for record in self._runs.values() if record.active),
            key=lambda record: (record.session, record.first_seq),
        )

    async def annotations(
        self, session_id: str, version: str, kind: str | None, limit: int, offset: int
    ) -> list[AnnotationRecord]:
        self._check_open()
        found = (each for each in self._annotations.values() if (each.session, each.message) == (session_id, version))
        return [each for each in found if kind in (None, each.kind)][offset : offset + limit]

    async def due(self, before: int) -> list[DecisionRecord]:
        self._check_open()
        expiring = (record for record in self._decisions.values() if record.pending and record.expires_at is not None)
        found = [record for record in expiring if record.expires_at is not None and record.expires_at <= before]
        return sorted(found, key=lambda record: record.expires_at or 0)[:DUE_AT_ONCE]

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        self._check_open()
        segments = self._log.get(session_id, ())
        wanted = (segment.events for segment in segments if run is None or segment.run == run)
        return merged(wanted, first_seq, last_seq)

    async def expire(self, before: int) -> int:
        self._check_open()
        gone = 0
        for session, segments in list(self._log.items()):
            kept = [segment for segment in segments if segment.at >= before or self._is_kept(segment.run, before)]
            gone += len(segments) - len(kept)
            self._log[session] = kept
        return gone

    async def checkpoint(self, *, truncate: bool = False) -> bool:
        """Nothing to tidy up."""
        return truncate

    def _settle_journal(self) -> None:
        pending: dict[str, dict[int, bytes]] = {}
        for number, entries in self._journal.items():
            for entry in entries:
                if number <= self._erased.get(entry.session, 0):
                    continue
                pending.setdefault(entry.session, {}).update(enumerate(entry.events, entry.first_seq))
        for session, events in pending.items():
            segments = self._log.setdefault(session, [])
            newest = max(events)
            for segment in segments:
                for seq, _ in segment.events:
                    events.pop(seq, None)
            segments.extend(segments_from(session, events))
            record = self._sessions.get(session)
            if record is not None and record.last_seq < newest:
                self._sessions[session] = replace(record, last_seq=newest)
        self._journal.clear()
        self._erased.clear()

    def _erase(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
        self._messages.pop(session_id, None)
        self._log.pop(session_id, None)
        self._receipts.pop(session_id, None)
        self._runs = {id: run for id, run in self._runs.items() if run.session != session_id}
        self._keys = {name: run for name, run in self._keys.items() if name[0] != session_id}
        self._decisions = {name: each for name, each in self._decisions.items() if name[0] != session_id}
        self._annotations = {name: each for name, each in self._annotations.items() if name[0] != session_id}

    def _erase_content(self, what: Erasure | TakenBack) -> None:
        session, version = what.session, what.message
        self._log[session] = [
            replace(segment, events=tuple(erased(dict(segment.events), what).items()))
            for segment in self._log.get(session, ())
        ]
        for number, entries in self._journal.items():
            self._journal[number] = tuple(_entry_without(entry, what) for entry in entries)
        if isinstance(what, TakenBack):
            return
        self._decisions = {
            name: each for name, each in self._decisions.items() if (each.session, each.message) != (session, version)
        }
        said = {each.message_id for each in self._messages.get(session, {}).values() if not each.deleted}
        self._receipts[session] = [
            replace(each, digest=None)
            if each.message_id == what.message_id or (each.run in what.runs and each.message_id not in said)
            else each
            for each in self._receipts.get(session, ())
        ]
        if what.deleted:
            self._annotations = {
                name: each
                for name, each in self._annotations.items()
                if (each.session, each.message) != (session, version)
            }
            for run in list(self._runs.values()):
                if run.session == session and version in (run.message, run.parent):
                    self._runs[run.id] = replace(run, body=None)

    def _keys_after(self, batch: Batch) -> dict[tuple[str, str], str]:
        named = [run for run in batch.runs if run.key is not None]
        if not named:
            return self._keys
        keys = dict(self._keys)
        for run in named:
            assert run.key is not None
            if keys.setdefault((run.session, run.key), run.id) != run.id:
                raise Conflict(f"The store has decided otherwise: session {run.session} has another run with this key.")
        return keys

    def _is_kept(self, run_id: str | None, before: int) -> bool:
        run = None if run_id is None else self._runs.get(run_id)
        return run is not None and (run.active or (run.ended_at is not None and run.ended_at >= before))

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable("This MemoryStore is not open.")


def _entry_without(entry: Entry, what: Erasure | TakenBack) -> Entry:
    if entry.session != what.session:
        return entry
    return replace(entry, events=tuple(erased(dict(enumerate(entry.events, entry.first_seq)), what).values()))
