"""What one commit of the journal is made of: the work of every session in it, and the batch that the store is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from strandline.core.session import Change
from strandline.runtime.feed import Entry
from strandline.runtime.live import Command, Decided, LiveRun, LiveSession
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


def batch_of(number: int, works: Sequence[Work], plan: Plan) -> Batch | None:
    """Batch ``number``: this work, and the segments of ``plan``; None when there is nothing to write."""
    if not works and not plan.segments:
        return None
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
    )


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
