"""Reads what a browser sends: the shape of a chat request, checked, bounded, nothing trusted (PROTOCOL §2, §7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import category

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request as HTTPRequest

from strandline.core.chunks import complaint
from strandline.core.decisions import APPROVED, DENIED, ERROR, OUTPUT, Answer, Copy, Posted, size_of
from strandline.core.ids import check_id
from strandline.core.intake import REGENERATE, SUBMIT, Incoming, Request
from strandline.core.policy import POLICIES
from strandline.errors import Unprocessable
from strandline.http.auth import Identity
from strandline.http.wire import KEY_HEADER
from strandline.runtime.live_run import Caller
from strandline.runtime.managing import Changes


class _Anything(PathConvertor):
    """Like ``path``, but with line ends: whatever stands where an id belongs is answered by us, not by the router."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())

ODD = ("HEAD", "OPTIONS", "TRACE")
"""Methods that no route has and that the router would answer by itself, without a problem document."""

MAX_PARTS = 100
MAX_REASON = 200
MAX_TITLE = 200
_FORBIDDEN_IN_TITLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
_OWN = frozenset({"id", "messages", "trigger", "messageId"})


def chat_request(
    body: Mapping[str, Any], key: str | None, submit: str | None = None
) -> tuple[str, Request, dict[str, Any]]:
    """The session id, the request, and everything else in the body; ``submit`` is the header of that name. Raises
    Unprocessable or InvalidId."""
    chat_id = check_id(body.get("id"), "id")
    trigger, message_id = _asked(body)
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise Unprocessable("`messages` must be a list of UIMessages.", code="invalid-request")
    last = incoming(messages[-1]) if messages else None
    if key is not None:
        check_id(key, KEY_HEADER)
    rest = {name: value for name, value in body.items() if name not in _OWN}
    return chat_id, Request(trigger, message_id, last, key, submit=policy_in(submit)), rest


def session_request(
    body: Mapping[str, Any], key: str | None, submit: str | None = None
) -> tuple[Request, Mapping[str, Any]]:
    """The request that is posted to a session (PROTOCOL §8.7), and the `body` that the agent sees; ``submit`` is the
    header of that name. Raises Unprocessable or InvalidId."""
    trigger, message_id = _asked(body)
    message, along = body.get("message"), body.get("body")
    if message is None and trigger == SUBMIT:
        raise Unprocessable(f"`message` must be the message to send with {SUBMIT!r}.", code="invalid-message")
    if not isinstance(along, Mapping | None):
        raise Unprocessable("`body` must be an object.", code="invalid-request")
    if key is not None:
        check_id(key, KEY_HEADER)
    last = incoming(message) if message is not None else None
    policy = policy_in(body["submit"] if body.get("submit") is not None else submit)
    return Request(trigger, message_id, last, key, submit=policy), along or {}


def policy_in(submit: Any) -> str | None:
    """A submit policy that a client names. Raises Unprocessable."""
    if submit is not None and submit not in POLICIES:
        raise Unprocessable(f"The submit policy must be one of {', '.join(POLICIES)}.", code="invalid-request")
    return None if submit is None else str(submit)


def _asked(body: Mapping[str, Any]) -> tuple[str, str | None]:
    """`trigger` and `messageId`."""
    trigger, message_id = body.get("trigger"), body.get("messageId")
    if trigger not in (None, SUBMIT, REGENERATE):
        raise Unprocessable(f"`trigger` must be {SUBMIT!r} or {REGENERATE!r}.", code="invalid-request")
    return trigger or SUBMIT, check_id(message_id, "messageId") if message_id is not None else None


def changes_in(body: Mapping[str, Any]) -> Changes:
    """What a session is to become (PROTOCOL §8.3). Raises Unprocessable."""
    for name in body:
        if name not in ("title", "archived", "submit"):
            raise Unprocessable(
                "Only `title`, `archived` and `submit` of a session can be changed.", code="invalid-request"
            )
    if not isinstance(archived := body.get("archived"), bool | None):
        raise Unprocessable("`archived` must be true or false.", code="invalid-request")
    return Changes(
        (title_in(body["title"]),) if "title" in body else None,
        archived,
        (policy_in(body["submit"]),) if "submit" in body else None,
    )


def title_in(title: Any) -> str | None:
    """A title that a client gives; one of nothing but space is none. Raises Unprocessable.

    Not ``isprintable``: that forbids the joiners of Persian, Hindi and emoji, and the space of Japanese."""
    if title is None:
        return None
    if not isinstance(title, str) or len(title) > MAX_TITLE or not _FORBIDDEN_IN_TITLE.isdisjoint(map(category, title)):
        raise Unprocessable(
            f"`title` must be one line of at most {MAX_TITLE} characters without control characters.",
            code="invalid-request",
        )
    return title.strip() or None


def limit_of(request: HTTPRequest, default: int, most: int) -> int:
    """The query's `limit`: a whole number from 1; a larger one than ``most`` counts as that. Raises Unprocessable."""
    text = request.query_params.get("limit")
    if text is None:
        return min(default, most)
    number = int(text[:10]) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise Unprocessable("`limit` must be a whole number from 1.", code="invalid-request")
    return min(number, most)


def listed_in(request: HTTPRequest, name: str) -> frozenset[str]:
    """The values of a query parameter that may be repeated, or hold several with commas between."""
    return frozenset(
        value.strip() for text in request.query_params.getlist(name) for value in text.split(",") if value.strip()
    )


