"""Decisions over HTTP (PROTOCOL §15): what is pending, and what is decided. The same on every wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from strandline.core import decisions
from strandline.core.ids import check_id
from strandline.core.records import DecisionRecord, SessionRecord
from strandline.core.session import SessionState
from strandline.errors import Forbidden, NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.intake import answer_in, caller_of, limit_of
from strandline.http.problems import problem_route, read_json
from strandline.http.stream import query_id
from strandline.runtime.deciding import Answered
from strandline.runtime.service import Service
from strandline.runtime.submitting import May

Allowed = Callable[[Identity, Any, Action], bool]

MAX_LISTED = 1000
PAGE_BYTES = 4 * 1024 * 1024
"""A page of decisions ends before it is longer; one that is longer by itself is a page of its own."""
_FRESH = {"Cache-Control": "no-store"}


def router(service: Service, identify: Callable[..., Any], allows: Allowed) -> APIRouter:
    """The routes, without prefix; those of ``session_feed.py`` come after them."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    @routes.get("/{session_id:anything}/decisions")
    async def listed(session_id: str, request: Request, identity: Identity = who) -> Response:
        session = await service.sessions.find(check_id(session_id, "id"))
        if session is None or not allows(identity, session.state.record, Action.READ):
            raise NotFound("There is no such session.")
        every = request.query_params.get("all", "false")
        if every not in ("true", "false"):
            raise Unprocessable("`all` must be `true` or `false`.", code="invalid-request")
        limit, before = limit_of(request, MAX_LISTED, MAX_LISTED), query_id(request, "before")
        return _page(session.state, limit, before, pending=every == "false")

    @routes.post("/{session_id:anything}/decisions/{decision_id:anything}")
    async def decide(session_id: str, decision_id: str, request: Request, identity: Identity = who) -> Response:
        check_id(session_id, "id")
        check_id(decision_id, "decision")
        answer = answer_in(await read_json(request, settings.max_body))
        answered, decision = await service.sessions.answer_one(
            session_id, decision_id, answer, caller_of(identity, {}), may_decide(identity, allows)
        )
        return _json(orjson.dumps(taken(answered, decision)))

    return routes


def taken(answered: Answered, decision: DecisionRecord) -> dict[str, Any]:
    """What came of an answer (PROTOCOL §15.3)."""
    run = answered.run.id if answered.run is not None else None
    return {"decision": decisions.plain(decision), "run": run, "messageId": decision.message_id}


def may_decide(identity: Identity, allows: Allowed) -> May:
    """Whether somebody may decide in a session. That it exists is no secret to who may read it."""

    def may(record: SessionRecord | None) -> bool:
        if not allows(identity, record, Action.READ):
            return False
        if not allows(identity, record, Action.DECIDE):
            raise Forbidden("This is for somebody else to decide.", code="not-yours-to-decide")
        return True

    return may


def pending_plain(state: SessionState, *, content: bool = True) -> list[dict[str, Any]]:
    """The decisions that a session waits for, as its snapshots show them (PROTOCOL §8.8)."""
    shown = [decisions.plain(each) for each in state.waiting()]
    return shown if content else [{**each, "input": None} for each in shown]


def _page(state: SessionState, limit: int, before: str | None, *, pending: bool) -> Response:
    """The newest decisions, or those next to the one with the id ``before``, oldest first (PROTOCOL §15.3). That one
    may have been decided since. Raises Unprocessable where there is none."""
    known = list(state.decisions.values())
    if before is not None:
        if before not in state.decisions:
            raise Unprocessable("`before` is not a decision of this session (any more).", code="invalid-request")
        del known[[each.id for each in known].index(before) :]
    rows: list[bytes] = []
    size, first = 0, None
    for each in reversed([each for each in known if each.pending or not pending]):
        row = orjson.dumps(decisions.plain(each))
        size += len(row)
        if len(rows) == limit or (rows and size > PAGE_BYTES):
            break
        rows.append(row)
        first = each.id
    else:
        first = None
    listed = b",".join(reversed(rows))
    return _json(b'{"decisions":[%b],"next":%b}' % (listed, orjson.dumps(first)))


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json", headers=_FRESH)
