"""The feed of a session over HTTP (PROTOCOL §8.5, §8.8-8.11): everything that happens in it, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.codecs.filters import Filter
from strandline.core.branch import branches
from strandline.core.events import Erased, frames_in
from strandline.core.ids import check_id
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.paging import beside
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.replay import read_cursor
from strandline.core.session import SessionState
from strandline.core.unfold import unfold
from strandline.errors import Conflict, NotFound, Unprocessable
from strandline.http.auth import Action, Identity
from strandline.http.decisions import pending_plain
from strandline.http.intake import ODD, listed_in, with_reasoning
from strandline.http.problems import problem_route, read_json
from strandline.http.sessions import annotated, authors, beside_plain, message_plain, session_plain
from strandline.http.stream import Stream, client_of, cursor_of, place_for, reader_of
from strandline.runtime.history import MOST_SPAWNED, contents_of
from strandline.runtime.live import LiveSession, SessionGone
from strandline.runtime.live_run import LiveRun, Note
from strandline.runtime.readers import SESSION
from strandline.runtime.reading import event_at
from strandline.runtime.reading_session import session_stream
from strandline.runtime.service import Service
from strandline.stores.port import Store

MAX_LAST = 1000
_RUNS_SHOWN = 50
_FRESH = {"Cache-Control": "no-store"}


def router(service: Service, identify: Callable[..., Any], allows: Callable[..., bool]) -> APIRouter:
    """The routes, without prefix. To be included after those of ``sessions.py``: it answers whatever is left."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    async def visible(session_id: str, identity: Identity) -> LiveSession:
        session = await service.sessions.find(check_id(session_id, "id"))
        if session is None or not allows(identity, session.state.record, Action.READ):
            raise NotFound("There is no such session.")
        return session

    @routes.get("/{session_id:anything}/events")
    async def events(session_id: str, request: Request, identity: Identity = who) -> Response:
        session = await visible(session_id, identity)
        wanted, last = _wanted(request, session, settings.ai_sdk_version), _last(request)
        reader = reader_of(request, identity, SESSION, service.clock.mint("reader"), service.clock.now())
        cursor = await _going_on(session, service.store, cursor_of(request))
        if cursor is not None:
            reader.present(cursor)
        service.tally.resumes["whole" if cursor is None else "tail"] += 1

        async def snapshot() -> tuple[dict[str, Any], Cursor]:
            return await view(session, service.store, wanted, last, reader.id)

        content = session_stream(session, service.store, cursor, snapshot, reader, wanted, settings.heartbeat)
        return Stream(content, settings, {}, place_for(reader, session, service.sessions))

    @routes.get("/{session_id:anything}/readers")
    async def readers(session_id: str, identity: Identity = who) -> JSONResponse:
        session = await visible(session_id, identity)
        cursor = session.feed.cursor(session.state.record.epoch)
        return JSONResponse({"readers": session.readers.plain(), "cursor": str(cursor)}, headers=_FRESH)

    @routes.post("/{session_id:anything}/ack")
    async def acknowledge(session_id: str, request: Request, identity: Identity = who) -> Response:
        session = await visible(session_id, identity)
        body = await read_json(request, settings.max_body)
        reader_id, presented = check_id(body.get("reader"), "reader"), body.get("cursor")
        if not isinstance(presented, str):
            raise Unprocessable("`cursor` must be the id of a frame.", code="invalid-request")
        cursor = read_cursor(presented, session.state)
        if isinstance(cursor, str):
            raise Conflict(cursor, code="not-sent")
        session.readers.acknowledge(identity.user, reader_id, cursor)
        return Response(status_code=204)

    @routes.get("/{session_id:anything}")
    async def one(session_id: str, request: Request, identity: Identity = who) -> Response:
        session = await visible(session_id, identity)
        wanted, last = _wanted(request, session, settings.ai_sdk_version), _last(request)
        try:
            data, _ = await view(session, service.store, wanted, last, None)
        except SessionGone:
            raise NotFound("There is no such session.") from None
        return Response(orjson.dumps(data), media_type="application/json", headers=_FRESH)

    @routes.api_route("", methods=["POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route("/{path:anything}", methods=["POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §8.")

    return routes


async def view(
    session: LiveSession, store: Store, wanted: Filter, last: int | None, reader_id: str | None
) -> tuple[dict[str, Any], Cursor]:
    """Everything about a session at one offset (PROTOCOL §8.8), for orjson: what is being written comes from memory,
    the rest from the store.

    The offset, the outline and the folds are taken together, without an await; the stored messages are of the same
    moment. Raises SessionGone when the session was deleted meanwhile."""
    state = session.state
    cursor = session.feed.cursor(state.record.epoch)
    active = [
        {
            "run": live.id,
            "messageId": live.fold.message_id,
            "chunks": _chunks(live, wanted),
            "notes": [_note(note, wanted) for note in live.notes.values()],
            **_continues(live),
        }
        for live in session.live.values()
        if wanted.content and (wanted.runs is None or live.id in wanted.runs)
    ]
    path, older = _shown(state, wanted, last)
    others = _beside(state, wanted)
    shown_of = {each.version for each in (*path, *others)}
    writing = {live.message: _message(live, wanted) for live in session.live.values() if live.message in shown_of}
    data = {
        "session": session_plain(state.record, state.current(), len(state.waiting())),
        "versions": {each.message_id: each.version for each in path if each.version != each.message_id},
        "branches": {id: place.plain() for id, place in branches(state.messages, path).items()},
        "page": {"before": path[0].message_id if path and older else None},
        "active": active,
        "annotations": annotated(state, [*path, *others]),
        "authors": authors((*path, *others)),
        "runs": [_run(run) for run in list(state.runs.values())[-_RUNS_SHOWN:]],
        "decisions": pending_plain(state, content=wanted.content),
        "readers": session.readers.plain(),
        "reader": reader_id,
        "cursor": str(cursor),
    }
    whose = [beside_plain(state, each) for each in others]
    try:
        cold = [each for each in (*path, *others) if each.version not in writing]
        contents = await contents_of(session, store, cold)
    except NotFound:
        raise SessionGone(session.id) from None
    if contents is None:
        return await view(session, store, wanted, last, reader_id)

    def shown(message: MessageRecord) -> Any:
        if message.version in writing:
            return writing[message.version]
        return message_plain(contents[message.version], wanted)

    known = {*writing, *contents}
    messages = [shown(message) for message in path if message.version in known]
    spawned = [
        {"message": shown(message), **about}
        for message, about in zip(others, whose, strict=True)
        if message.version in known
    ]
    return {**data, "messages": messages, "spawned": spawned}, cursor


def _continues(live: LiveRun) -> dict[str, bool]:
    """A client that was given all of a message at once cannot tell what of it a continuation has written."""
    return {"continues": True} if live.base is not None else {}


def _chunks(live: LiveRun, wanted: Filter) -> orjson.Fragment:
    """What folds to the message that is being written."""
    return orjson.Fragment(
        live.snapshot(f"{wanted.key} chunks", lambda fold: orjson.dumps(wanted.chunks(unfold(fold))))
    )


def _note(note: Note, wanted: Filter) -> dict[str, Any]:
    """What the agent was told and has not taken, in the words of its event."""
    plain = {"at": note.at, "by": note.by, "message_id": note.id, "parts": wanted.parts(note.parts)}
    return plain if note.metadata is None else {**plain, "metadata": note.metadata}


def _message(live: LiveRun, wanted: Filter) -> orjson.Fragment:
    """The message that is being written, as a UIMessage."""

    def make(fold: FoldState) -> bytes:
        message = {"id": fold.message_id, "role": "assistant", "parts": wanted.parts(fold.parts())}
        return orjson.dumps(message if fold.metadata is None else {**message, "metadata": fold.metadata})

    return orjson.Fragment(live.snapshot(f"{wanted.key} message", make))


def _shown(state: SessionState, wanted: Filter, last: int | None) -> tuple[list[MessageRecord], bool]:
    """The messages of a snapshot, oldest first, and whether there are older ones."""
    if not wanted.content:
        return [], False
    if wanted.runs is not None:
        versions = {state.runs[run].message for run in wanted.runs}
        path = [
            each
            for each in state.messages.values()
            if each.version in versions and not each.spawned and not each.deleted
        ]
    else:
        path = state.path()
    if last is None or last >= len(path):
        return path, False
    return path[len(path) - last :], True


def _beside(state: SessionState, wanted: Filter) -> list[MessageRecord]:
    """The messages of spawned runs in a snapshot, oldest first."""
    if not wanted.content:
        return []
    found = beside(state, None, MOST_SPAWNED if wanted.runs is None else len(state.messages))
    return [each for each in found if wanted.runs is None or each.run in wanted.runs][-MOST_SPAWNED:]


async def _going_on(session: LiveSession, store: Store, presented: str | None) -> Cursor | None:
    """Where a reader goes on. One that presents a cursor which cannot be continued gets the full state, like one that
    presents none (PROTOCOL §3.4)."""
    cursor = read_cursor(presented, session.state) if presented is not None else None
    if not isinstance(cursor, Cursor):
        return None
    if cursor == session.feed.cursor(session.state.record.epoch):
        return cursor
    event = await event_at(session, store, cursor.seq)
    if event is None or isinstance(event, Erased):
        return None
    return cursor if cursor.frame <= frames_in(event) else None


def _wanted(request: Request, session: LiveSession, default_major: int) -> Filter:
    """The filter that a request asks for (PROTOCOL §8.10). Raises Unprocessable, and NotFound for an unknown run."""
    _, major = client_of(request, default_major)
    only, runs, whole = (listed_in(request, name) for name in ("only", "run", "annotations"))
    if only - {"state", "progress"} or len(only) > 1:
        raise Unprocessable("`only` may be `state` or `progress`.", code="invalid-request")
    for run in runs:
        if check_id(run, "run") not in session.state.runs:
            raise NotFound("There is no such run.")
    if whole - {"all"}:
        raise Unprocessable("`annotations` may only be `all`.", code="invalid-request")
    return Filter(
        major,
        reasoning=with_reasoning(request),
        content="state" not in only,
        progress="progress" in only,
        annotations=bool(whole),
        runs=runs or None,
    )


def _last(request: Request) -> int | None:
    """How many messages a snapshot is to hold at most; None: all of them."""
    text = request.query_params.get("last")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= MAX_LAST):
        raise Unprocessable(f"`last` must be a whole number from 0 to {MAX_LAST}.", code="invalid-request")
    return int(text)


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "messageId": run.message_id,
        "status": run.status.value,
        "reason": run.reason,
        "error": run.error,
        "agent": run.agent,
        "parentRun": run.parent_run,
        "spawned": run.spawned,
        "createdAt": run.created_at,
        "endedAt": run.ended_at,
    }