def with_reasoning(request: HTTPRequest) -> bool:
    """False where the query asks for `exclude=reasoning`. Raises Unprocessable for anything else to exclude."""
    exclude = listed_in(request, "exclude")
    if exclude - {"reasoning"}:
        raise Unprocessable("`exclude` may only be `reasoning`.", code="invalid-request")
    return not exclude


def incoming(message: Any, *, trusted: bool = False) -> Incoming:
    """One UIMessage. A browser's user message may hold text, files and data only; parts of other roles are not read
    (they are never stored). ``trusted`` messages come from the application (import) and may hold any parts."""
    if not isinstance(message, Mapping):
        raise Unprocessable("A message must be an object with `id`, `role` and `parts`.", code="invalid-message")
    message_id = check_id(message.get("id"), "the message's id")
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise Unprocessable("A message's `role` must be user, assistant or system.", code="invalid-message")
    if role != "user" and not trusted:
        return Incoming(message_id, role, ())
    parts = message.get("parts")
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise Unprocessable(f"A message needs 1 to {MAX_PARTS} `parts`.", code="invalid-message")
    for part in parts:
        problem = "A part must be an object." if not isinstance(part, Mapping) else complaint(part)
        if problem is None:
            problem = _part_problem(part) if not trusted else _imported_problem(part)
        if problem is not None:
            raise Unprocessable(f"The message has a part that cannot be taken: {problem}", code="invalid-message")
    metadata = message.get("metadata")
    if metadata is not None and (problem := complaint(metadata)) is not None:
        raise Unprocessable(f"The message's metadata cannot be taken: {problem}", code="invalid-message")
    return Incoming(message_id, role, tuple(parts), metadata)


def is_answer(request: Request) -> bool:
    """Whether a request posts a reply back, with answers to what it waits for (PROTOCOL §7.5)."""
    last = request.last
    return request.trigger == SUBMIT and last is not None and last.role == "assistant" and request.message_id == last.id


def posted_in(message: Any) -> Copy:
    """What the copy of a reply says of its tool calls, and how long it is; nothing else of it is read. Raises
    Unprocessable."""
    parts = message.get("parts")
    if not isinstance(parts, list):
        raise Unprocessable("A message needs `parts`.", code="invalid-message")
    calls = tuple(_posted(part) for part in parts if isinstance(part, Mapping) and "toolCallId" in part)
    return Copy(calls, size_of(parts))


def _posted(part: Mapping[str, Any]) -> Posted:
    kind, approval = part.get("type"), part.get("approval")
    name = part.get("toolName") if kind == "dynamic-tool" else str(kind).removeprefix("tool-")
    given = approval if isinstance(approval, Mapping) else {}
    approved, reason, error = given.get("approved"), given.get("reason"), part.get("errorText")
    if not isinstance(approved, bool | None) or not isinstance(reason, str | None) or not isinstance(error, str | None):
        raise Unprocessable("The message has a tool call that cannot be read.", code="invalid-message")
    return Posted(
        str(part["toolCallId"]),
        str(name),
        str(part.get("state")),
        part.get("input"),
        approved,
        reason,
        part.get("output"),
        error,
    )


def answer_in(body: Mapping[str, Any]) -> Answer:
    """What is decided (PROTOCOL §15.3): exactly one of `approved`, `output` and `errorText`. Raises Unprocessable."""
    named = [name for name in ("approved", "output", "errorText") if name in body]
    if len(named) != 1 or set(body) - {*named, "reason"}:
        raise Unprocessable("Send `approved` (and a `reason`), `output`, or `errorText`.", code="invalid-request")
    reason, value = body.get("reason"), body[named[0]]
    if not isinstance(reason, str | None) or (named[0] != "approved" and reason is not None):
        raise Unprocessable("`reason` must be a string, and belongs to `approved`.", code="invalid-request")
    if named[0] == "output":
        return Answer(OUTPUT, output=value)
    if named[0] == "approved" and isinstance(value, bool):
        return Answer(APPROVED if value else DENIED, reason)
    if named[0] == "errorText" and isinstance(value, str):
        return Answer(ERROR, error=value)
    raise Unprocessable("`approved` must be true or false, `errorText` a string.", code="invalid-request")


def _part_problem(part: Mapping[str, Any]) -> str | None:
    kind = part.get("type")
    if kind == "text":
        return None if isinstance(part.get("text"), str) else "a text part needs a string `text`"
    if kind == "file":
        known = isinstance(part.get("url"), str) and isinstance(part.get("mediaType"), str)
        return None if known else "a file part needs the strings `url` and `mediaType`"
    if isinstance(kind, str) and kind.startswith("data-") and len(kind) > 5:
        return None if "data" in part else "a data part needs `data`"
    return f"a user's message holds text, file and data parts, not {str(kind)[:60]!r}"


def _imported_problem(part: Mapping[str, Any]) -> str | None:
    return None if isinstance(part.get("type"), str) else "a part needs a string `type`"


def stop_reason(body: Mapping[str, Any]) -> str:
    """The reason of a stop, for people and logs."""
    reason = body.get("reason", "user")
    if not isinstance(reason, str) or not 1 <= len(reason) <= MAX_REASON or not reason.isprintable():
        raise Unprocessable(f"`reason` must be 1 to {MAX_REASON} printable characters.", code="invalid-request")
    return reason


def caller_of(identity: Identity, body: Mapping[str, Any]) -> Caller:
    """The identity as the runtime and the agent know it."""
    return Caller(identity.user, identity.device, identity.roles, identity.claims, body)
