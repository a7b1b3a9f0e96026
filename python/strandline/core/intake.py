"""Which request is this? (DESIGN §14.1, PROTOCOL §7 and §11.2)

One pure decision over the committed state of a session. It is taken inside the writer, so two devices that ask at
the same moment are answered one after the other, and the second one sees what the first one did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.core.records import MessageRecord
from strandline.core.session import SessionState

Parts = tuple[Mapping[str, Any], ...]

SUBMIT = "submit-message"
REGENERATE = "regenerate-message"
RUN = "run-agent"


@dataclass(frozen=True, slots=True)
class Incoming:
    """The last message of a request: the only one that is read."""

    id: str
    role: str
    parts: Parts
    metadata: Any = None


@dataclass(frozen=True, slots=True)
class Request:
    """A POST. ``message_id`` is the AI SDK wire's ``messageId``, ``key`` the idempotency key; ``run`` is the id that an
    AG-UI client gives the run it asks for (trigger RUN); ``submit`` the policy (``policy.py``) for this message."""

    trigger: str
    message_id: str | None
    last: Incoming | None
    key: str | None
    run: str | None = None
    submit: str | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """Stream a run that exists already; nothing is started."""

    run: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start a run. ``create`` is a user message to add under ``parent`` first; else the run answers ``parent``."""

    parent: str | None
    create: Incoming | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing can be done. ``code`` is a problem code of PROTOCOL §7."""

    code: str
    detail: str


Decision = Attach | Start | Refuse


def decide(request: Request, state: SessionState, known: Mapping[str, Parts]) -> Decision:
    """Say what a request means. ``known``: the parts of the user messages it may be compared with, by version."""
    if request.key is not None:
        keyed = state.keyed(request.key)
        if keyed is not None:
            return Attach(keyed.id)
    if request.run is not None and request.run in state.runs:
        return Attach(request.run)
    if request.trigger == RUN:
        return _run(request, state, known)
    if request.trigger == REGENERATE:
        return _regenerate(request, state)
    if request.message_id is not None:
        return _named(request, request.message_id, state, known)
    return _plain(request, state, known)


def _plain(request: Request, state: SessionState, known: Mapping[str, Parts]) -> Decision:
    last = request.last
    if last is None or last.role != "user":
        return Refuse("invalid-message", "The message to send (the last of `messages`) must be a user message.")
    found = state.find(last.id)
    if found is None:
        return Start(state.record.leaf, create=last)
    if found.role != "user" or known.get(found.version) != last.parts:
        return Refuse(
            "message-exists",
            f"A message with the id {last.id!r} is already part of this session and says something else. "
            "Give a new message a new id, or name it in `messageId` to edit it.",
        )
    return _newest(state, found) or Start(found.version)


def _named(request: Request, message_id: str, state: SessionState, known: Mapping[str, Parts]) -> Decision:
    found = state.find(message_id)
    if found is None:
        return Refuse("unknown-message", f"There is no message {message_id!r} in this session.")
    if found.role != "user":
        return Refuse("invalid-message", "A reply is continued by posting it with its answers, and nothing after it.")
    last = request.last
    if last is None or last.id != message_id or last.role != "user":
        return Refuse("invalid-message", "The message (the last of `messages`) must be the one that `messageId` names.")
    if known.get(found.version) != last.parts:
        return Start(found.parent, create=last)
    newest = _newest(state, found)
    if newest is not None and state.runs[newest.run].active:
        return newest
    return Start(found.version)


def _regenerate(request: Request, state: SessionState) -> Decision:
    found = state.find(request.message_id) if request.message_id is not None else None
    if found is None and request.last is not None:
        found = state.find(request.last.id)
        if found is None and request.last.role == "user":
            # The POST of this message never arrived and the user pressed "retry": it is a new message.
            return Start(state.record.leaf, create=request.last)
    if found is None and request.message_id is None and request.last is None and state.record.leaf is not None:
        found = state.messages[state.record.leaf]
    if found is None:
        return Refuse("unknown-message", "There is no message to answer again in this session.")
    if found.role == "user":
        return Start(found.version)
    if found.parent is None:
        return Refuse("unknown-message", f"The message {found.message_id!r} does not answer anything.")
    if state.messages[found.parent].deleted:
        return Refuse("unknown-message", f"What the message {found.message_id!r} answers was deleted.")
    return Start(found.parent)


def _run(request: Request, state: SessionState, known: Mapping[str, Parts]) -> Decision:
    """An AG-UI client says which run it wants, not why: a known message is to be answered again, or was edited."""
    last = request.last
    if last is None or last.role != "user":
        return Refuse("invalid-message", "The last of `messages` must be the user message to answer.")
    found = state.find(last.id)
    if found is None:
        return Start(state.record.leaf, create=last)
    if found.role != "user":
        return Refuse("message-exists", f"The id {last.id!r} is that of a reply in this session.")
    if said_alike(known.get(found.version, ()), last.parts):
        return Start(found.version)
    return Start(found.parent, create=last)


def said_alike(one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]) -> bool:
    """Whether two lists of user parts are one message as far as an AG-UI client can tell, which knows no data parts and
    may join texts."""
    return _gist(one) == _gist(other)


def _gist(parts: Iterable[Mapping[str, Any]]) -> tuple[str, list[str]]:
    parts = list(parts)
    text = "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
    return text, [str(part.get("url", "")) for part in parts if part.get("type") == "file"]


def _newest(state: SessionState, message: MessageRecord) -> Attach | None:
    runs = state.answers(message.version)
    return Attach(runs[-1].id) if runs else None


def compared(request: Request, state: SessionState) -> str | None:
    """The version of the user message whose parts ``decide`` will compare with the request's, if there is one."""
    message_id = request.message_id or (request.last.id if request.last is not None else None)
    if request.trigger == REGENERATE or message_id is None:
        return None
    found = state.find(message_id)
    return found.version if found is not None and found.role == "user" else None
