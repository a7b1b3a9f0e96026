"""What can be done with sessions: submit, stop, end, history, import. Each is one decision inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strandline.codecs import native
from strandline.core import intake
from strandline.core.chunks import has_lone_surrogate
from strandline.core.events import (
    Event,
    MessageCreated,
    MessageReset,
    RunEnded,
    RunQueued,
    RunStarted,
    StopRequested,
)
from strandline.core.offset import Cursor
from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.replay import Plan
from strandline.core.run import Status
from strandline.core.session import Content, SessionState
from strandline.errors import Conflict, ContinuationUnsupported, NotFound, ShuttingDown, TooMany, Unprocessable
from strandline.runtime import promises
from strandline.runtime.clock import Clock
from strandline.runtime.ending import Ending, end_events
from strandline.runtime.journal import Journal
from strandline.runtime.live import Caller, Decided, LiveRun, LiveSession, started
from strandline.runtime.memory import StopMemory, meant_by, stop_names
from strandline.runtime.registry import ALL_SEQS, Registry
from strandline.settings import Settings
from strandline.stores.port import Store

May = Callable[[SessionRecord | None], bool]
"""Asked with the session's record, or None when it does not exist yet."""


@dataclass(frozen=True, slots=True)
class History:
    """A session as history shows it: finished messages of the active path, and the run that is writing (or None)."""

    messages: list[MessageRecord]
    runs: dict[str, RunRecord]
    active: RunRecord | None
    cursor: Cursor | None


