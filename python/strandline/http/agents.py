"""The agent wire over HTTP (PROTOCOL §18): runs that are written by a process elsewhere, in any language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from strandline.agents.catalog import Agents, Named
from strandline.agents.decision import made
from strandline.agents.leases import Lease, Leases, Said, leaving
from strandline.agents.prompt import prompt
from strandline.agents.relayed import Anew, Taking, shown
from strandline.agents.relayed import Request as What
from strandline.agents.run import ui_message
from strandline.agents.spawning import Wanted
from strandline.agents.workers import Worker
from strandline.core.ids import check_id
from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.errors import Conflict, Forbidden, NotFound, RunOver, Unprocessable
from strandline.http import agent_requests as asked_for
from strandline.http.auth import Action, Identity, serves
from strandline.http.intake import ODD, policy_in
from strandline.http.problems import problem_route, read_json
from strandline.http.stream import Stream
from strandline.runtime.history import MOST_SPAWNED
from strandline.runtime.live_run import Note
from strandline.runtime.service import Service
from strandline.runtime.spawning import Numbered
from strandline.runtime.speaking import Unasked
from strandline.runtime.steering import MAX_NOTES

STATES = ("thinking", "streaming", "idle")
_FRESH = {"Cache-Control": "no-store"}

Allowed = Callable[[Identity, Any, Action], bool]
Ask = Callable[[Lease, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


def router(
    service: Service, identify: Callable[..., Any], allows: Allowed, agents: Agents, leases: Leases
) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter(route_class=problem_route(service.tally.refused))
    settings = service.settings
    who = Depends(identify)

    def known(name: str, identity: Identity) -> str:
        """A remote agent that the caller is a worker of."""
        if not serves(identity, check_id(name, "agent's name")):
            raise Forbidden(f"You need the role `agent` or `agent:{name}` to answer as {name!r}.")
        if not agents.elsewhere(name):
            raise NotFound("There is no such remote agent: write chat.remote_agent(name).")
        return name

    async def recorded(run_id: str, identity: Identity) -> RunRecord:
        """The run, if it is one that the caller may write."""
        lease = leases.find(check_id(run_id, "run"))
        record = lease.record if lease is not None else await service.sessions.store.run(run_id)
        if record is not None and serves(identity, record.agent) and agents.elsewhere(record.agent):
            session = lease.session if lease is not None else await service.sessions.find(record.session)
            if session is not None and allows(identity, session.state.record, Action.AGENT):
                return session.state.runs.get(run_id, record)
        raise NotFound("There is no such run.")

    async def answered(run_id: str, identity: Identity, body: Mapping[str, Any], ask: Ask, status: int) -> JSONResponse:
        """Ask something of the lease of an active run; one that is over answers with its end."""
        await recorded(run_id, identity)
        lease = leases.find(run_id)
        if lease is not None:
            try:
                answer = await ask(lease, body)
            except RunOver:
                pass
            else:
                return JSONResponse({**answer, "state": "running"}, status, headers=_FRESH)
        record = await recorded(run_id, identity)
        if record.active:
            raise leaving()
        if body.get("producer") not in (None, record.producer):
            raise Conflict("A newer producer has written this run.", code="fenced")
        return JSONResponse({"state": "over", **end_plain(record)}, headers=_FRESH)

    @routes.get("")
    async def listed(identity: Identity = who) -> JSONResponse:
        shown_to = [agent for agent in agents if serves(identity, agent.name)]
        if not shown_to:
            raise Forbidden("You need the role `agent` to see how the agents are doing.")
        # Counted is only what the caller may work on: a number, too, would say what happens in a foreign session.
        live = Counter(
            session.state.runs[run.id].agent
            for session in service.sessions.in_memory()
            if session.live and allows(identity, session.state.record, Action.AGENT)
            for run in session.live.values()
            if run.id in session.state.runs
        )

        def doing(agent: Named) -> dict[str, Any]:
            held = [
                lease for lease in leases.of(agent.name) if allows(identity, lease.session.state.record, Action.AGENT)
            ]
            return {
                "name": agent.name,
                "kind": "remote" if agent.function is None else "local",
                "lease": agent.lease or None,
                "workers": leases.workers.connected(agent.name),
                "doing": Counter(lease.status for lease in held if lease.status),
                "waiting": sum(lease.live.claimed is None for lease in held),
                "active": live[agent.name],
                "seenAt": leases.workers.seen(agent.name),
            }

        return JSONResponse({"agents": [doing(agent) for agent in shown_to]}, headers=_FRESH)

    @routes.get("/{name}/runs")
    async def work(name: str, request: Request, identity: Identity = who) -> Response:
        holder = request.query_params.get("holder")
        worker = Worker(
            known(name, identity),
            check_id(holder, "holder") if holder is not None else None,
            lambda record: allows(identity, record, Action.AGENT),
        )
        service.sessions  # noqa: B018 - raises NotStarted
        return Stream(leases.workers.stream(worker), settings, {}, leases.workers.place(worker))

    @routes.post("/{name}/runs")
    async def begin(name: str, request: Request, identity: Identity = who) -> JSONResponse:
        known(name, identity)
        body = await read_json(request, settings.max_body)
        holder, claim = asked_for.holder(body)
        answers, given = body.get("answers"), body.get("body") or {}
        if not isinstance(given, dict):
            raise Unprocessable("`body` must be an object.", code="invalid-request")
        wanted = Unasked(
            name,
            key=claim,
            holder=holder,
            answers=check_id(answers, "answers") if answers is not None else None,
            submit=policy_in(body.get("submit")),
            body=given,
        )
        session, run_id = await service.sessions.speak(
            check_id(body.get("session"), "session"), wanted, lambda record: allows(identity, record, Action.AGENT)
        )
        run = session.state.runs[run_id]
        if run.status is Status.QUEUED:
            told = {"state": "queued", "run": run.id, "session": session.id, "messageId": run.message_id}
            return JSONResponse(told, 202, headers=_FRESH)
        await leases.begun(session, run_id)
        return await answered(run_id, identity, body, take, 201)

    async def take(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Claim a run; what its agent is to know."""
        claimed = await lease.claim(*asked_for.holder(body))
        context = await service.sessions.context(lease.session, lease.record)
        return {
            "producer": claimed.producer,
            "sequence": claimed.sent,
            "lease": lease.seconds,
            "run": lease.record.id,
            "session": lease.session.id,
            "messageId": lease.record.message_id,
            "user": lease.live.caller.user,
            "body": lease.live.caller.body,
            "messages": [ui_message(message) for message in context],
            "authors": {message.message_id: message.author for message in context},
            "prompt": prompt(context),
            "partial": partial(lease),
            "decisions": made(lease.session, lease.live),
            "taken": len(lease.live.taken),
            "notes": len(lease.live.notes),
            "spawned": [
                _beside(run)
                for run in lease.session.state.runs.values()
                if run.spawned and run.parent_run == lease.record.id
            ][-MOST_SPAWNED:],
        }

    async def numbered(lease: Lease, body: Mapping[str, Any], what: What | Wanted) -> Mapping[str, Any]:
        """Add a numbered request to the run."""
        said = Said(asked_for.number(body, "producer"), asked_for.number(body, "sequence"), what)
        await lease.append(said)
        return {"sequence": said.sequence, "notes": len(lease.live.notes)}

    async def add(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await numbered(lease, body, asked_for.said(body))

    async def steer(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take what the agent was told. Who knows the first ``taken`` notes already is given the rest."""
        most, known = (
            asked_for.number(body, "most") if "most" in body else MAX_NOTES,
            asked_for.number(body, "taken", 0),
        )
        answer = await numbered(lease, body, Taking(most))
        return {**answer, "told": [_note(note) for note in lease.live.taken[known:]]}

    async def replace(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await numbered(lease, body, Anew(asked_for.content(body)))

    async def restart(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin again; what the message said before this run, its worker does not know."""
        return {**await numbered(lease, body, Anew(None)), "partial": partial(lease)}

    async def spawn(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Start another agent beside it. The run that has begun so is known by the request's number."""
        answer = await numbered(lease, body, asked_for.wanted(body))
        known = lease.session.state.keyed(Numbered(lease.record.id, body["producer"], body["sequence"]).key)
        return {**answer, "spawned": _beside(known) if known is not None else None}

    async def beat(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        status = body.get("status")
        if status not in (None, *STATES):
            raise Unprocessable(f"`status` must be one of {', '.join(STATES)}.", code="invalid-request")
        await lease.beat(asked_for.number(body, "producer"), status)
        return {"notes": len(lease.live.notes)}

    async def end(lease: Lease, body: Mapping[str, Any]) -> Mapping[str, Any]:
        await lease.end(
            asked_for.number(body, "producer"), asked_for.number(body, "sequence", 0), asked_for.ending(body)
        )
        raise RunOver("It has ended.")

    questions: dict[str, Ask] = {
        "claim": take,
        "append": add,
        "steering": steer,
        "replace": replace,
        "restart": restart,
        "spawn": spawn,
        "heartbeat": beat,
        "end": end,
    }

    @routes.post("/runs/{run_id}/{question}")
    async def about(run_id: str, question: str, request: Request, identity: Identity = who) -> JSONResponse:
        if question not in questions:
            raise NotFound("There is no such route; see PROTOCOL.md §18.")
        await recorded(run_id, identity)  # who may not write is not even told what is wrong with the body
        body = await read_json(request, settings.max_body)
        return await answered(run_id, identity, body, questions[question], 200)

    @routes.api_route("", methods=["POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False)
    @routes.api_route(
        "/{path:anything}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", *ODD], include_in_schema=False
    )
    async def nothing_here(path: str = "", identity: Identity = who) -> Response:
        raise NotFound("There is no such route; see PROTOCOL.md §18.")

    return routes


def partial(lease: Lease) -> dict[str, Any] | None:
    """What the message of a run says so far, as a UIMessage; None where it says nothing."""
    return shown(lease.live.fold) if lease.live.fold.entries else None


def end_plain(record: RunRecord) -> dict[str, Any]:
    """How a run has ended."""
    return {"status": record.status.value, "reason": record.reason, "error": record.error}


def _beside(run: RunRecord) -> dict[str, Any]:
    """A spawned run, as the worker of its parent sees it."""
    return {"run": run.id, "messageId": run.message_id, "agent": run.agent}


def _note(note: Note) -> dict[str, Any]:
    """What an agent was told, as its worker sees it."""
    plain = {"id": note.id, "parts": note.parts, "by": note.by, "at": note.at, "device": note.device}
    return plain if note.metadata is None else {**plain, "metadata": note.metadata}
