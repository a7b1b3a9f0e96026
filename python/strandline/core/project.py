"""What events make of a session: which records are new, and which are replaced. Pure: the store's rows are exactly the
records of a ``Change``, and the session takes it in after the commit (``SessionState.absorb``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from strandline.core.annotation import name_of
from strandline.core.branch import leaf_without
from strandline.core.decisions import asked, decided_value
from strandline.core.events import (
    Annotated,
    AnnotationRemoved,
    Appended,
    BranchSelected,
    DecisionMade,
    DecisionRequested,
    Event,
    MessageCreated,
    MessageDeleted,
    MessageReplaced,
    RunClaimed,
    RunEnded,
    RunQueued,
    RunRecovered,
    RunStarted,
    SessionChanged,
    Steered,
)
from strandline.core.receipts import digest_of
from strandline.core.records import AnnotationRecord, MessageRecord, ReceiptRecord, RunRecord
from strandline.core.run import Status, may
from strandline.core.session import Change, Content, SessionState

_TITLE_LENGTH = 80


class IllegalTransition(RuntimeError):
    """A run was asked to move to a status that its current one does not lead to, or to begin with the key of
    another one: a defect of the caller."""


def project(state: SessionState, events: Sequence[Event], contents: Mapping[str, Content]) -> Change:
    """What ``events``, the next ones of a session, change. ``contents`` holds the content after them of every
    message whose run ends or goes on in them, or for which a decision is made. Raises IllegalTransition."""
    seq = state.last_seq
    change = Change(state.record, seq + len(events))
    fields: dict[str, Any] = {}
    for event in events:
        seq += 1
        match event:
            case Appended():
                pass
            case MessageCreated():
                change.messages[event.message] = MessageRecord(
                    session=state.record.id,
                    version=event.message,
                    message_id=event.message_id,
                    parent=event.parent,
                    role=event.role,
                    author=event.by,
                    created_at=event.at,
                    parts=event.parts,
                    metadata=event.metadata,
                )
                fields |= {"leaf": event.message, "updated_at": event.at}
                if event.role == "user" and fields.get("title", state.record.title) is None:
                    fields["title"] = title_of(event.parts)
            case RunQueued():
                if event.key is not None and state.keyed(event.key) is not None:
                    raise IllegalTransition(f"run {event.run} cannot begin: its key is that of another one")
                change.runs[event.run] = RunRecord(
                    id=event.run,
                    session=state.record.id,
                    message=event.message,
                    message_id=event.message_id,
                    parent=event.parent,
                    agent=event.agent,
                    author=event.by,
                    status=Status.QUEUED,
                    created_at=event.at,
                    first_seq=seq,
                    parent_run=event.parent_run,
                    key=event.key,
                    spawned=bool(event.spawned),
                    body=event.body,
                )
                fields["updated_at"] = event.at
                known = change.messages.get(event.message) or state.messages.get(event.message)
                if known is not None:  # a continuation
                    parts, metadata = contents[event.message]
                    message = replace(known, run=event.run, parts=parts, metadata=metadata)
                else:
                    message = MessageRecord(
                        session=state.record.id,
                        version=event.message,
                        message_id=event.message_id,
                        parent=event.parent,
                        role="assistant",
                        author=f"agent:{event.agent}",
                        created_at=event.at,
                        run=event.run,
                        parts=(),
                        spawned=bool(event.spawned),
                    )
                    if not event.spawned:
                        fields["leaf"] = event.message
                change.messages[event.message] = message
            case RunStarted():
                _move(state, change, event.run, Status.RUNNING, {})
            case RunEnded():
                known_run = change.runs.get(event.run) or state.runs[event.run]
                goes_on = event.status is Status.SUSPENDED and known_run.spawned
                _move(
                    state,
                    change,
                    event.run,
                    event.status,
                    {
                        "body": known_run.body if goes_on else None,  # nobody is called with it any more
                        "reason": event.reason,
                        "error": event.error,
                        "finish_reason": event.finish_reason,
                        "usage": event.usage,
                        "ended_at": event.at,
                        "last_seq": seq,
                    },
                )
                message = change.messages.get(event.message) or state.messages[event.message]
                parts, metadata = contents[event.message]
                change.messages[event.message] = replace(message, parts=parts, metadata=metadata)
                fields["updated_at"] = event.at
            case RunRecovered():
                run = change.runs.get(event.run) or state.runs[event.run]
                change.runs[event.run] = replace(run, attempt=event.attempt)
            case RunClaimed():
                run = change.runs.get(event.run) or state.runs[event.run]
                change.runs[event.run] = replace(run, producer=event.producer)
            case SessionChanged():
                fields |= {
                    "title": event.title,
                    "archived": event.archived,
                    "submit": event.submit,
                    "updated_at": event.at,
                }
            case DecisionRequested():
                change.decisions[event.decision] = asked(state.record.id, event)
            case DecisionMade():
                decision = change.decisions.get(event.decision) or state.decisions[event.decision]
                change.decisions[event.decision] = replace(
                    decision,
                    outcome=event.outcome,
                    value=decided_value(event),
                    decided_at=event.at,
                    decided_by=event.by,
                )
                _rewrite(state, change, event.message, contents[event.message])
                fields["updated_at"] = event.at
            case BranchSelected():
                fields |= {"leaf": event.leaf, "updated_at": event.at}
            case MessageReplaced():
                _rewrite(state, change, event.message, (event.parts, event.metadata))
                change.messages[event.message] = replace(change.messages[event.message], editor=event.by)
                fields["updated_at"] = event.at
                user = change.messages[event.message].role == "user"
                if user and fields.get("title", state.record.title) is None:
                    fields["title"] = title_of(event.parts)
            case MessageDeleted():
                _rewrite(state, change, event.message, ((), None))
                change.messages[event.message] = replace(change.messages[event.message], deleted=True)
                fields["updated_at"] = event.at
                if fields.get("leaf", state.record.leaf) == event.message:
                    fields["leaf"] = leaf_without({**state.messages, **change.messages}, event.message)
            case Annotated():
                change.annotations[event.annotation] = AnnotationRecord(
                    session=state.record.id,
                    id=event.annotation,
                    message=event.message,
                    message_id=event.message_id,
                    kind=event.kind,
                    author=event.by,
                    created_at=event.at,
                    name=name_of(event.data),
                    data=event.data,
                    range=event.range,
                )
            case AnnotationRemoved():
                change.annotations[event.annotation] = None
            case Steered():
                digest = digest_of(event.parts)
                change.receipts.append(
                    ReceiptRecord(state.record.id, event.message_id, event.run, seq, digest, event.key)
                )
            case _:
                pass
    if fields or change.messages or change.runs or change.decisions or change.annotations or change.receipts:
        change.record = replace(state.record, last_seq=seq, **fields)
        change.structural = True
    return change


def _rewrite(state: SessionState, change: Change, version: str, content: Content) -> None:
    message = change.messages.get(version) or state.messages[version]
    parts, metadata = content
    change.messages[version] = replace(message, parts=parts, metadata=metadata)


def _move(state: SessionState, change: Change, run_id: str, status: Status, fields: Mapping[str, Any]) -> None:
    run = change.runs.get(run_id) or state.runs[run_id]
    if not may(run.status, status):
        raise IllegalTransition(f"run {run_id} cannot go from {run.status} to {status}")
    change.runs[run_id] = replace(run, status=status, **fields)


def title_of(parts: Iterable[Mapping[str, Any]]) -> str | None:
    text = " ".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    line = " ".join(text.split())
    if not line:
        return None
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1] + "…"
