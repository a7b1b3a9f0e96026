"""The session wire over HTTP (PROTOCOL §8.1-8.4, 8.6, 8.7): list, create, change, delete, read, send, steer, stop."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.agents.catalog import Agents
from strandline.agents.run import ui_message
from strandline.codecs.filters import Filter
from strandline.core.annotation import summaries
from strandline.core.ids import check_id
from strandline.core.intake import SUBMIT
from strandline.core.offset import Cursor
from strandline.core.records import MessageRecord, ReceiptRecord, RunRecord, SessionRecord
from strandline.core.session import SessionState
from strandline.errors import Forbidden, NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.decisions import may_decide, pending_plain
from strandline.http.intake import (
    caller_of,
    changes_in,
    is_answer,
    limit_of,
    posted_in,
    session_request,
    title_in,
    with_reasoning,
)
from strandline.http.problems import problem_route, read_json
from strandline.http.steering import steered
from strandline.http.stopping import stop_answer
from strandline.http.stream import query_id
from strandline.http.wire import AGENT_HEADER, KEY_HEADER, SUBMIT_HEADER
from strandline.runtime.history import page
from strandline.runtime.live import LiveSession
from strandline.runtime.service import Service
from strandline.stores.port import Place

Allowed = Callable[[Identity, Any, Action], bool]

MAX_MESSAGES = 1000
_LISTED = 50
_FRESH = {"Cache-Control": "no-store"}
_ARCHIVED = {"false": False, "true": True, "any": None}


def router(service: Service, identify: Callable[..., Any], allows: Allowed, agents: Agents) -> APIRouter:
    """The routes, without prefix; those of ``session_feed.py`` come after them."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    @routes.get("")
    async def listed(request: Request, identity: Identity = who) -> JSONResponse:
        if not allows(identity, None, Action.LIST):
            raise Forbidden("You may not list sessions.")
        query = request.query_params
        archived, waiting = query.get("archived", "false"), query.get("pending", "false")
        if archived not in _ARCHIVED or waiting not in ("false", "true"):
            detail = "`archived` must be `false`, `true` or `any`, `pending` `true` or `false`."
            raise Unprocessable(detail, code="invalid-request")
        limit = limit_of(request, _LISTED, settings.max_sessions_listed)
        place = _place_in(query["before"]) if "before" in query else None
        loaded = {session.id: session for session in service.sessions.in_memory()}
        of_all = waiting == "true"
        needed = {Action.READ, Action.DECIDE} if of_all else {Action.READ}
        found: list[SessionRecord] = []
        while len(found) <= limit:
            # What the caller may not see is passed over here, so that the place of a page never names one of these.
            read = await service.store.sessions(
                None if of_all else identity.user, limit + 1, place, archived=_ARCHIVED[archived], waiting=of_all
            )
            found += [each for each in read if all(allows(identity, each, action) for action in needed)]
            if len(read) <= limit:
                break
            place = read[-1].updated_at, read[-1].id
        shown, more = found[:limit], len(found) > limit
        pending = await service.store.pending([record.id for record in shown])
        return JSONResponse(
            {
                "sessions": [
                    session_plain(
                        record,
                        loaded[record.id].state.current() if record.id in loaded else None,
                        pending.get(record.id, 0),
                    )
                    for record in shown
                ],
                "next": _place_text(shown[-1]) if more else None,
            },
            headers=_FRESH,
        )

    @routes.post("")
    async def create(request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, settings.max_body)
        session, new = await service.sessions.create(
            check_id(body["id"], "id") if body.get("id") is not None else None,
            title_in(body.get("title")),
            caller_of(identity, {}),
            lambda record: allows(identity, record, Action.MANAGE),
        )
        return _one(session, 201 if new else 200)

    @routes.get("/{session_id:anything}/messages")
    async def messages(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        session = await service.sessions.find(check_id(session_id, "id"))
        if session is None or not allows(identity, session.state.record, Action.READ):
            raise NotFound("There is no such session.")
        before, after = query_id(request, "before"), query_id(request, "after")
        if before is not None and after is not None:
            raise Unprocessable("Name `before` or `after`, not both.", code="invalid-request")
        limit, wanted = limit_of(request, _LISTED, MAX_MESSAGES), Filter(reasoning=with_reasoning(request))
        found = await page(session, service.store, limit, before=before, after=after)
        return JSONResponse(
            {
                "messages": [message_plain(message, wanted) for message in found.messages],
                "versions": {
                    each.message_id: each.version for each in found.messages if each.version != each.message_id
                },
                "activeRun": active_plain(found.active),
                "annotations": annotated(session.state, found.messages),
                "authors": authors((*found.messages, *found.spawned)),
                "runs": {message_id: run_plain(run) for message_id, run in found.runs.items()},
                "branches": {message_id: place.plain() for message_id, place in found.branches.items()},
                "decisions": pending_plain(session.state),
                "cursor": str(found.cursor),
                "page": {"before": found.before, "after": found.after},
                "spawned": [
                    {"message": message_plain(message, wanted), **beside_plain(session.state, message)}
                    for message in found.spawned
                ],
            },
            headers=_FRESH,
        )

    @routes.post("/{session_id:anything}/messages")
    async def send(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        check_id(session_id, "id")
        body = await read_json(request, settings.max_body)
        asked, along = session_request(body, request.headers.get(KEY_HEADER), request.headers.get(SUBMIT_HEADER))
        if is_answer(asked):
            answered = await service.sessions.answer_posted(
                session_id,
                asked,
                posted_in(body["message"]),
                caller_of(identity, along),
                may_decide(identity, allows),
            )
            if answered.run is None:
                at = answered.session.feed.cursor(answered.session.state.record.epoch)
                waiting = {"run": None, "messageId": answered.message_id, "cursor": str(at)}
                return JSONResponse({**waiting, "pending": answered.pending}, status_code=202)
            return _accepted(answered.session, answered.run)
        session, run = await service.sessions.submit(
            session_id,
            asked,
            caller_of(identity, along),
            agents.choose(request.headers.get(AGENT_HEADER)),
            lambda record: allows(identity, record, Action.SUBMIT),
        )
        if isinstance(run, ReceiptRecord):
            return JSONResponse(steered(session, run), status_code=202)
        return _accepted(session, run)

    @routes.post("/{session_id:anything}/steer")
    async def steer(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        check_id(session_id, "id")
        body = await read_json(request, settings.max_body)
        asked, along = session_request({**body, "trigger": SUBMIT}, request.headers.get(KEY_HEADER))
        if asked.last is None or asked.last.role != "user":
            raise Unprocessable("`message` must be a user message.", code="invalid-message")
        session, receipt = await service.sessions.steer(
            session_id,
            asked.last,
            check_id(body["run"], "run") if body.get("run") is not None else None,
            caller_of(identity, along),
            lambda record: allows(identity, record, Action.SUBMIT),
            asked.key,
        )
        return JSONResponse(steered(session, receipt), status_code=202)

    @routes.post("/{session_id:anything}/stop")
    async def stop(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        return await stop_answer(service, request, session_id, identity, allows)

    @routes.patch("/{session_id:anything}")
    async def change(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        _whole_path(session_id)
        body = await read_json(request, settings.max_body)
        session = await service.sessions.change(
            session_id,
            changes_in(body),
            caller_of(identity, {}),
            lambda record: allows(identity, record, Action.MANAGE),
        )
        return _one(session)

    @routes.delete("/{session_id:anything}")
    async def delete(session_id: str, identity: Identity = who) -> Response:
        await service.sessions.delete(
            _whole_path(session_id),
            caller_of(identity, {}),
            lambda record: allows(identity, record, Action.DELETE),
        )
        return Response(status_code=204)

    return routes


def beside_plain(state: SessionState, message: MessageRecord) -> dict[str, Any]:
    """Whose a spawned message is, and beside which message it was written (PROTOCOL §8.6)."""
    run = state.runs[message.run or ""]
    parent = state.messages.get(message.parent or "")
    return {"run": run.id, "agent": run.agent, "parent": parent.message_id if parent is not None else None}


def session_plain(record: SessionRecord, active: RunRecord | None, pending: int) -> dict[str, Any]:
    """A session as lists and snapshots show it (PROTOCOL §8.1); ``pending``: so many decisions it waits for."""
    return {
        "id": record.id,
        "title": record.title,
        "archived": record.archived,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "activeRun": active.id if active is not None else None,
        "submit": record.submit,
        "pending": pending,
    }


def message_plain(message: MessageRecord, wanted: Filter) -> dict[str, Any]:
    """A stored message as a UIMessage, with what the reader wants of it."""
    plain = ui_message(message)
    return {**plain, "parts": wanted.parts(plain["parts"])}


def authors(messages: Iterable[MessageRecord]) -> dict[str, dict[str, str]]:
    """Who has said these messages, and who has edited them last, by message id (PROTOCOL §16.7)."""
    return {
        each.message_id: {"by": each.author, **({"editedBy": each.editor} if each.editor is not None else {})}
        for each in messages
    }


def annotated(state: SessionState, messages: Iterable[MessageRecord]) -> dict[str, dict[str, Any]]:
    """The summaries of these messages' annotations, by message id (PROTOCOL §19.3)."""
    found = summaries(state.annotations.values())
    return {each.message_id: found[each.version] for each in messages if each.version in found}


def active_plain(run: RunRecord | None) -> dict[str, Any] | None:
    """The run that is writing, as history answers tell it (PROTOCOL §6.6)."""
    return None if run is None else {"id": run.id, "messageId": run.message_id, "status": run.status.value}


def run_plain(run: RunRecord) -> dict[str, Any]:
    """How a run ended, as history answers tell it (PROTOCOL §6.6)."""
    plain = {"run": run.id, "status": run.status.value, "reason": run.reason}
    return {**plain, "error": run.error} if run.error is not None else plain


def _accepted(session: LiveSession, run: RunRecord) -> JSONResponse:
    """A run is in the log (PROTOCOL §8.7)."""
    queued = Cursor(session.state.record.epoch, run.first_seq, 1)
    return JSONResponse({"run": run.id, "messageId": run.message_id, "cursor": str(queued)}, status_code=202)


def _whole_path(session_id: str) -> str:
    """The id of a route that has nothing after it. Raises InvalidId, and NotFound where something follows."""
    if "/" in session_id:
        raise NotFound("There is no such route; see PROTOCOL.md §8.")
    return check_id(session_id, "id")


def _one(session: LiveSession, status: int = 200) -> JSONResponse:
    state = session.state
    shown = session_plain(state.record, state.current(), len(state.waiting()))
    return JSONResponse({"session": shown}, status_code=status, headers=_FRESH)


def _place_text(record: SessionRecord) -> str:
    """Where a page ended, as an opaque string that needs no escaping in a query."""
    return base64.urlsafe_b64encode(f"{record.updated_at} {record.id}".encode()).decode().rstrip("=")


def _place_in(text: str) -> Place:
    """What ``_place_text`` wrote. Raises Unprocessable."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
        at, _, session_id = decoded.partition(" ")
        if not (at.isascii() and at.isdecimal() and len(at) < 19):
            raise ValueError(at)
        return int(at), check_id(session_id, "before")
    except (ValueError, binascii.Error):
        raise Unprocessable("`before` must be the `next` of the page before.", code="invalid-request") from None
