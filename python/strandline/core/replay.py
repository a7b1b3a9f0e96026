"""What a reader that comes (back) is given (PROTOCOL §3, §6.2): the rest of a run, a whole message, or nothing.

Pure. The answer never depends on time or on what other readers do, only on the cursor and on the session's state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from strandline.core.events import Event, frames_in, run_of
from strandline.core.offset import Cursor, MalformedCursor, Standing, parse, standing
from strandline.core.session import SessionState


@dataclass(frozen=True, slots=True)
class Tail:
    """Everything of ``run`` strictly after ``cursor``."""

    run: str
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole message of ``run``, folded, then whatever follows."""

    run: str


@dataclass(frozen=True, slots=True)
class Own:
    """What ``run`` adds, from its first chunk: for who has posted what it goes on from."""

    run: str


class Nothing(Enum):
    """There is nothing to send: 204."""

    NOTHING = "nothing"


NOTHING = Nothing.NOTHING

Plan = Tail | Whole | Own | Nothing


@dataclass(frozen=True, slots=True)
class Unresumable:
    """The cursor cannot be continued. ``why`` is for people; ``run`` is what can be shown in full instead."""

    why: str
    run: str | None


def read_cursor(text: str, state: SessionState) -> Cursor | str:
    """The cursor in ``text``, or a sentence that says why it cannot be continued in this session."""
    try:
        cursor = parse(text)
    except MalformedCursor:
        return "The cursor was not minted by this service."
    match standing(cursor, epoch=state.record.epoch, first_seq=1, last_seq=state.last_seq):
        case Standing.GOOD:
            return cursor
        case Standing.OTHER_EPOCH:
            return "The cursor belongs to another incarnation of this session."
        case _:
            return "The cursor is ahead of this session."


def plan_named(state: SessionState, run_id: str) -> Plan:
    """A reader that names its run gets the whole of it, whatever its state, unless its message was deleted."""
    return Whole(run_id) if run_id in state.runs and not _is_deleted(state, run_id) else NOTHING


def plan_fresh(state: SessionState, owed: str | None) -> Plan:
    """A reader without cursor gets the run that it is owed (PROTOCOL §6.6), else the one that is being written; either
    only if its message is on the active path."""
    if owed is not None and owed in state.runs:
        version = state.runs[owed].message
        if any(message.version == version for message in state.path()):
            return Whole(owed)
    current = state.current()
    return Whole(current.id) if current is not None else NOTHING


def plan_tail(state: SessionState, cursor: Cursor, event: Event | None) -> Plan | Unresumable:
    """A reader with a good cursor. ``event``: the one it points to, None if no longer in the log."""
    # The outline remembers the ends of runs for ever, so a reader that has seen one is never shown it again.
    if cursor.frame == 1 and any(run.last_seq == cursor.seq for run in state.runs.values()):
        return NOTHING
    at = run_of(event) if event is not None else None
    run = state.runs.get(at) if at is not None else None
    if event is None or run is None:
        return Unresumable("The log no longer reaches back to the cursor.", fallback(state))
    if _is_deleted(state, run.id):
        return Unresumable("The message was deleted.", None)
    if cursor.frame > frames_in(event):
        return Unresumable("The cursor is ahead of this session.", run.id)
    if cursor == Cursor(cursor.epoch, run.first_seq, 0) and state.continues(run):
        return Whole(run.id)  # a history answer left the message out, with what earlier runs have written of it
    return Tail(run.id, cursor)


def fallback(state: SessionState) -> str | None:
    """The run to show in full to a reader whose cursor says nothing: the one that is being written, else the newest
    that was neither deleted nor spawned."""
    ended = (run for run in reversed(state.runs.values()) if not run.spawned and not _is_deleted(state, run.id))
    run = state.current() or next(ended, None)
    return run.id if run is not None else None


def _is_deleted(state: SessionState, run_id: str) -> bool:
    return state.messages[state.runs[run_id].message].deleted
