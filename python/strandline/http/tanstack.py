"""The TanStack AI and AG-UI wire over HTTP (PROTOCOL §11): thin translations between requests and the use cases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.codecs.ag_ui_messages import ui_messages
from strandline.core.ids import check_id
from strandline.core.offset import Cursor
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.replay import read_cursor
from strandline.errors import Conflict, NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.intake import ODD, caller_of, stop_reason
from strandline.http.problems import ProblemRoute, read_json
from strandline.http.run_input import run_ids, run_request
from strandline.http.stream import Stream, place_for, query_id, reader_of
from strandline.http.wire import CURSOR_HEADER, MESSAGE_HEADER, REPLAY_FULL, REPLAY_HEADER, REPLAY_TAIL, RUN_HEADER
from strandline.runtime.live import LiveSession
from strandline.runtime.reading_ag_ui import ag_ui_stream, begin
from strandline.runtime.run_ids import RunIds
from strandline.runtime.service import Service

Allowed = Callable[[Identity, Any, Action], bool]

MAX_PAGE = 1000
FROM_START = "-1"


def router(service: Service, identify: Callable[..., Any], allows: Allowed, agent_name: Callable[[], str]) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter(route_class=ProblemRoute)
    settings = service.settings
    who = Depends(identify)
    claims = RunIds()

    async def visible(session_id: str, identity: Identity) -> LiveSession | None:
        """The session if the caller may; unknown and foreign look alike (PROTOCOL §11.7)."""
        session = await service.sessions.find(session_id)
        return session if session is not None and allows(identity, session.state.record, Action.READ) else None

    async def stream(
        request: Request,
        identity: Identity,
        session: LiveSession | None,
        run_id: str,
        presented: str | None,
        *,
        counted: bool = True,
    ) -> Response:
        """The run from its first event, or from the cursor that was presented on."""
        run = session.state.runs.get(run_id) if session is not None else None
        if session is None or run is None:
            raise NotFound("There is no such run.")
        if counted:
            service.sessions.admit_reader(session.id)  # before the run is read for nothing
        begun = await begin(session, service.store, run, _cursor(presented, session))
        reader = reader_of(request, identity, "ag-ui", service.clock.mint("reader"), service.clock.now())
        headers = {
            RUN_HEADER: run.id,
            MESSAGE_HEADER: run.message_id,
            REPLAY_HEADER: REPLAY_FULL if presented is None else REPLAY_TAIL,
        }
        place = place_for(reader, session, service.sessions, counted=counted)
        return Stream(ag_ui_stream(session, service.store, run, begun, reader), settings, headers, place)

    @routes.post("")
    async def run_agent(request: Request, identity: Identity = who) -> Response:
        body = await read_json(request, settings.max_body)
        session_id, run_id = run_ids(body, request.headers.get("x-run-id"))
        presented = _presented(request)
        if presented is not None:
            # A reconnect: it never starts anything.
            return await stream(request, identity, await visible(session_id, identity), run_id, presented)
        asked, rest = run_request(body, run_id)
        found = await service.sessions.find(session_id)
        if not allows(identity, found.state.record if found is not None else None, Action.SUBMIT):
            raise NotFound("There is no such session.")
        service.sessions.admit_reader(session_id)  # before anything is started that could then not be shown
        known = found is not None and run_id in found.state.runs
        sessions, caller = service.sessions, caller_of(identity, rest)

        def submitted() -> Any:
            return sessions.submit(
                session_id, asked, caller, agent_name(), lambda record: allows(identity, record, Action.SUBMIT)
            )

        run: RunRecord = await claims.using(service.store, session_id, run_id, submitted)
        return await stream(request, identity, await sessions.find(session_id), run.id, None, counted=known)

    @routes.get("")
    async def join_or_hydrate(request: Request, identity: Identity = who) -> Response:
        run_id, session_id = query_id(request, "runId"), query_id(request, "threadId")
        if run_id is not None:
            run = await service.store.run(run_id)
            session = await visible(run.session, identity) if run is not None else None
            return await stream(request, identity, session, run_id, _presented(request))
        if session_id is None:
            raise Unprocessable("Name a run (`runId`) to join, or a `threadId` to load.", code="invalid-request")
        session = await visible(session_id, identity)
        limit, before = _limit(request), query_id(request, "before")
        return JSONResponse(await page(session, limit, before), headers={"Cache-Control": "no-store"})

    async def page(session: LiveSession | None, limit: int | None, before: str | None) -> dict[str, Any]:
        """The active path without what is being written: the one who joins the run is sent all of that."""
        active: RunRecord | None = None
        chosen: list[MessageRecord] = []
        older: MessageRecord | None = None
        if session is not None:
            # The active run and the path are read together, without an await; stored messages do not change.
            runs = session.state.active()
            active = runs[-1] if runs else None
            writing = {run.message for run in runs}
            path = [message for message in session.state.path() if message.version not in writing]
            chosen, older = _page(path, limit, before)
            chosen = await service.store.messages(session.id, [message.version for message in chosen])
        elif before is not None:
            _page([], limit, before)
        return {
            "messages": [shown for message in chosen for shown in ui_messages(message, _iso(message.created_at))],
            "activeRun": {"runId": active.id} if active is not None else None,
            "interrupts": None,
            "page": {"truncated": True, "cursor": older.message_id} if older is not None else {"truncated": False},
        }

    @routes.post("/stop")
    async def stop(request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, settings.max_body)
        session_id = check_id(body.get("threadId"), "threadId")
        run_id = check_id(body["runId"], "runId") if body.get("runId") is not None else None
        session = await visible(session_id, identity)
        arrived = session is not None and run_id in session.state.runs
        answer = await service.sessions.stop(
            session_id,
            caller_of(identity, {}),
            lambda record: allows(identity, record, Action.STOP),
            run=run_id if arrived else None,
            message_id=None,
            # The id of a run is also its key: a stop that overtakes the POST is remembered by it.
            key=None if arrived else run_id,
            reason=stop_reason(body),
        )
        return JSONResponse(answer, status_code=202 if answer["status"] == "remembered" else 200)

    @routes.api_route("", methods=["PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route(
        "/{path:anything}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False
    )
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §11.")

    return routes


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _presented(request: Request) -> str | None:
    """The cursor of a reader that comes back: the header wins over ``offset``, of which ``-1`` means none."""
    offset = request.headers.get(CURSOR_HEADER) or request.query_params.get("offset") or FROM_START
    return None if offset == FROM_START else offset


def _cursor(presented: str | None, session: LiveSession) -> Cursor | None:
    """Raises Conflict for one that cannot be continued: replaying everything to a client that shows a part already
    would say it twice."""
    if presented is None:
        return None
    cursor = read_cursor(presented, session.state)
    if isinstance(cursor, str):
        raise Conflict(f"{cursor} Load the conversation again and join the run.", code="resync")
    return cursor


def _limit(request: Request) -> int | None:
    text = request.query_params.get("limit")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise Unprocessable("`limit` must be a whole number from 1.", code="invalid-request")
    return min(int(text), MAX_PAGE)


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
