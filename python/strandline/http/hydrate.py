"""A conversation as TanStack AI loads it (PROTOCOL §11.8, §11.11)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from strandline.codecs.ag_ui import pending_interrupts
from strandline.codecs.ag_ui_messages import ui_messages
from strandline.core.branch import branches
from strandline.core.offset import Cursor
from strandline.core.paging import Page, page_of
from strandline.core.records import MessageRecord
from strandline.core.session import SessionState
from strandline.errors import NotFound, Unprocessable
from strandline.http.sessions import annotated, authors
from strandline.runtime.history import contents_of, settled_path
from strandline.runtime.live import LiveSession
from strandline.runtime.thread_ag_ui import place_after_history, renewals
from strandline.stores.port import Store


async def hydrated(session: LiveSession | None, store: Store, limit: int | None, before: str | None) -> dict[str, Any]:
    """The active path without what is being written: the one who joins that run, or follows the live thread from
    ``cursor``, is sent all of it. ``session`` is None for one that does not exist, as far as the caller may know."""
    if session is None:
        _page([], limit, before)
        return {**_answer([], None, None, None, None), "more": False, "branches": {}, "authors": {}, "seq": 0}
    renewed = await renewals(session, store)
    # The active run, the path and the cursor are read together, without an await, and the messages as they were then.
    seq, current = session.feed.last_seq, session.state.current()
    path = settled_path(session.state)
    places = {id: place.plain() for id, place in branches(session.state.messages, session.state.path()).items()}
    notes = annotated(session.state, path)
    place = place_after_history(session, renewed)
    more = _leaves_out(session.state, len(path), place)
    chosen = _page(path, limit, before)
    # Of the newest reply that waits for somebody; what waits for its turn comes after it.
    pending = next((found for each in reversed(path) if (found := session.state.waiting(each.version))), [])
    try:
        contents = await contents_of(session, store, chosen.messages)
    except NotFound:
        return await hydrated(None, store, None, None)
    if contents is None:
        return await hydrated(session, store, limit, before)
    stored = [contents[message.version] for message in chosen.messages if message.version in contents]
    leaf = path[-1].message_id if path else None
    about = {"branch": places, "annotations": notes}
    shown = [_shown(message, about) for message in stored]
    answer = _answer(shown, current.id if current is not None else None, chosen.before, str(place), leaf)
    asking = [each for each in stored if pending and each.version == pending[-1].message]
    if asking and before is None:
        answer["interrupts"] = {"runId": pending[-1].run, "pending": pending_interrupts(asking[0], pending)}
    return {**answer, "more": more, "branches": places, "authors": authors(chosen.messages), "seq": seq}


def _leaves_out(state: SessionState, settled: int, place: Cursor) -> bool:
    """Whether something after the first reply that is being written may have been said before ``place``, so that it is
    neither shown nor told from there on: it began before, and went on, was started over or waited for its turn."""
    rest = state.path()[settled:]
    if len(rest) < 2:
        return False
    return min(run.first_seq for run in state.runs.values() if run.message == rest[0].version) < place.seq


def _shown(message: MessageRecord, about: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A message as the wire has it, with what there is ``about`` it: name → message id → value, in the metadata of the
    first of the messages that it is shown as."""
    shown = ui_messages(message, _iso(message.created_at))
    more = {name: of[message.message_id] for name, of in about.items() if message.message_id in of}
    if more:
        metadata = shown[0].get("metadata", {})
        shown[0]["metadata"] = {**metadata, "strandline": {**metadata.get("strandline", {}), **more}}
    return shown


def _answer(
    messages: list[list[dict[str, Any]]], run: str | None, older: str | None, cursor: str | None, leaf: str | None
) -> dict[str, Any]:
    return {
        "messages": [shown for message in messages for shown in message],
        "activeRun": {"runId": run} if run is not None else None,
        "interrupts": None,
        "page": {"truncated": True, "cursor": older} if older is not None else {"truncated": False},
        "cursor": cursor,
        "leaf": leaf,
    }


def _page(path: list[MessageRecord], limit: int | None, before: str | None) -> Page:
    """The newest ``limit`` messages, or those before the message ``before``. Raises Unprocessable."""
    found = page_of(path, (), limit if limit is not None else len(path), before=before)
    if found is None:
        raise Unprocessable("`before` is not a message of this conversation (any more).", code="invalid-request")
    return found


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
