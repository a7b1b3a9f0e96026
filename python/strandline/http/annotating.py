"""Annotations over HTTP (PROTOCOL §19): add, list, take back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.core.ids import check_id
from strandline.core.records import AnnotationRecord
from strandline.errors import NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.intake import caller_of, limit_of
from strandline.http.problems import problem_route, read_json
from strandline.http.stream import query_id
from strandline.runtime.service import Service

_LISTED = 50
_MOST_LISTED = 200
_FRESH = {"Cache-Control": "no-store"}


def router(service: Service, identify: Callable[..., Any], allows: Callable[..., bool]) -> APIRouter:
    """The routes, without prefix; those of ``sessions.py`` come after them, one of which takes every DELETE."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    who = Depends(identify)

    @routes.post("/{session_id:anything}/annotations")
    async def annotate(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, service.settings.max_body)
        named = check_id(body["id"], "id") if body.get("id") is not None else None
        record, cursor = await service.sessions.annotate(
            check_id(session_id, "id"),
            check_id(body.get("message"), "message"),
            (body.get("type"), body.get("data"), body.get("range")),
            named,
            caller_of(identity, {}).by,
            lambda session: allows(identity, session, Action.ANNOTATE),
        )
        return JSONResponse({"annotation": plain(record), "cursor": str(cursor)}, status_code=201, headers=_FRESH)

    @routes.get("/{session_id:anything}/annotations")
    async def listed(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        session = await service.sessions.find(check_id(session_id, "id"))
        if session is None or not allows(identity, session.state.record, Action.READ):
            raise NotFound("There is no such session.")
        message_id = query_id(request, "message")
        if message_id is None:
            raise Unprocessable("`message` must name the message.", code="invalid-request")
        message = session.state.find(message_id)
        if message is None:
            raise NotFound("There is no such message.")
        limit = limit_of(request, _LISTED, _MOST_LISTED)
        offset = _offset(request.query_params.get("after"))
        kind = request.query_params.get("type")
        found = await service.store.annotations(session.id, message.version, kind, limit + 1, offset)
        more = str(offset + limit) if len(found) > limit else None
        return JSONResponse({"annotations": [plain(each) for each in found[:limit]], "next": more}, headers=_FRESH)

    @routes.delete("/{session_id:anything}/annotations/{annotation_id}")
    async def take_back(session_id: str, annotation_id: str, identity: Identity = who) -> Response:
        await service.sessions.unannotate(
            check_id(session_id, "id"),
            check_id(annotation_id, "annotation"),
            caller_of(identity, {}).by,
            lambda session: allows(identity, session, Action.ANNOTATE),
            lambda session: allows(identity, session, Action.MANAGE),
        )
        return Response(status_code=204)

    return routes


def plain(annotation: AnnotationRecord) -> dict[str, Any]:
    """One annotation as JSON."""
    found = {
        "id": annotation.id,
        "message": annotation.message_id,
        "type": annotation.kind,
        "by": annotation.author,
        "at": annotation.created_at,
        "data": annotation.data,
    }
    return found if annotation.range is None else {**found, "range": annotation.range}


def _offset(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise Unprocessable("`after` must be the `next` of the page before.", code="invalid-request")
    return int(text)
