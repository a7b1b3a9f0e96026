"""Submitting: which run a request starts or finds (PROTOCOL §7). One decision inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from strandline.core import intake
from strandline.core.events import Event, MessageCreated, RunEnded, RunQueued, RunStarted, StopRequested
from strandline.core.records import RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.core.session import Content, SessionState
from strandline.errors import Conflict, NotFound, ShuttingDown, TooMany, Unprocessable
from strandline.runtime.clock import Clock
from strandline.runtime.contents import Contents, NeedContents
from strandline.runtime.counters import Tally
from strandline.runtime.journal import Journal
from strandline.runtime.live import Caller, Decided, LiveSession, SessionGone
from strandline.runtime.memory import StopMemory, meant_by, stop_names
from strandline.runtime.registry import Registry
from strandline.runtime.stopping import stop_events
from strandline.runtime.superseding import superseded
from strandline.settings import Settings
from strandline.stores.port import Store

May = Callable[[SessionRecord | None], bool]
"""Asked with the session's record, or None when it does not exist yet."""


class _NeedParts(Exception):
    """The decision has to compare with a message whose parts were not fetched."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


class Submissions(Registry):
    """The sessions of one store, and what starts runs in them."""

    def __init__(self, store: Store, journal: Journal, clock: Clock, settings: Settings, tally: Tally) -> None:
        super().__init__(store, clock, settings, tally)
        self.journal = journal
        self._stops = StopMemory(settings.stop_memory, settings.stop_memory_limit)
        self._starting: dict[str, LiveSession] = {}
        self.accepting = True

    def lost_track(self) -> None:
        """The decisions that were under way have failed."""
        self._starting.clear()

    def forget_idle(self, now: float) -> None:
        """Let go of what has been kept for too long."""
        super().forget_idle(now)
        self._stops.expire(now)

    def forget(self, session: LiveSession) -> None:
        """The session was deleted."""
        super().forget(session)
        self._stops.forget(session.id)

    async def decide_anew(
        self, session_id: str, owner: str, decide: Callable[[LiveSession], Decided]
    ) -> tuple[LiveSession, Any]:
        """Have something decided in a session, which may be new, and is when it was deleted before its turn came."""
        while True:
            session = await self.load_or_new(session_id, owner)
            try:
                return session, await self.journal.decide(session, decide)
            except SessionGone:
                continue

    async def submit(
        self, session_id: str, request: intake.Request, caller: Caller, agent: str, may: May
    ) -> tuple[LiveSession, RunRecord]:
        """Start or find the run that this request is about (PROTOCOL §7). Raises the problems named there."""
        known: dict[str, intake.Parts] = {}
        contents = Contents()
        while True:
            session = await self.load_or_new(session_id, caller.user)
            version = intake.compared(request, session.state)
            if version is not None and version not in known:
                await self._fetch(session, version, known)
            try:
                run_id: str = await self.journal.decide(
                    session, lambda session: self._submit(session, request, caller, agent, may, known, contents)
                )
            except _NeedParts as need:
                await self._fetch(session, need.version, known)
            except NeedContents as need:
                await contents.fetch(session, self.store, need)
            except SessionGone:
                continue
            else:
                self.tally.submits += 1
                return session, session.state.runs[run_id]

    async def _fetch(self, session: LiveSession, version: str, known: dict[str, intake.Parts]) -> None:
        known[version] = ()
        for message in await self.store.messages(session.id, [version]):
            known[version] = message.parts or ()

    def _submit(
        self,
        session: LiveSession,
        request: intake.Request,
        caller: Caller,
        agent: str,
        may: May,
        known: Mapping[str, intake.Parts],
        contents: Contents,
    ) -> Decided:
        state = session.state
        if not session.stored:
            # Nobody's yet: it will be the caller's, whoever first looked at this id.
            state.record = replace(state.record, owner=caller.user)
        if not may(state.record if session.stored else None):
            if may(None):
                # What would be refused in a session that does not exist is refused in the same words here.
                refused = intake.decide(request, SessionState(replace(state.record, leaf=None)), {})
                if isinstance(refused, intake.Refuse):
                    raise _refusal(refused)
            raise no_such_session()
        version = intake.compared(request, state)
        if version is not None and version not in known:
            raise _NeedParts(version)
        decision = intake.decide(request, state, known)
        if isinstance(decision, intake.Refuse):
            raise _refusal(decision)
        if isinstance(decision, intake.Attach):
            run_id = decision.run
            return Decided((), lambda: run_id)
        return self._start(session, decision, request, caller, agent, contents)

    def _check_room(self, session: LiveSession) -> None:
        """Raise when no run may be started in this session just now."""
        if not self.accepting:
            raise ShuttingDown("The server is shutting down; send the message again in a moment.")
        # What is started just now ends whatever was active in its session.
        changing = {session, *self._starting.values()}
        others = len(self._starting) + sum(len(each.live) for each in self._live.values() if each not in changing)
        if others >= self._settings.max_active_runs:
            raise TooMany("Too many replies are being written at the moment.", retry_after=2.0)

    def _start(
        self,
        session: LiveSession,
        start: intake.Start,
        request: intake.Request,
        caller: Caller,
        agent: str,
        stored: Contents,
    ) -> Decided:
        self._check_room(session)
        at = self._clock.now()
        events: list[Event]
        contents: dict[str, Content]
        events, contents = superseded(session.state, stored, caller.by, at)
        for live in session.live.values():
            more, content = stop_events(session, live, caller.by, "superseded", at)
            events += more
            contents |= content
        parent = start.parent
        if start.create is not None:
            created = start.create
            parent = self._clock.mint("msg")
            events.append(
                MessageCreated(
                    at, caller.by, parent, created.id, start.parent, created.role, created.parts, created.metadata
                )
            )
        run_id, message = request.run or self._clock.mint("run"), self._clock.mint("msg")
        events.append(RunQueued(at, caller.by, run_id, message, message, parent, agent, key=request.key))
        named = start.create.id if start.create is not None else None
        names = meant_by(request.key, named)
        reason = self._stops.find(caller.user, session.id, names, self._clock.monotonic())
        if reason is not None:
            events.append(StopRequested(at, caller.by, run_id, reason))
            events.append(RunEnded(at, caller.by, run_id, message, message, Status.STOPPED, reason))
            contents[message] = ((), None)
        else:
            events.append(RunStarted(at, run_id, message, message))
            self._starting[run_id] = session

        def answer() -> str:
            self._starting.pop(run_id, None)
            if reason is not None:
                every = stop_names(request.key, named) + stop_names(None, named)
                self._stops.use_up(caller.user, session.id, every)
            return run_id

        return Decided(tuple(events), answer, contents, caller)


def no_such_session() -> NotFound:
    """Unknown and foreign sessions look alike."""
    return NotFound("There is no such session.")


def _refusal(refuse: intake.Refuse) -> Exception:
    if refuse.code == "invalid-message":
        return Unprocessable(refuse.detail, code=refuse.code)
    return Conflict(refuse.detail, code=refuse.code)
