"""Decisions about messages that are there: which branch is shown, what a message says from now on, and that it is gone
(PROTOCOL §16). Taken inside the writer."""

from __future__ import annotations

from collections.abc import Callable

from strandline.core.branch import newest_leaf, siblings
from strandline.core.erasing import Erasure
from strandline.core.events import (
    BranchSelected,
    DecisionMade,
    Event,
    MessageDeleted,
    MessageReplaced,
    RunEnded,
    SessionChanged,
    StopRequested,
)
from strandline.core.intake import Incoming
from strandline.core.project import title_of
from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.core.session import Content, SessionState
from strandline.errors import Conflict, Forbidden, NotFound
from strandline.runtime.live import Decided, LiveSession
from strandline.runtime.steering import left_over
from strandline.runtime.stopping import DELETED, PARENT_ENDED


def named(state: SessionState, name: str) -> MessageRecord | None:
    """The message with this id (on the active path, else the newest, else a spawned one), or of this version."""
    found = state.find(name) or state.beside(name) or state.messages.get(name)
    return found if found is not None and not found.deleted else None


def was_deleted(state: SessionState, name: str) -> bool:
    """Whether there was such a message."""
    return any(each.deleted and name in (each.message_id, each.version) for each in state.messages.values())


def select_branch(session: LiveSession, message: str, index: int | None, by: str, at: int) -> Decided:
    """Go to a message, or to the ``index``-th of its siblings. Raises Conflict where there is none."""
    state = session.state
    found = named(state, message)
    if found is None or found.spawned:
        raise Conflict("There is no such message (any more). Load the session again.", code="unknown-message")
    target = found.version
    if index is not None:
        beside = siblings(state.messages, found)
        if index >= len(beside):
            text = f"This message has {len(beside)} versions, so there is no number {index} (counted from 0)."
            raise Conflict(text, code="unknown-message")
        target = beside[index]

    def answer() -> tuple[str | None, str]:
        return state.record.leaf, str(session.feed.cursor(state.record.epoch))

    if any(each.version == target for each in state.path()):
        return Decided((), answer)
    end = newest_leaf(state.messages, target)
    assert end is not None  # the target was not deleted
    return Decided((BranchSelected(at, by, end, state.messages[end].message_id),), answer)


def replace(
    session: LiveSession,
    target: MessageRecord,
    known: MessageRecord | None,
    new: Incoming,
    by: str,
    at: int,
    *,
    any_role: bool,
) -> Decided:
    """A message says something else from now on; no event where it says that already. ``known``: as it is stored.

    Raises Forbidden where it is not a user's and only those may be changed, Conflict while it is being written."""
    state = session.state
    if target.role != "user" and not any_role:
        raise Forbidden("Only what users said can be changed from here.", code="not-a-user-message")
    if any(run.active for run in _writers(state, target.version)) or state.waiting(target.version):
        raise Conflict("This message is being written. Stop it, or wait for its end.", code="message-active")
    answer = target.message_id
    if known is not None and (known.parts, known.metadata) == (new.parts, new.metadata):
        return Decided((), lambda: answer)
    untitled, title = _untitled(session, target, known, by, at)
    event = MessageReplaced(at, by, target.version, target.message_id, new.parts, new.metadata)
    erasure = _erasure(session, target, len(untitled), title, deleted=False)
    return Decided((*untitled, event), lambda: answer, erases=(erasure,))


