"""Telling a running agent something (PROTOCOL §14.3): how a note gets to it, and what becomes of one that it never
took.

A note is in the log before the agent sees it. It is acknowledged by a ``steering-message`` chunk in the reply, or
turned into a user message by the commit that ends the run: never both, never neither, whatever way the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from strandline.core.events import Event, MessageCreated, RunQueued, Steered
from strandline.core.intake import SUBMIT, Incoming, Parts, Request
from strandline.core.receipts import digest_of
from strandline.core.records import ReceiptRecord, RunRecord
from strandline.core.run import Status
from strandline.errors import BodyTooLarge, Conflict, TooMany
from strandline.runtime.ending import ends_with
from strandline.runtime.live import Decided, LiveSession
from strandline.runtime.live_run import Caller, LiveRun, Note, size_of
from strandline.settings import Settings

MAX_NOTES = 100
"""Notes that one run may have not taken yet."""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What becomes of notes that nobody took: ``events`` for the commit that ends their runs, ``leaf`` the version that
    the active path then ends at, ``caller`` that of the run that answers them, if one is queued."""

    events: tuple[Event, ...]
    leaf: str | None
    caller: Caller | None = None


def repeated(session: LiveSession, request: Request) -> ReceiptRecord | None:
    """What a request was answered that is made again after its message was told to an agent: known by its key, or as
    the message that it was. Raises Conflict."""
    receipt = session.state.receipts.keyed(request.key) if request.key is not None else None
    if receipt is None and request.trigger == SUBMIT and request.last is not None and request.message_id is None:
        return told_already(session, request.last.id, request.last.parts)
    return receipt


def told_already(session: LiveSession, message_id: str, parts: Parts) -> ReceiptRecord | None:
    """The receipt of a note with this id, if there was one. Raises Conflict when that said something else."""
    receipt = session.state.receipts.named(message_id)
    if receipt is not None and receipt.digest != digest_of(parts):
        raise Conflict(
            f"The id {message_id!r} was used for something else that an agent was told in this session. "
            "Give a new message a new id.",
            code="message-exists",
        )
    return receipt


def tell(
    session: LiveSession, run: RunRecord, message: Incoming, caller: Caller, key: str | None, at: int, limits: Settings
) -> Decided:
    """Tell a running agent a message. Answers with the receipt. Raises TooMany and BodyTooLarge."""
    live = session.live[run.id]
    said, limit = size_of(message.parts, message.metadata), limits.chunk_limit
    if said > limit:
        raise BodyTooLarge(f"What a running agent is told may be {limit} bytes long. Send its URL instead.")
    size, waiting = said + size_of(caller.body), sum(note.size for note in live.notes.values())
    if live.notes and (len(live.notes) >= MAX_NOTES or waiting + size > limits.notes_limit):
        raise TooMany("The agent has not taken what it was told before.", code="too-many-notes", retry_after=2.0)
    event = Steered(at, caller.by, run.id, message.id, message.parts, message.metadata, key)

    def answer() -> ReceiptRecord | None:
        if message.id in live.notes:
            live.notes[message.id] = Note(message.id, message.parts, caller.by, at, message.metadata, caller, size)
        return session.state.receipts.named(message.id)

    return Decided((event,), answer)


def left_over(session: LiveSession, ended: Iterable[LiveRun], at: int, mint: Callable[[str], str]) -> LeftOver:
    """The notes of runs that end now, as user messages at the end of the active path, in the order they came."""
    events: list[Event] = []
    leaf = session.state.record.leaf
    for live in ended:
        for note in live.notes.values():
            version = mint("msg")
            events.append(MessageCreated(at, note.by, version, note.id, leaf, "user", note.parts, note.metadata))
            leaf = version
    return LeftOver(tuple(events), leaf)


def overtaken_by(session: LiveSession, live: LiveRun) -> str | None:
    """Who was the last to tell a run something that it has not taken. As a message it comes after what the run asks
    for, and takes the place of that (DESIGN §14.9). Nobody: there is nothing, or nothing that is answered."""
    if not live.notes or session.state.runs[live.id].spawned:
        return None
    return next(reversed(live.notes.values())).by


def answered(session: LiveSession, live: LiveRun, status: Status, at: int, mint: Callable[[str], str]) -> LeftOver:
    """The same for one run and what ends with it; one that has ended by itself, or waits for a decision, is followed by
    a run that answers the last of them."""
    ended = (live, *ends_with(session, live.id, status))
    left, run = left_over(session, ended, at, mint), session.state.runs[live.id]
    if not left.events or status not in (Status.COMPLETED, Status.SUSPENDED) or run.spawned:
        return left
    last = next(reversed(live.notes.values()))
    answer, message = mint("run"), mint("msg")
    caller = last.caller or Caller(last.by.removeprefix("user:"))
    queued = RunQueued(at, last.by, answer, message, message, left.leaf, run.agent, body=caller.body or None)
    return LeftOver((*left.events, queued), message, caller)
