"""``Strandline``: the one object an application makes (DESIGN §9)."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import orjson
from fastapi import APIRouter, FastAPI

from strandline.agents.catalog import Agents
from strandline.agents.invoke import call
from strandline.agents.leases import Leases
from strandline.agents.run import Run, ui_message
from strandline.agents.spawning import Spawner, Task
from strandline.core.decisions import plain
from strandline.core.ids import check_id
from strandline.core.intake import Incoming
from strandline.core.records import RunRecord, SessionRecord
from strandline.errors import Misconfigured
from strandline.http import agents as agent_wire
from strandline.http import ai_sdk, annotating, decisions, doctor, editing, health, session_feed, sessions, tanstack
from strandline.http.auth import Action, Auth, Identity, identity_dependency, resolve_auth
from strandline.http.cors import cors
from strandline.http.intake import answer_in, caller_of, incoming, policy_in
from strandline.http.signals import on_exit_signal
from strandline.runtime.clock import Clock, SystemClock
from strandline.runtime.counters import Counters
from strandline.runtime.ending import Ending
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.recovering import Recovery
from strandline.runtime.service import Service
from strandline.runtime.speaking import Unasked
from strandline.settings import Settings
from strandline.stores import open_store
from strandline.stores.port import Store

logger = logging.getLogger("strandline")

_AgentT = TypeVar("_AgentT", bound=Callable[..., Any])
_HookT = TypeVar("_HookT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Ended:
    """What ``on_end`` is given: a run that is over, and its message as history has it from now on.

    ``status`` is ``completed``, ``suspended`` (it waits for somebody: this is where you tell them), ``stopped``,
    ``failed`` or ``lost``; ``message`` is a UIMessage; ``usage`` what the agent recorded with ``run.usage``.
    ``spawned``: another agent has started it, beside its own reply. ``decisions``: what a suspended run has asked for
    and is still pending, as PROTOCOL §15.2 has them; ``chat.decide`` takes their ``id``.
    """

    session: str
    run: str
    user: str
    status: str
    reason: str | None
    error: str | None
    message: Mapping[str, Any]
    usage: Mapping[str, Any] | None
    agent: str
    spawned: bool
    decisions: Sequence[Mapping[str, Any]] = ()


class Strandline:
    """Durable chat sessions over one store.

    store: a path to a SQLite file (made if need be), ``"memory:"``, or a Store. auth: who is calling and what they may
    do; required (``open_on_loopback()``, ``jwt_bearer(key)``, or a FastAPI dependency that returns the user). settings:
    limits and timing; by default from the environment (``STRANDLINE_*``).
    """

    def __init__(
        self,
        store: str | Path | Store,
        *,
        auth: Auth | Callable[..., Any] | None = None,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.auth = resolve_auth(auth)
        self.settings = settings if settings is not None else Settings.from_env()
        opened = open_store(store, durability=self.settings.durability, lock_wait=self.settings.lock_wait)
        self.service = Service(opened, clock or SystemClock(), self.settings)
        self._agents = Agents()
        self._spawner = Spawner(self._agents, self.settings.chunk_limit)
        self._leases = Leases(self.service.clock, self.settings, self._spawner)
        self._hooks: list[Callable[[Ended], Any]] = []
        self._running = 0
        self.router = self._router()

    # ------------------------------------------------------------------ what an application says

    @overload
    def agent(self, function: _AgentT) -> _AgentT: ...

    @overload
    def agent(
        self, *, name: str | None = None, recover: Recovery | bool | None = None
    ) -> Callable[[_AgentT], _AgentT]: ...

    def agent(
        self, function: _AgentT | None = None, *, name: str | None = None, recover: Recovery | bool | None = None
    ) -> Any:
        """Decorator: this callable answers. It takes a ``Run``; async or plain, function or generator.

        The first agent answers where a request names none; others are named (``@chat.agent(name="critic")``, else
        after their function) in the header ``Strandline-Agent``.

        recover: what happens to a run whose process is gone. By default it ends as ``lost``; with ``True`` or
        ``"restart"`` the next process calls the agent again with an empty message, with ``"continue"`` with what the
        message said at the newest checkpoint, or at all (``run.recovered``, ``run.partial``; docs/recovery.md).
        """
        if function is None:
            return partial(self.agent, name=name, recover=recover)
        self._agents.add(function, name, recover)
        return function

    def remote_agent(self, name: str, *, lease: float = 30.0, spawns: Iterable[str] = ()) -> None:
        """An agent called ``name`` runs in another process, in any language, and answers over ``/api/agents``
        (docs/remote-agents.md). ``lease``: seconds after which a worker that says nothing counts as gone; the run then
        ends as lost. ``spawns``: the agents that it may start beside itself, as the user who has asked it."""
        self._agents.add_remote(name, lease, spawns)

    def annotation_type(self, kind: str, model: Any) -> None:
        """Check the data of annotations of this kind against ``model``: a pydantic model, a TypedDict, any type that
        pydantic knows. ``citation`` and ``reaction`` are defined already; kinds that are not defined hold any JSON."""
        self.service.kinds.define(kind, model)

    def on_end(self, function: _HookT) -> _HookT:
        """Decorator: called with ``Ended`` after every run, once its end is durable. Async or plain; may raise (it is
        logged)."""
        self._hooks.append(function)
        return function

    async def import_messages(
        self, session: str, messages: Sequence[Mapping[str, Any]], *, user: str, title: str | None = None
    ) -> SessionRecord:
        """Bring in a conversation that exists elsewhere: UIMessages, oldest first, as a new session that ``user`` owns.

        All or nothing. Raises Conflict (``session-exists``) when the session has messages, Unprocessable for bad ones.
        """
        read = [incoming(message, trusted=True) for message in messages]
        return await self.service.sessions.import_messages(check_id(session, "session"), user, read, title)

    async def replace_message(
        self, session: str, message: str, parts: Sequence[Mapping[str, Any]], *, metadata: Any = None
    ) -> None:
        """Let a finished message, a reply too, say something else from now on, on every device. ``message``: its id,
        or its version. What it said before is erased from the store (``docs/branches.md``).

        Raises NotFound, Conflict (``message-active``) while it is being written, Unprocessable for bad parts.
        """
        body = {"parts": list(parts), "metadata": metadata}

        def to_say(known_as: str) -> Incoming:
            return editing.said(body, known_as, trusted=True)

        await self.service.sessions.replace_message(
            check_id(session, "session"), message, to_say, "server", _anybody, _anybody, any_role=True
        )

    async def delete_message(self, session: str, message: str) -> None:
        """Delete a message and what it said. What still writes it is stopped. Raises NotFound."""
        await self.service.sessions.delete_message(check_id(session, "session"), message, "server", _anybody, _anybody)

    async def decide(self, session: str, decision: str, answer: Mapping[str, Any], *, by: Identity) -> dict[str, Any]:
        """Take a decision for ``by``, as ``POST …/decisions/{decision}`` does (PROTOCOL §15.3): where an answer comes
        by another way, a button in a chat room or a workflow. ``answer`` is ``{"approved": bool, "reason"?}``,
        ``{"output": any}`` or ``{"errorText": str}``. Returns ``{"decision", "run", "messageId"}``.

        That this person may is for you to know: the policy is not asked. The roles that the agent has named are
        compared with those of ``by`` all the same.
        Raises NotFound, Forbidden (``not-yours-to-decide``), AlreadyDecided (``error.members["decision"]`` is
        what was recorded), Conflict (``not-pending``), Unprocessable and BodyTooLarge."""
        answered, record = await self.service.sessions.answer_one(
            check_id(session, "session"), decision, answer_in(answer), caller_of(by, {}), _anybody
        )
        return decisions.taken(answered, record)

    async def speak(
        self,
        session: str,
        *,
        agent: str | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        answers: str | None = None,
        submit: str | None = None,
    ) -> str:
        """Have an agent speak that nobody asked, after the newest message of a session, on every device; returns the id
        of the run as soon as it is in the log. ``agent``: its name (None: the first one); ``body``: JSON, what it is
        given as ``run.body``; ``key``: the same one again is the same run; ``answers``: the id of a user message that
        it gives another answer to; ``submit``: what happens where a reply is being written, else the session says it.

        Raises NotFound, Unprocessable (``unknown-agent``, ``unknown-message``), TooMany, ShuttingDown, and Conflict
        (``run-active``): an agent waits or speaks beside a reply, it never interrupts one (docs/agents.md)."""
        given = orjson.loads(orjson.dumps(body or {}))  # a copy, and a TypeError for what is not JSON
        named = check_id(key, "key") if key is not None else None
        wanted = Unasked(self._agents.choose(agent), named, None, answers, policy_in(submit), given)
        _, run = await self.service.sessions.speak(check_id(session, "session"), wanted, _anybody)
        return run

    async def purge(self) -> bool:
        """Have what was deleted gone from the disk when this returns, not only from what can be read: True when it is.

        False where something else reads the file just now (a backup): try again later."""
        return await self.service.purge()

    # ------------------------------------------------------------------ how it is put into an application

    def app(self, *, prefix: str = "/api", origins: Sequence[str] = (), title: str = "Strandline") -> FastAPI:
        """A FastAPI application with the routes under ``prefix``, and the health checks at the root as well.

        origins: who may call it from a browser (CORS)."""
        app = FastAPI(title=title)
        if origins:
            cors(app, origins)
        app.include_router(self.router, prefix=prefix)
        if prefix:
            app.include_router(health.router(self.service))
        return app

    def counters(self) -> Counters:
        """What has happened since this object was made, and how things stand now; a frozen reading, from any thread and
        at any time. ``docs/operations.md`` says what each field means."""
        return self.service.counters()

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """What must run around the application; comes along with ``router``. Entering it again is harmless."""
        if not self._agents:
            raise Misconfigured("There is no agent. Decorate the function that answers with @chat.agent.")
        self._running += 1
        if self._running > 1:
            try:
                yield
            finally:
                self._running -= 1
            return
        try:
            await self.service.start(self._invoke, self._ended, self._agents.elsewhere, self._agents.recovery)
            self._leases.serve(self.service.sessions)
            try:
                with on_exit_signal(self.service.drain):
                    yield
            finally:
                await self.service.stop()
        finally:
            self._running -= 1

    def _router(self) -> APIRouter:
        identify = identity_dependency(self.auth)
        routes = APIRouter(lifespan=self.lifespan)
        routes.include_router(annotating.router(self.service, identify, self._allows), prefix="/sessions")
        routes.include_router(editing.router(self.service, identify, self._allows), prefix="/sessions")
        routes.include_router(sessions.router(self.service, identify, self._allows, self._agents), prefix="/sessions")
        routes.include_router(decisions.router(self.service, identify, self._allows), prefix="/sessions")
        routes.include_router(session_feed.router(self.service, identify, self._allows), prefix="/sessions")
        routes.include_router(ai_sdk.router(self.service, identify, self._allows, self._agents), prefix="/chat")
        routes.include_router(tanstack.router(self.service, identify, self._allows, self._agents), prefix="/tanstack")
        wire = agent_wire.router(self.service, identify, self._allows, self._agents, self._leases)
        routes.include_router(wire, prefix="/agents")
        routes.include_router(doctor.router(self.service, identify), prefix="/doctor")

        routes.include_router(health.router(self.service))
        return routes

    def _allows(self, identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        return bool(self.auth.policy(identity, session, action))

    # ------------------------------------------------------------------ what the runtime calls

    async def _invoke(self, session: LiveSession, live: LiveRun, record: RunRecord) -> Ending:
        task = self._spawner.take(record)
        if task is None:
            agent = self._agents.get(record.agent)
            if agent is None:
                raise LookupError(f"there is no agent called {record.agent}")
            if agent.function is None:
                return await self._leases.hold(session, live, record, agent.lease)
            task = Task(agent.function, await self.service.sessions.context(session, record))
        run = Run(self.service.sessions, self.settings, session, live, record, task.context, self._spawner)
        return await call(task.function, run)

    async def _ended(self, session: LiveSession, run: RunRecord) -> None:
        self._spawner.take(run)  # of one that ended before it was called
        if not self._hooks:
            return
        found = await self.service.store.messages(session.id, [run.message])
        message = ui_message(found[0]) if found else {"id": run.message_id, "role": "assistant", "parts": []}
        user = session.state.asker(run).removeprefix("user:")
        status = run.status.value
        ended = Ended(
            session.id,
            run.id,
            user,
            status,
            run.reason,
            run.error,
            message,
            run.usage,
            run.agent,
            run.spawned,
            [plain(each) for each in session.state.waiting(run.message) if each.run == run.id],
        )
        outcomes = await asyncio.gather(*(_call(hook, ended) for hook in self._hooks), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                extra = {"action": "on-end-failed", "session": session.id, "run": run.id}
                logger.error("on_end failed for %s", run.id, exc_info=outcome, extra=extra)


def _anybody(_: SessionRecord | None) -> bool:
    return True


async def _call(hook: Callable[[Ended], Any], ended: Ended) -> None:
    if inspect.iscoroutinefunction(hook):
        await hook(ended)
    else:
        await asyncio.to_thread(hook, ended)
