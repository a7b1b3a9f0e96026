"""A conversation as TanStack AI loads it (PROTOCOL §11.8, §11.11)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from strandline.codecs.ag_ui_messages import ui_messages
from strandline.core.records import MessageRecord
from strandline.errors import Unprocessable
from strandline.runtime.live import LiveSession
from strandline.runtime.thread_ag_ui import place_after_history, renewals
from strandline.stores.port import Store

MAX_PAGE = 1000


async def hydrated(session: LiveSession | None, store: Store, limit: int | None, before: str | None) -> dict[str, Any]:
    """The active path without what is being written: the one who joins that run, or follows the live thread from
    ``cursor``, is sent all of it. ``session`` is None for one that does not exist, as far as the caller may know."""
    if session is None:
        _page([], limit, before)
        return _answer([], None, {"truncated": False}, None, None)
    renewed = await renewals(session, store)
    # The active run, the path and the cursor are read together, without an await; stored messages do not change.
    runs = session.state.active()
    writing = {run.message for run in runs}
    path = [message for message in session.state.path() if message.version not in writing]
    cursor = str(place_after_history(session, renewed))
    chosen, older = _page(path, limit, before)
    stored = await store.messages(session.id, [message.version for message in chosen])
    if session.feed.deleted:
        return await hydrated(None, store, None, None)
    page = {"truncated": True, "cursor": older.message_id} if older is not None else {"truncated": False}
    leaf = path[-1].message_id if path else None
    return _answer(stored, runs[-1].id if runs else None, page, cursor, leaf)


def limit_of(request: Request) -> int | None:
    """How many messages are asked for; None for all. Raises Unprocessable."""
    text = request.query_params.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise Unprocessable("`limit` must be a whole number from 1.", code="invalid-request")
    return min(int(text), MAX_PAGE)


def _answer(
    messages: list[MessageRecord], run: str | None, page: dict[str, Any], cursor: str | None, leaf: str | None
) -> dict[str, Any]:
    return {
        "messages": [shown for message in messages for shown in ui_messages(message, _iso(message.created_at))],
        "activeRun": {"runId": run} if run is not None else None,
        "interrupts": None,
        "page": page,
        "cursor": cursor,
        "leaf": leaf,
    }


def _page(
    path: list[MessageRecord], limit: int | None, before: str | None
) -> tuple[list[MessageRecord], MessageRecord | None]:
    """The newest ``limit`` messages, or those before the message ``before``; and the oldest of them if there are older
    ones: the cursor of the next page."""
    end = len(path)
    if before is not None:
        end = next((index for index, message in enumerate(path) if message.message_id == before), -1)
        if end < 0:
            raise Unprocessable("`before` is not a message of this conversation (any more).", code="invalid-request")
    begin_at = max(0, end - limit) if limit is not None else 0
    return path[begin_at:end], path[begin_at] if begin_at > 0 else None


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
