"""A session as its log leaves it: messages with parents, runs, the active path.

``SessionState`` is the outline that a live session keeps in memory (no message content). What a list of new events
would change is a ``Change`` (``core/project.py``); after its commit ``absorb`` makes it so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from strandline.core.erasing import Erasure
from strandline.core.receipts import Receipts
from strandline.core.records import (
    AnnotationRecord,
    DecisionRecord,
    MessageRecord,
    ReceiptRecord,
    RunRecord,
    SessionRecord,
)
from strandline.core.run import Status

Content = tuple[tuple[Mapping[str, Any], ...], Any]
"""The parts and the metadata of a message."""


@dataclass(slots=True)
class Change:
    """What a list of events makes of a session: whole records, new or replaced. Where it is not ``structural`` only
    ``last_seq`` is new: most commits only append to a message, and cost no record."""

    record: SessionRecord
    last_seq: int
    messages: dict[str, MessageRecord] = field(default_factory=dict)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    structural: bool = False
    decisions: dict[str, DecisionRecord] = field(default_factory=dict)
    annotations: dict[str, AnnotationRecord | None] = field(default_factory=dict)
    """By id; None for one that was taken back."""
    receipts: list[ReceiptRecord] = field(default_factory=list)


class SessionState:
    """The outline of one session at its last committed event, number ``last_seq``. The record's own ``last_seq`` is
    that of the last structural change; ``row`` has the newest."""

    __slots__ = ("_by_key", "annotations", "decisions", "last_seq", "messages", "receipts", "record", "runs")

    def __init__(
        self,
        record: SessionRecord,
        messages: Iterable[MessageRecord] = (),
        runs: Iterable[RunRecord] = (),
        decisions: Iterable[DecisionRecord] = (),
        annotations: Iterable[AnnotationRecord] = (),
        receipts: Iterable[ReceiptRecord] = (),
    ) -> None:
        self.record = record
        self.last_seq = record.last_seq
        self.messages: dict[str, MessageRecord] = {message.version: message for message in messages}
        self.runs: dict[str, RunRecord] = {run.id: run for run in runs}
        self.decisions: dict[str, DecisionRecord] = {decision.id: decision for decision in decisions}
        self.annotations: dict[str, AnnotationRecord] = {annotation.id: annotation for annotation in annotations}
        self.receipts = Receipts(receipts)
        self._by_key: dict[str, str] = {run.key: run.id for run in self.runs.values() if run.key is not None}

    @property
    def row(self) -> SessionRecord:
        """The record as the store should have it."""
        return replace(self.record, last_seq=self.last_seq)

    def path(self, leaf: str | None = None) -> list[MessageRecord]:
        """The active path, oldest message first, without what was deleted; with ``leaf`` the path that ends there."""
        found: list[MessageRecord] = []
        version = leaf if leaf is not None else self.record.leaf
        while version is not None:
            message = self.messages[version]
            if not message.deleted:
                found.append(message)
            version = message.parent
        found.reverse()
        return found

    def find(self, message_id: str) -> MessageRecord | None:
        """The message that the wire calls ``message_id``: on the active path, else the newest version anywhere."""
        for message in reversed(self.path()):
            if message.message_id == message_id:
                return message
        for message in reversed(self.messages.values()):
            if message.message_id == message_id and not message.deleted and not message.spawned:
                return message
        return None

    def beside(self, message_id: str) -> MessageRecord | None:
        """The message of a spawned run that the wire calls ``message_id``."""
        for message in reversed(self.messages.values()):
            if message.message_id == message_id and message.spawned and not message.deleted:
                return message
        return None

    def answers(self, version: str) -> list[RunRecord]:
        """The runs that answer a message version, oldest first."""
        return [run for run in self.runs.values() if run.parent == version and not run.spawned]

    def waiting(self, version: str | None = None) -> list[DecisionRecord]:
        """The decisions that are pending, oldest first; with ``version`` those of one message."""
        return [each for each in self.decisions.values() if each.pending and version in (None, each.message)]

    def continues(self, run: RunRecord) -> bool:
        """Whether a run goes on writing the message of the run that it names (a spawned one has its own)."""
        before = self.runs.get(run.parent_run) if run.parent_run is not None else None
        return before is not None and before.message == run.message

    def beginner(self, run: RunRecord) -> RunRecord:
        """The run that has begun the message which a run writes: itself, where it continues none."""
        while self.continues(run):
            run = self.runs[str(run.parent_run)]
        return run

    def asker(self, run: RunRecord) -> str:
        """Who asked for the reply that a run, or the one that has spawned it, is part of, as events name it."""
        while run.spawned and run.parent_run is not None:
            run = self.runs[run.parent_run]
        return run.author

    def continuation(self, run_id: str) -> RunRecord | None:
        """The run that goes on where this one was suspended."""
        found = (run for run in reversed(self.runs.values()) if run.parent_run == run_id)
        return next((run for run in found if self.continues(run)), None)

    def keyed(self, key: str) -> RunRecord | None:
        """The run that a request with this idempotency key started."""
        run_id = self._by_key.get(key)
        return None if run_id is None else self.runs[run_id]

    def active(self) -> list[RunRecord]:
        """The runs that have not ended, oldest first, without spawned ones: those that write on a path."""
        return [run for run in self.runs.values() if run.active and not run.spawned]

    def descendants(self, run_id: str) -> list[RunRecord]:
        """The active runs that a run has spawned, and those that these have, oldest first."""
        family = {run_id}
        found: list[RunRecord] = []
        for run in self.runs.values():  # a run is queued after the one that spawned it
            if run.spawned and run.parent_run in family:
                family.add(run.id)
                if run.active:
                    found.append(run)
        return found

    def roots(self) -> list[RunRecord]:
        """The active runs of the conversation itself, in its order."""
        active = self.active()
        return active if len(active) < 2 else sorted(active, key=self._began)

    def writing(self) -> list[RunRecord]:
        """Those whose message is on the active path."""
        roots = self.roots()
        shown = {message.version for message in self.path()} if roots else set()
        return [run for run in roots if run.message in shown]

    def current(self) -> RunRecord | None:
        """The reply that is being written, as far as one is shown at a time: the first one of the active path."""
        return next(iter(self.writing()), None)

    def running(self) -> RunRecord | None:
        """The run that a stop or a note without name means: the newest one that is running, on the active path if there
        is one."""
        known = [*reversed(self.writing()), *reversed(self.roots())]
        return next((run for run in known if run.status is Status.RUNNING), None)

    def turn(self) -> RunRecord | None:
        """The queued run that may start now: nothing before it is being written or waits for a decision."""
        first = next(iter(self.roots()), None)
        if first is None or first.status is not Status.QUEUED:
            return None
        before = {message.version for message in self.path(first.parent)} if first.parent is not None else set()
        return None if any(decision.message in before for decision in self.waiting()) else first

    def _began(self, run: RunRecord) -> int:
        """Where a run stands in the conversation: a continuation stands where the message that it goes on with does."""
        while run.parent_run is not None and not run.spawned:
            run = self.runs[run.parent_run]
        return run.first_seq

    def appended(self, count: int) -> Change:
        """What ``count`` more events change that only append to messages."""
        return Change(self.record, self.last_seq + count, {}, {})

    def absorb(self, change: Change) -> None:
        """Make a committed change part of this state."""
        self.last_seq = change.last_seq
        if not change.structural:
            return
        self.record = change.record
        for version, message in change.messages.items():
            self.messages[version] = replace(message, parts=None, metadata=None)
        for run in change.runs.values():
            self.runs[run.id] = run
            if run.key is not None:
                self._by_key[run.key] = run.id
        for receipt in change.receipts:
            self.receipts.take(receipt)
        for decision in change.decisions.values():
            self.decisions[decision.id] = decision if decision.pending else replace(decision, input=None)
        for annotation_id, annotation in change.annotations.items():
            if annotation is None:
                self.annotations.pop(annotation_id, None)
            else:
                self.annotations[annotation_id] = replace(annotation, data=None, range=None)
        for message in change.messages.values():
            if message.deleted:
                self._let_go(message.version)

    def erase(self, what: Erasure) -> None:
        """What a message has said is gone, by its deletion or because it was replaced: so is what it has asked and was
        answered, and what its agents were told, unless that is said in a message of its own."""
        self._forget_decisions(what.message)
        said = {each.message_id for each in self.messages.values() if not each.deleted}
        self.receipts.erase(
            lambda each: each.message_id == what.message_id or (each.run in what.runs and each.message_id not in said)
        )

    def _forget_decisions(self, version: str) -> None:
        self.decisions = {id: each for id, each in self.decisions.items() if each.message != version}

    def _let_go(self, version: str) -> None:
        """Nothing of what was said in, for or about a message that was deleted stays."""
        self._forget_decisions(version)
        self.annotations = {id: each for id, each in self.annotations.items() if each.message != version}
        for run in [run for run in self.runs.values() if run.body is not None and version in (run.message, run.parent)]:
            self.runs[run.id] = replace(run, body=None)
