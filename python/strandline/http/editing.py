"""Messages that are there, over HTTP (PROTOCOL §16): go to another branch, edit, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.core.ids import check_id
from strandline.core.intake import Incoming
from strandline.errors import Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.intake import caller_of, incoming
from strandline.http.problems import problem_route, read_json
from strandline.runtime.service import Service


def router(service: Service, identify: Callable[..., Any], allows: Callable[..., bool]) -> APIRouter:
    """The routes, without prefix. To be included before those of ``sessions.py``, which answer any path."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    @routes.post("/{session_id:anything}/branch")
    async def branch(session_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, settings.max_body)
        leaf, cursor = await service.sessions.select_branch(
            check_id(session_id, "id"),
            check_id(body.get("message"), "message"),
            _index(body.get("index")),
            caller_of(identity, {}),
            lambda record: allows(identity, record, Action.SUBMIT),
        )
        return JSONResponse({"leaf": leaf, "cursor": cursor})

    @routes.patch("/{session_id:anything}/messages/{message_id}")
    async def edit(session_id: str, message_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, settings.max_body)
        edited = await service.sessions.replace_message(
            check_id(session_id, "id"),
            check_id(message_id, "the message's id"),
            lambda known_as: said(body, known_as),
            caller_of(identity, {}).by,
            lambda record: allows(identity, record, Action.EDIT),
            lambda record: allows(identity, record, Action.MODERATE),
            any_role=False,
        )
        return JSONResponse({"messageId": edited})

    @routes.delete("/{session_id:anything}/messages/{message_id}")
    async def delete(session_id: str, message_id: str, identity: Identity = who) -> Response:
        await service.sessions.delete_message(
            check_id(session_id, "id"),
            check_id(message_id, "the message's id"),
            caller_of(identity, {}).by,
            lambda record: allows(identity, record, Action.EDIT),
            lambda record: allows(identity, record, Action.MODERATE),
        )
        return Response(status_code=204)

    return routes


def said(body: Mapping[str, Any], message_id: str, *, trusted: bool = False) -> Incoming:
    """What a message is to say: `parts`, `metadata`. Raises Unprocessable."""
    message = {"id": message_id, "role": "user", "parts": body.get("parts"), "metadata": body.get("metadata")}
    return incoming(message, trusted=trusted)


def _index(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise Unprocessable("`index` must be a whole number from 0.", code="invalid-request")
    return value
