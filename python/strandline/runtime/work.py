"""What one commit of the journal is made of: the work of every session in it, taken from what waits there, and the
batch that the store is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from strandline.codecs import native
from strandline.core.events import Appended, RunEnded, run_of
from strandline.core.project import project
from strandline.core.session import Change
from strandline.runtime import journal_log
from strandline.runtime.feed import Entry
from strandline.runtime.journal_log import aside
from strandline.runtime.live import Command, Decided, LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.segments import Plan
from strandline.stores.port import Batch
from strandline.stores.port import Entry as JournalEntry


@dataclass(slots=True)
class Work:
    """What one session adds to a batch; ``runs`` and ``chunks``: what of it their agents have added."""

    session: LiveSession
    change: Change
    entries: list[Entry]
    command: Command | None
    decided: Decided | None
    runs: list[LiveRun]
    chunks: int

    @property
    def deletes(self) -> bool:
        """True when nothing of the session is left afterwards. Its last events are published, but not written."""
        return self.decided is not None and self.decided.deletes


def batch_of(number: int, works: Sequence[Work], plan: Plan) -> Batch:
    """Batch ``number``: this work, and the segments of ``plan``."""
    kept = [work for work in works if not work.deletes]
    sessions = {record.id: record for record in plan.sessions}
    structural = [work.change for work in kept if work.change.structural]
    sessions |= {change.record.id: change.record for change in structural}
    return Batch(
        number,
        tuple(
            JournalEntry(work.session.id, work.entries[0].seq, tuple([entry.blob for entry in work.entries]))
            for work in kept
        ),
        tuple(sessions.values()),
        tuple(message for change in structural for message in change.messages.values()),
        tuple(run for change in structural for run in change.runs.values()),
        plan.segments,
        plan.trim,
        tuple(work.session.id for work in works if work.deletes),
        tuple(decision for change in structural for decision in change.decisions.values()),
        tuple(each for change in structural for each in change.annotations.values() if each is not None),
        tuple(
            (change.record.id, annotation_id)
            for change in structural
            for annotation_id, each in change.annotations.items()
            if each is None
        ),
        tuple(what for work in works if work.decided is not None for what in work.decided.erases),
        tuple(receipt for change in structural for receipt in change.receipts),
    )


def take(session: LiveSession, number: int, at: int, unwritable: Callable[[LiveSession, LiveRun], None]) -> Work | None:
    """What a session adds to batch ``number``: the next decision, and what its runs have pending; None for nothing.
    ``unwritable`` is told of runs whose chunks cannot be written down."""
    command, decided, blobs = _next_decision(session) if session.commands else (None, None, [])
    events = decided.events if decided is not None else ()
    ended = {event.run for event in events if isinstance(event, RunEnded)}
    first = session.state.last_seq + 1
    entries = [
        Entry(seq, event, run_of(event), blob, number)
        for seq, (event, blob) in enumerate(zip(events, blobs, strict=True), first)
    ]
    runs: list[LiveRun] = []
    chunks = 0
    for live in session.live.values():
        if not live.pending or live.id in ended:
            continue
        sent = live.pending.sent
        appended = Appended(at, live.id, live.message, live.pending.take(), sent)
        try:
            blob = native.encode(appended)
        except Exception as exc:
            aside(journal_log.refused, session.id, live.id, exc)
            unwritable(session, live)
            continue
        entries.append(Entry(first + len(entries), appended, live.id, blob, number))
        runs.append(live)
        chunks += len(appended.chunks)
    if decided is None:
        # Nine of ten: text was added, and nothing else has happened.
        if not entries:
            return None
        return Work(session, session.state.appended(len(entries)), entries, None, None, runs, chunks)
    change = project(session.state, [entry.event for entry in entries], decided.contents)
    return Work(session, change, entries, command, decided, runs, chunks)


def _next_decision(session: LiveSession) -> tuple[Command | None, Decided | None, list[bytes]]:
    """The next decision that changes something, with its events as bytes; those before it are answered."""
    while session.commands:
        command = session.commands[0]
        try:
            decided = command.decide(session)
            if decided is None:
                return None, None, []
            # What cannot be projected or written is the command's fault, and must not take others with it.
            project(session.state, decided.events, decided.contents)
            blobs = [native.encode(event) for event in decided.events]
            session.commands.popleft()
            if decided.events or decided.deletes:
                decided.taken()
                return command, decided, blobs
            resolve(command, decided.answer)
        except Exception as exc:
            session.commands.popleft()
            refuse(command, exc)
    return None, None, []


def resolve(command: Command, answer: Callable[[], Any]) -> None:
    """Answer who waits for a decision."""
    if not command.future.done():
        command.future.set_result(answer())


def refuse(command: Command, exc: Exception) -> None:
    """Tell who waits for a decision that it was not taken."""
    if not command.future.done():
        command.future.set_exception(exc)
        # Nobody may be waiting any more (the request was cancelled): then the refusal is not news.
        command.future.exception()
