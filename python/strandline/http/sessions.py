"""The session wire over HTTP (PROTOCOL §8): lists, one session, and its feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.agents.run import ui_message
from strandline.core.events import frames_in
from strandline.core.ids import check_id
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord, SessionRecord
from strandline.core.replay import read_cursor
from strandline.errors import Forbidden, NotFound
from strandline.http.auth import Action, Identity
from strandline.http.intake import ODD
from strandline.http.problems import ProblemRoute
from strandline.http.stream import Stream, cursor_of, place_for, reader_of
from strandline.runtime.live import LiveSession
from strandline.runtime.reading import event_at, native_stream
from strandline.runtime.service import Service

_RUNS_SHOWN = 50


def router(service: Service, identify: Callable[..., Any], allows: Callable[..., bool]) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter(route_class=ProblemRoute)
    who = Depends(identify)

    async def visible(session_id: str, identity: Identity) -> LiveSession:
        session = await service.sessions.find(check_id(session_id, "id"))
        if session is None or not allows(identity, session.state.record, Action.READ):
            raise NotFound("There is no such session.")
        return session

    async def view(session: LiveSession) -> tuple[dict[str, Any], Cursor]:
        """Everything about a session at one offset; what is being written comes from memory, the rest from the store.

        The offset, the outline and the folds are taken together, without an await; stored messages do not change."""
        state = session.state
        cursor = session.feed.cursor(state.record.epoch)
        writing = {live.message: (tuple(live.fold.parts()), live.fold.metadata) for live in session.live.values()}
        path = state.path()
        runs = list(state.runs.values())[-_RUNS_SHOWN:]
        data = {
            "session": _session(state.record, state.active()),
            "runs": [_run(run) for run in runs],
            "readers": [reader.plain() for reader in session.readers.values()],
            "cursor": str(cursor),
        }
        stored = await service.store.messages(
            session.id, [message.version for message in path if message.version not in writing]
        )
        contents = {message.version: message for message in stored}
        shown = []
        for message in path:
            if message.version in writing:
                parts, metadata = writing[message.version]
                plain: dict[str, Any] = {"id": message.message_id, "role": message.role, "parts": list(parts)}
                shown.append(plain if metadata is None else {**plain, "metadata": metadata})
            elif message.version in contents:
                shown.append(ui_message(contents[message.version]))
        return {**data, "messages": shown}, cursor

    @routes.get("")
    async def listed(identity: Identity = who, limit: int = 50) -> JSONResponse:
        if not allows(identity, None, Action.LIST):
            raise Forbidden("You may not list sessions.")
        loaded = service.sessions.in_memory()
        records = await service.store.sessions(identity.user, max(1, min(limit, service.settings.max_sessions_listed)))
        active = {session.id: session.state.active() for session in loaded}
        shown = [_session(record, active.get(record.id, [])) for record in records]
        return JSONResponse({"sessions": shown}, headers={"Cache-Control": "no-store"})

    @routes.get("/{session_id:anything}/events")
    async def events(session_id: str, request: Request, identity: Identity = who) -> Response:
        session = await visible(session_id, identity)
        presented = cursor_of(request)
        cursor = read_cursor(presented, session.state) if presented is not None else None
        # A cursor that cannot be continued gets the full state, like none at all (PROTOCOL §3.4).
        if isinstance(cursor, Cursor):
            event = await event_at(session, service.store, cursor.seq)
            if event is None or cursor.frame > frames_in(event):
                cursor = None
        else:
            cursor = None
        reader = reader_of(request, identity, "session", service.clock.mint("reader"), service.clock.now())
        content = native_stream(session, service.store, cursor, lambda: view(session), reader)
        return Stream(content, service.settings, {}, place_for(reader, session, service.sessions))

    @routes.get("/{session_id:anything}")
    async def one(session_id: str, identity: Identity = who) -> JSONResponse:
        data, _ = await view(await visible(session_id, identity))
        return JSONResponse(data, headers={"Cache-Control": "no-store"})

    @routes.api_route("", methods=["POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route("/{path:anything}", methods=["POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §8.")

    return routes


def _session(record: SessionRecord, active: list[RunRecord]) -> dict[str, Any]:
    return {
        "id": record.id,
        "title": record.title,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "activeRun": active[-1].id if active else None,
    }


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "messageId": run.message_id,
        "status": run.status.value,
        "reason": run.reason,
        "error": run.error,
        "agent": run.agent,
        "createdAt": run.created_at,
        "endedAt": run.ended_at,
    }
