"""What the requests of the agent wire ask for, read from their bodies (PROTOCOL §18). They raise
Unprocessable or InvalidId."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strandline.agents.leases import Returned, failed
from strandline.agents.spawning import Wanted
from strandline.core.chunks import FINISH_REASONS, complaint
from strandline.core.ids import check_id
from strandline.errors import Misconfigured, Unprocessable
from strandline.runtime.ending import Ending
from strandline.saying.decision import Terms, terms
from strandline.saying.republishing import MOST_PARTS

MAX_CHUNKS = 1000
MOST_MESSAGES = 1000
MAX_ERROR = 1000


def holder(body: Mapping[str, Any]) -> tuple[str, str]:
    """What a worker calls itself, and its claim."""
    return check_id(body.get("holder"), "holder"), check_id(body.get("claim"), "claim")


def number(body: Mapping[str, Any], name: str, least: int = 1) -> int:
    """A whole number."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**53:
        raise Unprocessable(f"`{name}` must be a whole number from {least}.", code="invalid-request")
    return value


def said(body: Mapping[str, Any]) -> str | list[Any]:
    """Text, or chunks, of an ``append``."""
    text, chunks = body.get("text"), body.get("chunks")
    if isinstance(text, str) and chunks is None:
        return text
    if text is None and isinstance(chunks, list) and len(chunks) <= MAX_CHUNKS:
        return chunks
    raise Unprocessable(f"Send `text`, or at most {MAX_CHUNKS} `chunks`.", code="invalid-request")


def content(body: Mapping[str, Any]) -> str | list[Any]:
    """What a ``replace`` lets the message say."""
    text, parts = body.get("text"), body.get("parts")
    if isinstance(text, str) and parts is None:
        return text
    if text is None and isinstance(parts, list) and len(parts) <= MOST_PARTS:
        return parts
    raise Unprocessable(f"Send `text`, or at most {MOST_PARTS} `parts`.", code="invalid-request")


def wanted(body: Mapping[str, Any]) -> Wanted:
    """What a ``spawn`` starts."""
    name, asked, given = body.get("agent"), body.get("prompt"), body.get("body") or {}
    texts = asked is None or isinstance(asked, str)
    if not texts and not (isinstance(asked, list) and len(asked) <= MOST_MESSAGES):
        raise Unprocessable(f"`prompt` must be a text or at most {MOST_MESSAGES} messages.", code="invalid-request")
    if not isinstance(given, dict):
        raise Unprocessable("`body` must be an object.", code="invalid-request")
    return Wanted(check_id(name, "agent's name"), asked, given)


def ending(body: Mapping[str, Any]) -> Returned | Ending:
    """How an ``end`` says that the agent has ended."""
    status, error = body.get("status"), body.get("error")
    reason, usage = body.get("finishReason"), body.get("usage")
    if status not in ("completed", "failed"):
        raise Unprocessable("`status` must be `completed` or `failed`.", code="invalid-request")
    if error is not None and not (isinstance(error, str) and len(error) <= MAX_ERROR):
        raise Unprocessable(f"`error` must be a text of at most {MAX_ERROR} characters.", code="invalid-request")
    if reason is not None and reason not in FINISH_REASONS:
        raise Unprocessable(f"`finishReason` must be one of {', '.join(FINISH_REASONS)}.", code="invalid-request")
    if usage is not None and (not isinstance(usage, dict) or (wrong := complaint(usage)) is not None):
        problem = "must be an object" if not isinstance(usage, dict) else wrong
        raise Unprocessable(f"`usage` {problem}.", code="invalid-request")
    asked = _awaits(body)
    return Returned(asked, reason, usage) if status == "completed" else failed(error, usage)


def _awaits(body: Mapping[str, Any]) -> dict[str, Terms]:
    """The calls that are left to be decided, by id."""
    asked, found = body.get("awaits") or [], {}
    if not isinstance(asked, list) or not all(isinstance(each, dict) for each in asked):
        raise Unprocessable("`awaits` must be a list of objects.", code="invalid-request")
    for each in asked:
        call, roles, seconds = each.get("toolCallId"), each.get("roles"), each.get("expiresIn")
        named = roles is None or (isinstance(roles, list) and all(isinstance(role, str) for role in roles))
        timed = seconds is None or (isinstance(seconds, int | float) and not isinstance(seconds, bool))
        if not isinstance(call, str) or not named or not timed:
            wanted = "`toolCallId`, a list of `roles` and a number of seconds `expiresIn`"
            raise Unprocessable(f"What is left to be decided has {wanted}.", code="invalid-request")
        try:
            found[call] = terms(roles, seconds)
        except Misconfigured as error:
            raise Unprocessable(f"`awaits`: {error}", code="invalid-request") from None
    return found
