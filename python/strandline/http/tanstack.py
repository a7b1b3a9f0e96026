"""The TanStack AI and AG-UI wire over HTTP (PROTOCOL §11): thin translations between requests and the use cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.agents.catalog import Agents
from strandline.codecs import ag_ui
from strandline.codecs.sse import OPENING
from strandline.core.decisions import Answer
from strandline.core.ids import check_id
from strandline.core.offset import Cursor
from strandline.core.records import DecisionRecord, ReceiptRecord, RunRecord
from strandline.core.replay import read_cursor
from strandline.errors import Conflict, NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.decisions import may_decide
from strandline.http.hydrate import hydrated
from strandline.http.intake import ODD, caller_of, limit_of, stop_reason
from strandline.http.problems import problem_route, read_json
from strandline.http.run_input import agent_body, resolution, resumed, run_ids, run_request
from strandline.http.steering import steered
from strandline.http.stopping import answered, several
from strandline.http.stream import Stream, cursor_of, once, place_for, query_id, reader_name, reader_of
from strandline.http.wire import (
    AGENT_HEADER,
    CURSOR_HEADER,
    MESSAGE_HEADER,
    PREFER_HEADER,
    REPLAY_FULL,
    REPLAY_HEADER,
    REPLAY_TAIL,
    RESPOND_ASYNC,
    RUN_HEADER,
    SUBMIT_HEADER,
)
from strandline.runtime.deciding import Answered
from strandline.runtime.live import LiveSession
from strandline.runtime.reading_ag_ui import ag_ui_stream, begin, resync
from strandline.runtime.run_ids import RunIds
from strandline.runtime.service import Service
from strandline.runtime.thread_ag_ui import Thread, thread_stream

Allowed = Callable[[Identity, Any, Action], bool]

FROM_START = "-1"
MAX_PAGE = 1000


def router(service: Service, identify: Callable[..., Any], allows: Allowed, agents: Agents) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)
    claims, resumes = RunIds(), service.tally.resumes

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
        own: bool = False,
    ) -> Response:
        """The run from its first event (``own``), else its message from the first, or from the cursor that was
        presented on."""
        run = session.state.runs.get(run_id) if session is not None else None
        if session is None or run is None:
            raise NotFound("There is no such run.")
        cursor = _cursor(presented, session)
        reader = reader_of(request, identity, "ag-ui", service.clock.mint("reader"), service.clock.now(), run.id)
        if counted:
            service.sessions.admit_reader(session.id, reader)  # before the run is read for nothing
        begun = await begin(session, service.store, run, cursor, own=own)
        if cursor is not None:
            reader.present(cursor)
            resumes["tail"] += 1
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
        reader_name(request)
        session_id, run_id = run_ids(body, request.headers.get("x-run-id"))
        presented = _presented(request)
        if presented is not None:
            # A reconnect: it never starts anything.
            return await stream(request, identity, await visible(session_id, identity), run_id, presented)
        found = await service.sessions.find(session_id)
        answers = resumed(body)
        if answers is not None:
            return await resume(request, identity, found, session_id, run_id, answers, agent_body(body))
        asked, rest = run_request(body, run_id, request.headers.get(SUBMIT_HEADER))
        if not allows(identity, found.state.record if found is not None else None, Action.SUBMIT):
            raise NotFound("There is no such session.")
        later = is_later(request)
        if not later:
            service.sessions.admit_reader(session_id)  # before anything is started that could then not be shown
        known = found is not None and run_id in found.state.runs
        sessions, caller = service.sessions, caller_of(identity, rest)

        def submitted() -> Any:
            return sessions.submit(
                session_id,
                asked,
                caller,
                agents.choose(request.headers.get(AGENT_HEADER)),
                lambda record: allows(identity, record, Action.SUBMIT),
            )

        session: LiveSession
        run: RunRecord | ReceiptRecord
        session, run = await claims.using(service.store, session_id, run_id, submitted)
        if isinstance(run, ReceiptRecord):
            if later:
                return JSONResponse(steered(session, run), 202, headers={"Preference-Applied": RESPOND_ASYNC})
            told = OPENING + ag_ui.told(session_id, run_id, {"run": run.run, "messageId": run.message_id})
            return Stream(once(told), settings, {})
        if later:
            return accepted(run.id, run.message_id)
        return await stream(request, identity, session, run.id, None, counted=known)

    async def resume(
        request: Request,
        identity: Identity,
        found: LiveSession | None,
        session_id: str,
        run_id: str,
        answers: list[tuple[str, Any]],
        rest: dict[str, Any],
    ) -> Response:
        """Decisions: the run that goes on, under the id that the client gives it if this starts it."""
        if found is not None and allows(identity, found.state.record, Action.READ):
            service.sessions.admit_reader(session_id)

        def pick(session: LiveSession) -> list[tuple[DecisionRecord, Answer]]:
            picked = []
            for interrupt, payload in answers:
                decision = session.state.decisions.get(interrupt)
                if decision is None:
                    raise NotFound("There is no such interrupt in this session.")
                picked.append((decision, resolution(decision, payload)))
            return picked

        def decided() -> Any:
            may = may_decide(identity, allows)
            return service.sessions.answer(session_id, pick, caller_of(identity, rest), may, run=run_id, key=run_id)

        known = found is not None and run_id in found.state.runs
        answer: Answered = await claims.using(service.store, session_id, run_id, decided)
        run = answer.run
        if is_later(request):
            return accepted(run.id, answer.message_id) if run is not None else undecided(answer)
        if run is not None:
            return await stream(request, identity, answer.session, run.id, None, counted=known, own=True)
        return await unfinished(answer, run_id)

    async def unfinished(answer: Answered, run_id: str) -> Response:
        """Nothing goes on: something else is pending. Of that there is nothing in the log."""
        session = answer.session
        pending = [session.state.decisions[each] for each in answer.pending]
        stored = await service.store.messages(session.id, [each.message for each in pending[:1]])
        waiting = ag_ui.pending_interrupts(stored[0], pending) if stored else []
        return Stream(once(OPENING + ag_ui.waiting(session.id, run_id, waiting)), settings, {})

    @routes.get("")
    async def join_or_hydrate(request: Request, identity: Identity = who) -> Response:
        run_id, session_id = query_id(request, "runId"), query_id(request, "threadId")
        if run_id is not None:
            run = await service.store.run(run_id)
            session = await visible(run.session, identity) if run is not None else None
            presented = _presented(request)
            answer = await stream(request, identity, session, run_id, presented)
            resumes["whole"] += presented is None
            return answer
        if session_id is None:
            raise Unprocessable("Name a run (`runId`) to join, or a `threadId` to load.", code="invalid-request")
        session = await visible(session_id, identity)
        # Who names no limit, as a stock client without a page size, is given all.
        limit = limit_of(request, MAX_PAGE, MAX_PAGE) if "limit" in request.query_params else None
        before = query_id(request, "before")
        shown = await hydrated(session, service.store, limit, before)
        return JSONResponse(shown, headers={"Cache-Control": "no-store"})

    @routes.get("/events")
    async def live_thread(request: Request, identity: Identity = who) -> Response:
        session_id, presented = query_id(request, "threadId"), cursor_of(request)
        if session_id is None:
            raise Unprocessable("Name the `threadId` to follow.", code="invalid-request")
        session = await visible(session_id, identity)
        if session is None:
            raise NotFound("There is no such session.")
        cursor = _cursor(presented, session)
        if cursor is None:
            raise resync()
        reader = reader_of(request, identity, "ag-ui", service.clock.mint("reader"), service.clock.now())
        service.sessions.admit_reader(session.id, reader)  # before anything is read for nothing
        thread = Thread(session, service.store, cursor)
        await thread.check()
        reader.present(cursor)
        resumes["tail"] += 1
        place = place_for(reader, session, service.sessions)
        return Stream(thread_stream(session, thread, reader), settings, {REPLAY_HEADER: REPLAY_TAIL}, place)

    @routes.post("/stop")
    async def stop(request: Request, identity: Identity = who) -> JSONResponse:
        body = await read_json(request, settings.max_body)
        session_id = check_id(body.get("threadId"), "threadId")
        run_id = check_id(body["runId"], "runId") if body.get("runId") is not None else None
        agent, every = several(body, {"runId": run_id} if run_id is not None else {})
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
            agent=agent,
            every=every,
        )
        return answered(answer)

    @routes.api_route("", methods=["PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route(
        "/{path:anything}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False
    )
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §11.")

    return routes


def is_later(request: Request) -> bool:
    """Whether the client wants to be told at once that the run is in the log, and nothing more (PROTOCOL §11.12)."""
    return RESPOND_ASYNC in request.headers.get(PREFER_HEADER, "").replace(" ", "").lower().split(",")


def accepted(run_id: str, message_id: str) -> JSONResponse:
    """The answer to that."""
    started = {"runId": run_id, "messageId": message_id}
    return JSONResponse(started, status_code=202, headers={"Preference-Applied": RESPOND_ASYNC})


def undecided(answer: Answered) -> JSONResponse:
    """The same where nothing goes on yet: the id that the client has made up names no run."""
    waiting = {"runId": None, "messageId": answer.message_id, "pending": answer.pending}
    return JSONResponse(waiting, status_code=202, headers={"Preference-Applied": RESPOND_ASYNC})


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
