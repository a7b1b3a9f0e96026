"""What of the log has to go with a message that was deleted or replaced, or with an annotation that was taken back
(DESIGN §14.15). Pure.

Works on the plain form of events, so that a store can ask it about the lines that it holds, whatever wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.chunks import STEERING

_CONTENT = frozenset(
    {"message-created", "message-replaced", "appended", "checkpointed", "decision-requested", "decision-made"}
)
_ABOUT = frozenset({"annotated", "annotation-removed"})
"""Both hold a summary, which has names that users have given."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """The message ``message`` (a version) says nothing any more of what events before number ``before`` have said.

    ``message_id`` is its id on the wire, ``runs`` those that wrote it, ``near`` others whose log may hold something of
    it. ``deleted``: what was said about it, and what clients sent along for it, goes too; else it was replaced.
    ``title``: one that the session owed to its text.
    """

    session: str
    message: str
    message_id: str
    runs: tuple[str, ...]
    near: tuple[str, ...]
    before: int
    deleted: bool
    title: str | None = None


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The ``annotation`` of the message ``message`` (a version) says nothing any more of what events before number
    ``before`` have said of it; all their summaries of its ``kind`` say ``summary`` now, what is left. Those from before
    it was added, too: where another one was taken back since, they say what was left then, and so its name."""

    session: str
    message: str
    annotation: str
    kind: str
    summary: Mapping[str, Any]
    before: int


def without(plain: Mapping[str, Any], seq: int, what: Erasure | TakenBack) -> dict[str, Any] | None:
    """What is left of event number ``seq`` of the session; None when it stays as it is."""
    if seq >= what.before:
        return None
    kind = plain.get("type")
    if isinstance(what, TakenBack):
        return _unsaid(plain, what) if kind in _ABOUT else None
    if kind == "session-changed":
        if what.title is None or plain.get("title") != what.title:
            return None
        return {name: value for name, value in plain.items() if name != "title"}
    if kind == "run-queued":
        if "body" not in plain or not what.deleted or what.message not in (plain.get("message"), plain.get("parent")):
            return None
        return {name: value for name, value in plain.items() if name != "body"}
    if kind == "appended" and plain.get("message") != what.message:
        return _untaken(plain, what.message_id)
    if kind == "steered":
        goes = plain.get("run") in what.runs or plain.get("message_id") == what.message_id
    else:
        goes = plain.get("message") == what.message and (kind in _CONTENT or (kind in _ABOUT and what.deleted))
    if not goes:
        return None
    run = {"run": plain["run"]} if plain.get("run") is not None else {}
    return {"type": "erased", "at": plain.get("at", 0), **run}


def _unsaid(plain: Mapping[str, Any], what: TakenBack) -> dict[str, Any] | None:
    """What is left of what was said about a message."""
    if (plain.get("message"), plain.get("kind")) != (what.message, what.kind):
        return None
    said = ("data", "range") if plain.get("annotation") == what.annotation else ()
    return {**{name: value for name, value in plain.items() if name not in said}, "summary": what.summary}


def _untaken(plain: Mapping[str, Any], message_id: str) -> dict[str, Any] | None:
    """What is left of what another message has said: a lost attempt may have taken a note that is the message now."""
    chunks, found = list(plain.get("chunks", ())), False
    for index, chunk in enumerate(chunks):
        if chunk.get("type") == STEERING and chunk.get("id") == message_id:
            chunks[index], found = {**chunk, "parts": []}, True
    return {**plain, "chunks": chunks} if found else None