def delete(
    session: LiveSession,
    target: MessageRecord,
    known: MessageRecord | None,
    by: str,
    at: int,
    mint: Callable[[str], str],
) -> Decided:
    """A message is gone, whatever it is, and what was spawned beside it: what writes them ends first; what their agents
    were told and never took stays; what waits to answer it ends, and is gone with it, for it never said a word; what
    they wait for is superseded. ``known``: as it is stored."""
    state = session.state
    beside, unbegun = _beside(state, target.version), _unbegun(state, target)
    whys = {run.id: (by, DELETED) for run in (*_writers(state, target.version), *unbegun)}
    whys |= {run.id: ("server", PARENT_ENDED) for each in beside for run in _writers(state, each.version)}
    ended = [state.runs[run_id] for run_id in whys if state.runs[run_id].active]
    events: list[Event] = []
    for run in ended:
        who, why = whys[run.id]
        # Without closers: they would say again what is about to be erased.
        events.append(StopRequested(at, who, run.id, why))
        events.append(RunEnded(at, who, run.id, run.message, run.message_id, Status.STOPPED, why))
    gone = [*beside, *(state.messages[run.message] for run in unbegun), target]
    empty: Content = ((), None)
    contents = {each.version: empty for each in gone} | {run.message: empty for run in ended}
    events += left_over(session, [session.live[run.id] for run in ended], at, mint).events
    for each in gone:
        events += superseded(state, each.version, by, at)
    untitled, title = _untitled(session, target, known, by, at)
    events += untitled
    erasures: list[Erasure] = []
    for each in gone:
        erasures.append(_erasure(session, each, len(events), title if each is target else None, deleted=True))
        events.append(MessageDeleted(at, by, each.version, each.message_id))
    return Decided(tuple(events), lambda: None, contents, erases=tuple(erasures))


def superseded(state: SessionState, version: str, by: str, at: int) -> list[Event]:
    """The end of every decision that a message waits for, which is about to be deleted: nothing is added to it."""
    return [
        DecisionMade(at, by, each.id, each.run, each.message, each.message_id, "superseded", ())
        for each in state.waiting(version)
    ]


def _beside(state: SessionState, version: str) -> list[MessageRecord]:
    """What was spawned beside a message, and beside that, the innermost first."""
    inside, found = {version}, []
    for each in state.messages.values():  # a message comes after the one beside which it was written
        if each.spawned and each.parent in inside:
            inside.add(each.version)
            if not each.deleted:
                found.append(each)
    return found[::-1]


def _unbegun(state: SessionState, target: MessageRecord) -> list[RunRecord]:
    """The runs that wait for their turn to answer a message, each with a reply of its own, which is empty. What an
    agent wants to say unasked after a reply is no answer to that."""
    answers = state.answers(target.version) if target.role == "user" else []
    return [run for run in answers if run.status is Status.QUEUED]


def _writers(state: SessionState, version: str) -> list[RunRecord]:
    """The runs that have written, or write, a message."""
    return [run for run in state.runs.values() if run.message == version]


def check_author(
    session: LiveSession, target: MessageRecord, by: str, moderates: Callable[[SessionRecord], bool]
) -> None:
    """What a user has said is theirs to change and to take back, what was imported the owner's; and anybody's who
    ``moderates`` the session. Raises Forbidden."""
    record = session.state.record
    author = f"user:{record.owner}" if target.author == "server" else target.author
    if target.role == "user" and author != by and not moderates(record):
        raise Forbidden("Only who said this may change it, or take it back.", code="not-the-author")


def no_such_message() -> NotFound:
    """Unknown, deleted, or of another session."""
    return NotFound("There is no such message.")


def _untitled(
    session: LiveSession, target: MessageRecord, known: MessageRecord | None, by: str, at: int
) -> tuple[list[Event], str | None]:
    """A session whose title is the beginning of this message gives it up: the event of that, and the title."""
    record = session.state.record
    title = title_of(known.parts or ()) if known is not None and target.role == "user" else None
    if title is None or title != record.title:
        return [], title
    return [SessionChanged(at, by, None, record.archived, record.submit)], title


def _erasure(
    session: LiveSession, target: MessageRecord, events_before: int, title: str | None, *, deleted: bool
) -> Erasure:
    """``events_before``: how many events of the same decision come before the one that says it."""
    state = session.state
    runs = tuple(run.id for run in _writers(state, target.version))
    # What a user told a running agent stands in the log of that run, whose end made it a message.
    told_at = target.created_at if target.role == "user" else None
    near = [
        run.id
        for run in state.runs.values()
        if run.parent == target.version or (run.ended_at is not None and run.ended_at == told_at)
    ]
    return Erasure(
        session=session.id,
        message=target.version,
        message_id=target.message_id,
        runs=runs,
        near=tuple(id for id in near if id not in runs),
        before=state.last_seq + events_before + 1,
        deleted=deleted,
        title=title,
    )
