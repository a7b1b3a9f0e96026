"""Submitting: which run a request starts or finds (PROTOCOL §7). One decision inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from strandline.core import intake
from strandline.core.events import MessageCreated, RunEnded, RunQueued, RunStarted, StopRequested
from strandline.core.policy import Admission, Occupied, Policy, Told, admit
from strandline.core.records import ReceiptRecord, RunRecord, SessionRecord
from strandline.core.run import Status
from strandline.core.session import SessionState
from strandline.errors import Busy, Conflict, NotFound, ShuttingDown, TooMany, Unprocessable
from strandline.runtime.clock import Clock
from strandline.runtime.contents import Contents, NeedContents
from strandline.runtime.counters import Tally
from strandline.runtime.journal import Journal
from strandline.runtime.live import Decided, LiveSession, SessionGone
from strandline.runtime.live_run import Caller
from strandline.runtime.memory import StopMemory, meant_by, stop_names
from strandline.runtime.recovering import Recovery, no_recovery
from strandline.runtime.registry import Registry
from strandline.runtime.steering import repeated, tell
from strandline.runtime.stopping import stops
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
        self._starting: dict[str, LiveSession | None] = {}
        self.recovery: Callable[[str], Recovery | None] = no_recovery
        """How the agent of this name is recovered."""
        self.accepting = False

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
    ) -> tuple[LiveSession, RunRecord | ReceiptRecord]:
        """Start or find the run that this request is about (PROTOCOL §7), or tell the agent that is running (§14.3).
        Raises the problems named there."""
        known: dict[str, intake.Parts] = {}
        contents = Contents()
        while True:
            session = await self.load_or_new(session_id, caller.user)
            version = intake.compared(request, session.state)
            if version is not None and version not in known:
                await self._fetch(session, version, known)
            try:
                run: str | ReceiptRecord = await self.journal.decide(
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
                return session, run if isinstance(run, ReceiptRecord) else session.state.runs[run]

    def admit_run(self, session: LiveSession | None = None) -> None:
        """Raise TooMany when there are as many runs as there may be, those of ``session`` not counted."""
        changing = {*self._starting.values(), *([session] if session is not None else [])}
        others = len(self._starting) + sum(len(each.live) for each in self._live.values() if each not in changing)
        if others >= self._settings.max_active_runs:
            raise TooMany("Too many replies are being written at the moment.", retry_after=2.0)

    def placed(self, decided: Decided) -> Decided:
        """A decision that queues a run beside others: it has its place from now on, and not only once it is published.
        Several may be in one commit."""
        run_id = next(event.run for event in decided.events if isinstance(event, RunQueued))

        def taken() -> None:
            self._starting[run_id] = None

        def dropped() -> None:
            self._starting.pop(run_id, None)

        def answer() -> Any:
            dropped()
            return decided.answer()

        return replace(decided, answer=answer, taken=taken, dropped=dropped)

    def kept(self, agent: str, caller: Caller, *, waits: bool = False) -> Mapping[str, Any] | None:
        """What of a request has to be in the log: an agent that may be called by another process needs its body."""
        later = waits or self.elsewhere(agent) or self.recovery(agent) is not None
        return caller.body if caller.body and later else None

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
        receipt = repeated(session, request)
        if receipt is not None:
            return Decided((), lambda: receipt)
        decision = intake.decide(request, state, known)
        if isinstance(decision, intake.Refuse):
            raise _refusal(decision)
        if isinstance(decision, intake.Attach):
            run_id = decision.run
            return Decided((), lambda: run_id)
        return self._start(session, decision, request, caller, agent, contents)

    def _start(
        self,
        session: LiveSession,
        start: intake.Start,
        request: intake.Request,
        caller: Caller,
        agent: str,
        stored: Contents,
    ) -> Decided:
        at, state = self._clock.now(), session.state
        named = start.create.id if start.create is not None else None
        names = meant_by(request.key, named)
        reason = self._stops.find(caller.user, session.id, names, self._clock.monotonic())
        policy = Policy(request.submit or state.record.submit or self._settings.submit)
        admitted = admit(policy, start, state)
        if isinstance(admitted, Occupied):
            raise Busy("A reply is being written. Send the message when it has ended.", _shown(admitted.run))
        if isinstance(admitted, Told) and start.create is not None and reason is None:
            return tell(session, admitted.run, start.create, caller, request.key, at, self._settings)
        if not self.accepting:
            raise ShuttingDown("The server is shutting down; send the message again in a moment.")
        admission = admitted if isinstance(admitted, Admission) else Admission()
        if reason is None:
            self._check_room(session, admission)
        events, contents, leaf = stops(session, admission.stops, caller.by, "superseded", at, self._clock.mint)
        if not admission.waits:
            # What waits for its turn waits for decisions as well; what starts takes the place of what is pending.
            made, decided = superseded(state, stored, caller.by, at)
            events, contents = [*made, *events], decided | contents
        # What the agents that end here were told and never took comes first.
        parent = leaf if start.parent == state.record.leaf else start.parent
        if start.create is not None:
            created, above = start.create, parent
            parent = self._clock.mint("msg")
            events.append(
                MessageCreated(at, caller.by, parent, created.id, above, created.role, created.parts, created.metadata)
            )
        run_id, message = request.run or self._clock.mint("run"), self._clock.mint("msg")
        waits = admission.waits and reason is None
        body = self.kept(agent, caller, waits=waits)
        events.append(RunQueued(at, caller.by, run_id, message, message, parent, agent, key=request.key, body=body))
        if reason is not None:
            events.append(StopRequested(at, caller.by, run_id, reason))
            events.append(RunEnded(at, caller.by, run_id, message, message, Status.STOPPED, reason))
            contents[message] = ((), None)
        else:
            if not waits:
                events.append(RunStarted(at, run_id, message, message))

        def taken() -> None:
            if reason is None:
                self._starting[run_id] = session if len(admission.stops) == len(session.live) else None

        def dropped() -> None:
            self._starting.pop(run_id, None)

        def answer() -> str:
            dropped()
            if reason is not None:
                every = stop_names(request.key, named) + stop_names(None, named)
                self._stops.use_up(caller.user, session.id, every)
            return run_id

        return Decided(tuple(events), answer, contents, caller, taken=taken, dropped=dropped)

    def _check_room(self, session: LiveSession, admission: Admission) -> None:
        """Raise TooMany where there are as many runs as there may be."""
        roots = [run for run in session.state.roots() if run not in admission.stops]
        waiting = sum(run.status is Status.QUEUED for run in roots)
        if admission.waits and waiting >= self._settings.max_queued:
            raise TooMany("Too many messages wait for their turn already.", code="too-many-queued", retry_after=5.0)
        if not admission.waits:
            self._check_beside(len(roots) - waiting)
        # Of the sessions whose runs all end by a start, only what is started counts.
        self.admit_run(session if len(admission.stops) == len(session.live) else None)

    def _check_beside(self, running: int) -> None:
        """Raise TooMany where no run may start beside so many in one session."""
        if running >= self._settings.max_concurrent:
            raise TooMany("Too many replies are being written in this session.", retry_after=2.0)

    # ------------------------------------------------------------------ the queue

    def begin(self) -> None:
        """From now on agents may be called: new messages are taken, and what an earlier process left in queues."""
        self.accepting = True
        for session in self.in_memory():
            self.advance(session)

    def advance(self, session: LiveSession) -> None:
        """Let the queued run start whose turn has come, if there is one."""
        if self.accepting and session.state.turn() is not None:
            self.journal.enqueue(session, self._advance)

    def _advance(self, session: LiveSession) -> Decided:
        run = session.state.turn() if self.accepting else None
        started = () if run is None else (RunStarted(self._clock.now(), run.id, run.message, run.message_id),)
        return Decided(started, lambda: None)


def no_such_session() -> NotFound:
    """Unknown and foreign sessions look alike."""
    return NotFound("There is no such session.")


def _shown(run: RunRecord) -> dict[str, str]:
    return {"id": run.id, "messageId": run.message_id, "status": run.status.value}


def _refusal(refuse: intake.Refuse) -> Exception:
    if refuse.code == "invalid-message":
        return Unprocessable(refuse.detail, code=refuse.code)
    return Conflict(refuse.detail, code=refuse.code)
