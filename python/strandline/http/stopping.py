"""A stop over HTTP (PROTOCOL §6.4), the same on every wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from strandline.core.ids import check_id
from strandline.errors import Forbidden, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.intake import caller_of, stop_reason
from strandline.http.problems import called_json, read_json
from strandline.runtime.service import Service


async def stop_answer(
    service: Service,
    request: Request,
    session_id: str,
    identity: Identity,
    allows: Callable[[Identity, Any, Action], bool],
) -> JSONResponse:
    """End the run that the body names, those of an agent, every one, or the active one."""
    check_id(session_id, "id")
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and not called_json(request):
        # A request that a browser sends for any page without asking first; with JSON it would ask (CORS). A sub-domain
        # is another site too: it may be somebody else's, and it has the cookies.
        raise Forbidden("Send a stop from another site as JSON.", code="cross-site")
    body = await read_json(request, service.settings.max_body, optional=True)
    named = {name: check_id(body[name], name) for name in ("run", "messageId", "key") if body.get(name) is not None}
    agent, every = several(body, named)
    answer = await service.sessions.stop(
        session_id,
        caller_of(identity, {}),
        lambda record: allows(identity, record, Action.STOP),
        run=named.get("run"),
        message_id=named.get("messageId"),
        key=named.get("key"),
        reason=stop_reason(body),
        agent=agent,
        every=every,
    )
    return answered(answer)


def several(body: Mapping[str, Any], named: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The agent whose runs a stop means, and whether it means every run. Raises Unprocessable."""
    agent, every = body.get("agent"), body.get("all", False)
    if not isinstance(agent, str | None) or not isinstance(every, bool):
        raise Unprocessable(
            "`agent` must be the name of an agent, `all` must be true or false.", code="invalid-request"
        )
    if (agent is not None) + every + bool(named) > 1:
        raise Unprocessable("Name one run, or one `agent`, or `all`.", code="invalid-request")
    return agent, every


def answered(answer: dict[str, Any]) -> JSONResponse:
    """The response to a stop."""
    return JSONResponse(answer, status_code=202 if answer.get("status") == "remembered" else 200)
