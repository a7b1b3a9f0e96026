"""The AI SDK wire over HTTP (PROTOCOL §6): thin translations between requests and the use cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.agents.catalog import Agents
from strandline.codecs import ai_sdk
from strandline.codecs.filters import Filter
from strandline.codecs.sse import DONE, OPENING
from strandline.core.ids import check_id
from strandline.core.intake import Request as Asked
from strandline.core.records import ReceiptRecord
from strandline.core.replay import (
    NOTHING,
    Own,
    Plan,
    Tail,
    Unresumable,
    Whole,
    fallback,
    plan_named,
    plan_tail,
    read_cursor,
)
from strandline.errors import AlreadyDecided, NotFound
from strandline.http.auth import Action, Identity
from strandline.http.decisions import may_decide
from strandline.http.intake import ODD, caller_of, chat_request, is_answer, posted_in, with_reasoning
from strandline.http.problems import problem_route, read_json
from strandline.http.sessions import active_plain, annotated, authors, message_plain, run_plain
from strandline.http.stopping import stop_answer
from strandline.http.stream import Stream, client_of, cursor_of, once, place_for, query_id, reader_name, reader_of
from strandline.http.wire import (
    AGENT_HEADER,
    KEY_HEADER,
    MESSAGE_HEADER,
    REPLAY_FULL,
    REPLAY_HEADER,
    REPLAY_TAIL,
    RUN_HEADER,
    SUBMIT_HEADER,
)
from strandline.runtime.live import LiveSession
from strandline.runtime.promises import paid
from strandline.runtime.reading import Settled, ai_sdk_stream, continues, event_at
from strandline.runtime.service import Service

Allowed = Callable[[Identity, Any, Action], bool]


def router(service: Service, identify: Callable[..., Any], allows: Allowed, agents: Agents) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    async def visible(chat_id: str, identity: Identity, action: Action) -> LiveSession | None:
        """The session if the caller may; unknown and foreign look alike (PROTOCOL §6.7)."""
        session = await service.sessions.find(check_id(chat_id, "id"))
        return session if session is not None and allows(identity, session.state.record, action) else None

    def stream(
        request: Request,
        identity: Identity,
        session: LiveSession,
        plan: Tail | Whole | Own,
        *,
        owed: bool = False,
        counted: bool = True,
    ) -> Response:
        shim, major = client_of(request, settings.ai_sdk_version)
        reader = reader_of(request, identity, "ai-sdk", service.clock.mint("reader"), service.clock.now(), plan.run)
        if isinstance(plan, Tail):
            reader.present(plan.cursor)
        run = session.state.runs[plan.run]

        def settle(how: Settled) -> None:
            if how == "resync":
                service.sessions.owe(session, identity.user, run.id)
            elif owed:
                paid(session, identity.user, run.id)

        content = ai_sdk_stream(session, service.store, plan, reader, major=major, shim=shim, settle=settle)
        headers = {
            **ai_sdk.HEADERS,
            RUN_HEADER: run.id,
            MESSAGE_HEADER: run.message_id,
            REPLAY_HEADER: REPLAY_TAIL if isinstance(plan, Tail) else REPLAY_FULL,
        }
        return Stream(content, settings, headers, place_for(reader, session, service.sessions, counted=counted))

    async def answered(
        request: Request, identity: Identity, found: LiveSession | None, body: Any, asked: Asked, rest: Any
    ) -> Response:
        """A reply that was posted back with answers: the run that goes on with it, or what it still waits for."""
        before = found.state.last_seq if found is not None else 0
        try:
            answer = await service.sessions.answer_posted(
                check_id(body["id"], "id"),
                asked,
                posted_in(body["messages"][-1]),
                caller_of(identity, rest),
                may_decide(identity, allows),
            )
        except AlreadyDecided:
            newest = next(reversed(found.state.runs.values()), None) if found is not None else None
            if found is not None and newest is not None and found.state.continues(newest):
                # Whoever comes too late shows what is not so, and reads what is.
                service.sessions.owe(found, identity.user, newest.id)
            raise
        session, run = answer.session, answer.run
        if run is None:
            waiting = ai_sdk.waiting(answer.message_id, answer.pending)
            headers = {**ai_sdk.HEADERS, MESSAGE_HEADER: answer.message_id, REPLAY_HEADER: REPLAY_FULL}
            return Stream(once(OPENING + waiting), settings, headers)
        plan = Own(run.id) if session.state.continues(run) else Whole(run.id)
        return stream(request, identity, session, plan, counted=run.first_seq <= before)

    @routes.post("")
    async def submit(request: Request, identity: Identity = who) -> Response:
        body = await read_json(request, settings.max_body)
        reader_name(request)
        chat_id, asked, rest = chat_request(body, request.headers.get(KEY_HEADER), request.headers.get(SUBMIT_HEADER))
        found = await service.sessions.find(chat_id)
        if is_answer(asked):
            if found is not None and allows(identity, found.state.record, Action.READ):
                service.sessions.admit_reader(chat_id)
            return await answered(request, identity, found, body, asked, rest)
        if found is None or allows(identity, found.state.record, Action.SUBMIT):
            # Before anything is started that could then not be shown; a stranger is refused by what follows.
            service.sessions.admit_reader(chat_id)
        before = found.state.last_seq if found is not None else 0
        session, run = await service.sessions.submit(
            chat_id,
            asked,
            caller_of(identity, rest),
            agents.choose(request.headers.get(AGENT_HEADER)),
            lambda record: allows(identity, record, Action.SUBMIT),
        )
        if isinstance(run, ReceiptRecord):
            told = ai_sdk.told_frame({"run": run.run, "messageId": run.message_id})
            return Stream(once(OPENING + told + DONE), settings, ai_sdk.HEADERS)
        # A run that this request has started is shown to it, also where another reader has been quicker.
        counted = session is found and run.first_seq <= before
        return stream(request, identity, session, Whole(run.id), counted=counted)

    @routes.get("/{chat_id:anything}/stream")
    async def resume(chat_id: str, request: Request, identity: Identity = who) -> Response:
        session = await visible(chat_id, identity, Action.READ)
        if session is None:
            service.tally.resumes["none"] += 1
            return Response(status_code=204)
        shim, major = client_of(request, settings.ai_sdk_version)
        plan: Plan | Unresumable
        presented = cursor_of(request)
        named = query_id(request, "run")
        owed = False
        if presented is not None:
            cursor = read_cursor(presented, session.state)
            if isinstance(cursor, str):
                plan = Unresumable(cursor, fallback(session.state))
            else:
                event = await event_at(session, service.store, cursor.seq)
                plan = plan_tail(session.state, cursor, event)
                if isinstance(plan, Tail) and not await continues(session, service.store, plan, major):
                    plan = Unresumable("The reply was started over after the cursor.", plan.run)
            if isinstance(plan, Unresumable) and named is not None and plan_named(session.state, named) is not NOTHING:
                plan = Unresumable(plan.why, named)
        elif named is not None:
            plan = plan_named(session.state, named)
        else:
            key = request.headers.get(KEY_HEADER)
            plan = service.sessions.resume(session, identity.user, key and check_id(key, KEY_HEADER))
            owed = key is None
        resumes = service.tally.resumes
        if isinstance(plan, Unresumable):
            if shim:
                resumes["resync"] += 1
                if plan.run is not None:
                    service.sessions.owe(session, identity.user, plan.run)
                return Stream(once(OPENING + ai_sdk.error_frame("resync", plan.why)), settings, ai_sdk.HEADERS)
            plan = Whole(plan.run) if plan.run is not None else NOTHING
        if plan is NOTHING:
            resumes["none"] += 1
            return Response(status_code=204)
        assert isinstance(plan, Tail | Whole)
        resumes["tail" if isinstance(plan, Tail) else "whole"] += 1
        return stream(request, identity, session, plan, owed=owed)

    @routes.post("/{chat_id:anything}/stop")
    async def stop(chat_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        return await stop_answer(service, request, chat_id, identity, allows)

    @routes.get("/{chat_id:anything}/messages")
    async def messages(chat_id: str, request: Request, identity: Identity = who) -> JSONResponse:
        wanted = Filter(reasoning=with_reasoning(request))
        session = await visible(chat_id, identity, Action.READ)
        empty: dict[str, Any] = {"messages": [], "activeRun": None, "cursor": None}
        nothing = JSONResponse({**empty, "runs": {}, "branches": {}, "annotations": {}, "authors": {}})
        if session is None:
            return nothing
        try:
            history = await service.sessions.history(session, identity.user)
        except NotFound:
            return nothing
        active = history.active
        return JSONResponse(
            {
                "messages": [message_plain(message, wanted) for message in history.messages],
                "activeRun": active_plain(active),
                "cursor": str(history.cursor) if active is not None else None,
                "runs": {message_id: run_plain(run) for message_id, run in history.runs.items()},
                "branches": {message_id: place.plain() for message_id, place in history.branches.items()},
                "annotations": annotated(session.state, history.messages),
                "authors": authors(history.messages),
            },
            headers={"Cache-Control": "no-store"},
        )

    @routes.api_route("", methods=["GET", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route(
        "/{path:anything}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False
    )
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §6.")

    return routes