class _NeedParts(Exception):
    """The decision has to compare with a message whose parts were not fetched."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


class Sessions(Registry):
    """The use cases. One per store."""

    def __init__(self, store: Store, journal: Journal, clock: Clock, settings: Settings) -> None:
        super().__init__(store, clock, settings)
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

    # ------------------------------------------------------------------ submit

    async def submit(self, session_id: str, request: intake.Request, caller: Caller, agent: str, may: May) -> RunRecord:
        """Start or find the run that this request is about (PROTOCOL §7). Raises the problems named there."""
        session = await self.load_or_new(session_id, caller.user)
        known: dict[str, intake.Parts] = {}
        while True:
            version = intake.compared(request, session.state)
            if version is not None and version not in known:
                await self._fetch(session, version, known)
            try:
                run_id: str = await self.journal.decide(
                    session, lambda session: self._submit(session, request, caller, agent, may, known)
                )
            except _NeedParts as need:
                await self._fetch(session, need.version, known)
            else:
                return session.state.runs[run_id]

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
            raise NotFound("There is no such session.")
        version = intake.compared(request, state)
        if version is not None and version not in known:
            raise _NeedParts(version)
        decision = intake.decide(request, state, known)
        if isinstance(decision, intake.Refuse):
            raise _refusal(decision)
        if isinstance(decision, intake.Attach):
            run_id = decision.run
            return Decided((), lambda: run_id)
        return self._start(session, decision, request, caller, agent)

    def _start(
        self, session: LiveSession, start: intake.Start, request: intake.Request, caller: Caller, agent: str
    ) -> Decided:
        if not self.accepting:
            raise ShuttingDown("The server is shutting down; send the message again in a moment.")
        # What is started just now ends whatever was active in its session.
        changing = {session, *self._starting.values()}
        others = len(self._starting) + sum(len(each.live) for each in self._live.values() if each not in changing)
        if others >= self._settings.max_active_runs:
            raise TooMany("Too many replies are being written at the moment.", retry_after=2.0)
        at = self._clock.now()
        events: list[Event] = []
        contents: dict[str, Content] = {}
        for live in session.live.values():
            events.append(StopRequested(at, caller.by, live.id, "superseded"))
            ending = Ending(Status.STOPPED, "superseded")
            more, content = end_events(session, live, ending, caller.by, at)
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

    # ------------------------------------------------------------------ stop and end

    async def stop(
        self,
        session_id: str,
        caller: Caller,
        may: May,
        *,
        run: str | None,
        message_id: str | None,
        key: str | None,
        reason: str,
    ) -> dict[str, Any]:
        """End a run (PROTOCOL §6.4); the answer is the body of the response."""
        session = await self.find(session_id)
        if session is None or not may(session.state.record):
            return self._remember(session_id, caller, run, message_id, key, reason)
        answer: dict[str, Any] = await self.journal.decide(
            session, lambda session: self._stop(session, caller, run, message_id, key, reason)
        )
        return answer

    def _stop(
        self,
        session: LiveSession,
        caller: Caller,
        run_id: str | None,
        message_id: str | None,
        key: str | None,
        reason: str,
    ) -> Decided:
        state = session.state
        run: RunRecord | None = None
        if run_id is not None:
            run = state.runs.get(run_id)
        elif key is not None and (keyed := state.keyed(key)) is not None:
            run = keyed
        elif message_id is not None and (found := state.find(message_id)) is not None:
            runs = (
                state.answers(found.version) if found.role == "user" else [state.runs[found.run]] if found.run else []
            )
            run = runs[-1] if runs else None
        elif key is None and message_id is None:
            active = state.active()
            if not active:
                return Decided((), lambda: {"run": None, "status": "idle", "stopped": False})
            run = active[-1]
        if run is None:
            answer = self._remember(session.id, caller, run_id, message_id, key, reason)
            return Decided((), lambda: answer)
        if not run.active:
            return Decided((), lambda: _end_of(state, run.id, stopped=False))
        at = self._clock.now()
        ended, contents = end_events(session, session.live[run.id], Ending(Status.STOPPED, reason), caller.by, at)
        events = (StopRequested(at, caller.by, run.id, reason), *ended)
        return Decided(events, lambda: _end_of(state, run.id, stopped=True), contents)

    def _remember(
        self, session_id: str, caller: Caller, run: str | None, message_id: str | None, key: str | None, reason: str
    ) -> dict[str, Any]:
        if run is not None or (message_id is None and key is None):
            raise NotFound("There is no such session or run.")
        names = stop_names(key, message_id)
        self._stops.remember(caller.user, session_id, names, reason, self._clock.monotonic())
        return {"run": None, "status": "remembered", "stopped": False}

    async def end(self, session: LiveSession, live: LiveRun, ending: Ending, by: str) -> RunRecord:
        """End a run: whoever is first decides how; the others get the recorded end.

        A run that ends by itself is ended after everything that it still has pending.
        """
        await asyncio.shield(self.enqueue_end(session, live, ending, by))
        return session.state.runs[live.id]

    def enqueue_end(self, session: LiveSession, live: LiveRun, ending: Ending, by: str) -> asyncio.Future[Any]:
        """Like ``end``, without waiting; it is carried out even if the store is failing just now."""

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending and ending.after_pending:
                return None
            events, contents = end_events(session, live, ending, by, self._clock.now())
            return Decided(events, lambda: None, contents)

        return self.journal.enqueue(session, decide)

    def reset(self, session: LiveSession, live: LiveRun, by: str, done: Callable[[], None]) -> asyncio.Future[None]:
        """Start a run's message over (R15): a logged event; what it said before no longer counts. ``done`` is called in
        the step that publishes it, whether or not anybody still waits."""
        message_id = session.state.runs[live.id].message_id

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending:
                return None
            event = MessageReset(self._clock.now(), by, live.id, live.message, message_id)
            return Decided((event,), done)

        return self.journal.enqueue(session, decide)

    # ------------------------------------------------------------------ history and import

    async def history(self, session: LiveSession, user: str) -> History:
        """The finished messages of the active path, and what is being written (PROTOCOL §6.6), from one snapshot."""
        state = session.state
        path = state.path()
        active = state.active()
        run = active[-1] if active else None
        writing = {each.message for each in active}
        shown = [message for message in path if message.version not in writing]
        runs = {message.message_id: state.runs[message.run] for message in shown if message.run is not None}
        cursor = None
        if run is not None:
            cursor = Cursor(state.record.epoch, run.first_seq, 0)
            self.owe(session, user, run.id)
        messages = await self.store.messages(session.id, [message.version for message in shown])
        return History(messages, runs, run, cursor)

    def resume(self, session: LiveSession, user: str, key: str | None) -> Plan:
        """What a resume without cursor is given (PROTOCOL §6.2, §6.6)."""
        return promises.resume(session, user, key, self._clock.monotonic(), self._settings.owed_for)

    def owe(self, session: LiveSession, user: str, run: str) -> None:
        """Promise a replay: to who was given a history without it, or was told to read it anew."""
        promises.owe(session, user, run, None, self._clock.monotonic() + self._settings.owed_for)

    async def context(self, session: LiveSession, parent: str | None) -> list[MessageRecord]:
        """The path that ends at ``parent``, with content: what an agent is shown."""
        versions = [message.version for message in session.state.path(parent)] if parent is not None else []
        return await self.store.messages(session.id, versions)

    async def import_messages(
        self, session_id: str, owner: str, messages: Sequence[intake.Incoming], title: str | None
    ) -> SessionRecord:
        """Create a session from history that exists elsewhere (R33). Raises Conflict if it has messages already."""
        if len({message.id for message in messages}) < len(messages):
            raise Unprocessable("Two of the messages have the same id.", code="invalid-message")
        if has_lone_surrogate(owner + (title or "")):
            raise Unprocessable("The user or the title has half of a surrogate pair.", code="invalid-request")
        session = await self.load_or_new(session_id, owner)

        def decide(session: LiveSession) -> Decided:
            if session.stored and session.state.messages:
                raise Conflict(f"The session {session_id!r} has messages already.", code="session-exists")
            at = self._clock.now()
            session.state.record = replace(session.state.record, owner=owner, title=title)
            events: list[Event] = []
            parent: str | None = None
            for message in messages:
                version = self._clock.mint("msg")
                events.append(
                    MessageCreated(
                        at, "server", version, message.id, parent, message.role, message.parts, message.metadata
                    )
                )
                parent = version
            return Decided(tuple(events), lambda: None)

        await self.journal.decide(session, decide)
        return session.state.record

    # ------------------------------------------------------------------ after a restart

    async def recover(self) -> int:
        """End every run that an earlier process left unfinished as ``lost``, with the words that it said."""
        lost = await self.store.unfinished()
        waiting = []
        for run in lost:
            session = await self.find(run.session)
            if session is None:
                continue
            live = await self._revive(session, run)
            waiting.append(self.enqueue_end(session, live, Ending(Status.LOST, "process-lost"), "server"))
        await asyncio.gather(*waiting)
        return len(lost)

    async def _revive(self, session: LiveSession, run: RunRecord) -> LiveRun:
        epoch = session.state.record.epoch
        live = LiveRun(run.id, run.message, started(run.message_id), Caller("server"), Cursor(epoch, run.first_seq, 0))
        session.live[run.id] = live
        for seq, line in await self.store.events(session.id, run.first_seq, ALL_SEQS, run.id):
            live.replay(epoch, seq, native.decode(line))
        return live


def _end_of(state: SessionState, run_id: str, *, stopped: bool) -> dict[str, Any]:
    run = state.runs[run_id]
    return {
        "run": run.id,
        "status": run.status.value,
        "reason": run.reason,
        "cursor": str(Cursor(state.record.epoch, run.last_seq or run.first_seq, 1)),
        "stopped": stopped,
    }


def _refusal(refuse: intake.Refuse) -> Exception:
    if refuse.code == "invalid-message":
        return Unprocessable(refuse.detail, code=refuse.code)
    if refuse.code == "continuation-unsupported":
        return ContinuationUnsupported(refuse.detail)
    return Conflict(refuse.detail, code=refuse.code)
