"""What becomes of a run once it was started: it is stopped, it ends, it starts its message over, it has others begin
beside it, and after a restart it is called again or lost. Each is one decision inside the writer.

Knows nothing of HTTP, and nothing of the task that an agent runs in (``runner.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from strandline.codecs import native
from strandline.core.events import Checkpointed, Chunk, Event
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.core.session import Content
from strandline.core.unfold import revive
from strandline.errors import NotFound, NotStored, RunOver, TooMany
from strandline.runtime.deciding import Decisions
from strandline.runtime.ending import Ending, affordable, end_events
from strandline.runtime.live import Decided, LiveSession, SessionGone
from strandline.runtime.live_run import Caller, LiveRun
from strandline.runtime.memory import stop_names
from strandline.runtime.recovering import recover_events, reset_events
from strandline.runtime.registry import ALL_SEQS
from strandline.runtime.spawning import Numbered, caller_of, counted, spawn_events
from strandline.runtime.steering import answered, left_over, overtaken_by
from strandline.runtime.stopping import (
    IDLE,
    REMEMBERED,
    named_run,
    stop_all,
    stop_run,
    unnamed_run,
    with_spawned,
)
from strandline.runtime.submitting import May


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the runs that an earlier process left unfinished."""

    lost: int
    again: int


class Runs(Decisions):
    """The sessions of one store, and the runs in them."""

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
        agent: str | None = None,
        every: bool = False,
    ) -> dict[str, Any]:
        """End a run, those of an agent, or every one (PROTOCOL §6.4); the answer is the body of the response."""
        self.tally.stops += 1
        began = self._clock.monotonic()
        names = (run, message_id, key)
        session = await self.find(session_id)
        if session is None or not may(session.state.record):
            return self._remember(session_id, caller, *names, reason)

        def decide(session: LiveSession) -> Decided:
            if every or agent is not None:
                return stop_all(session, agent, caller.by, reason, self._clock.now(), self._clock.mint)
            return self._stop(session, caller, *names, reason)

        try:
            answer: dict[str, Any] = await self.journal.decide(session, decide)
        except SessionGone:
            return self._remember(session_id, caller, *names, reason)
        if answer.get("stopped") or answer.get("runs"):
            self.tally.stop_seconds.add(self._clock.monotonic() - began)
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
        if run_id is None and message_id is None and key is None:
            run = unnamed_run(session.state)
            if run is None:
                return Decided((), lambda: IDLE)
        else:
            run = named_run(session.state, run_id, message_id, key)
        if run is not None:
            return stop_run(session, run, caller.by, reason, self._clock.now(), self._clock.mint)
        answer = self._remember(session.id, caller, run_id, message_id, key, reason)
        return Decided((), lambda: answer)

    def _remember(
        self, session_id: str, caller: Caller, run: str | None, message_id: str | None, key: str | None, reason: str
    ) -> dict[str, Any]:
        if run is not None or (message_id is None and key is None):
            raise NotFound("There is no such session or run.")
        names = stop_names(key, message_id)
        self._stops.remember(caller.user, session_id, names, reason, self._clock.monotonic())
        return REMEMBERED

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
            at, end = self._clock.now(), affordable(session, live, ending, self._settings)
            ends = end_events(session, live, end, by, at, overtaken_by(session, live))
            events, contents = with_spawned(session, live.id, end.status, ends, at)
            left = answered(session, live, end.status, at, self._clock.mint)
            return Decided((*events, *left.events), lambda: None, contents, left.caller)

        return self.journal.enqueue(session, decide)

    def enqueue_refused(self, session: LiveSession) -> None:
        """End every run of a session of which the store has refused something, in one commit and before anything else
        that waits there: nothing is said after a gap."""

        def decide(session: LiveSession) -> Decided:
            at, ended = self._clock.now(), [live for live in session.live.values() if not live.over]
            events: list[Event] = []
            contents: dict[str, Content] = {}
            for live in ended:
                status = Status.FAILED if session.state.runs[live.id].status is Status.RUNNING else Status.LOST
                ending = Ending(status, "not-stored", "The reply could not be stored. Please try again.")
                more, content = end_events(session, live, ending, "server", at)
                events += more
                contents |= content
            left = left_over(session, ended, at, self._clock.mint)
            return Decided((*events, *left.events), lambda: None, contents)

        if session.live:
            self.journal.enqueue(session, decide)
            session.commands.rotate(1)

    # ------------------------------------------------------------------ what a run does with its message as a whole

    def reset(
        self,
        session: LiveSession,
        live: LiveRun,
        by: str,
        chunks: tuple[Chunk, ...],
        sent: int | None,
        done: Callable[[], None],
    ) -> asyncio.Future[None]:
        """Let a run's message say ``chunks`` and nothing else (R15): what it said before no longer counts. ``sent`` is
        the number of the request that says so, of a remote agent. ``done`` is called in the step that publishes it,
        whether or not anybody still waits."""
        message_id = session.state.runs[live.id].message_id

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending:
                return None
            return Decided(reset_events(live, message_id, by, chunks, self._clock.now(), sent), done)

        return self.journal.enqueue(session, decide)

    def checkpoint(self, session: LiveSession, live: LiveRun, name: str | None) -> asyncio.Future[str]:
        """Settle what a run has said; the answer is the cursor of that. Raises RunOver."""

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                raise RunOver(f"The run {live.id} has ended.")
            if live.pending:
                return None
            place = Cursor(session.state.record.epoch, session.state.last_seq + 1, 1)
            return Decided((Checkpointed(self._clock.now(), live.id, live.message, name),), lambda: str(place))

        return self.journal.enqueue(session, decide)

    async def spawn(
        self,
        session: LiveSession,
        live: LiveRun,
        agent: str,
        body: Mapping[str, Any],
        kept: Mapping[str, Any] | None,
        begun: Callable[[str], None],
        numbered: Numbered | None = None,
    ) -> LiveRun | None:
        """Start another agent beside a run (PROTOCOL §17.6); ``kept``: see ``spawn_events``; ``begun`` is told its id
        before it is called. Raises RunOver and TooMany; with ``numbered`` None says that too much goes on already, and
        is as final as a run."""
        run_id, message = self._clock.mint("run"), self._clock.mint("msg")

        def decide(session: LiveSession) -> Decided | None:
            if numbered is not None and live.pending:
                return None  # the requests before it
            self.admit_run()
            caller, at = replace(live.caller, body=body), self._clock.now()
            key = numbered.key if numbered is not None else None
            before = () if numbered is None else (counted(live, numbered, at),)
            try:
                events = (*before, *spawn_events(session, live, agent, run_id, message, at, kept, key))
            except TooMany:
                if numbered is None:
                    raise
                return Decided(before, lambda: None)

            def answer() -> LiveRun:
                begun(run_id)
                return session.live[run_id]

            return self.placed(Decided(events, answer, caller=caller))

        spawned: LiveRun | None = await self.journal.decide(session, decide)
        return spawned

    async def stop_spawned(self, session: LiveSession, run_id: str, by: str) -> None:
        """The run that has spawned it wants it to end."""
        await self.journal.decide(
            session,
            lambda session: stop_run(
                session, session.state.runs[run_id], by, "parent", self._clock.now(), self._clock.mint
            ),
        )

    # ------------------------------------------------------------------ after a restart

    async def recover(self) -> Recovered:
        """Have the agents that can be recovered called again, for what an earlier process left unfinished; those that
        live elsewhere go on, and those that had not begun keep their place in the queue until ``begin``; what else it
        left ends as ``lost``, with the words that it said."""
        waiting: list[asyncio.Future[Any]] = []
        lost: list[tuple[LiveSession, LiveRun]] = []
        again: list[tuple[LiveSession, LiveRun, RunRecord]] = []
        for run in await self.store.unfinished():
            session = await self.find(run.session)
            if session is None:
                continue
            live = session.live[run.id] = await self._replayed(session, run, ALL_SEQS)
            if run.status is Status.QUEUED or self.elsewhere(run.agent):
                continue
            if self.can_recover(run) and not live.broken:
                again.append((session, live, run))
            else:
                lost.append((session, live))
        # What was spawned first: it is as lost as the run beside which it was written.
        for session, live in reversed(lost):
            waiting.append(self.enqueue_end(session, live, Ending(Status.LOST, "process-lost"), "server"))
        for session, live, run in again:
            waiting.append(await self._call_again(session, live, run))
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            # What the store refuses of one session is that session's, and keeps nobody from starting.
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotStored):
                raise outcome
        return Recovered(len(lost), len(again))

    def can_recover(self, run: RunRecord) -> bool:
        """True when another process can carry on an unfinished run."""
        may = run.status is Status.RUNNING and run.attempt < self._settings.max_attempts
        return may and not run.spawned and self.recovery(run.agent) is not None

    async def _call_again(self, session: LiveSession, live: LiveRun, run: RunRecord) -> asyncio.Future[Any]:
        """Publishing that the run was recovered starts it (``Runner.published``)."""
        settled: FoldState | None = None
        if live.checkpoints.seq is not None:
            settled = (await self._replayed(session, run, live.checkpoints.seq)).fold
        recovery = self.recovery(run.agent)

        def decide(session: LiveSession) -> Decided:
            return Decided(recover_events(live, run, recovery, settled, self._clock.now()), lambda: None)

        return self.journal.enqueue(session, decide)

    async def _replayed(self, session: LiveSession, run: RunRecord, upto: int) -> LiveRun:
        """A run as its events up to number ``upto`` leave it."""
        place = Cursor(session.state.record.epoch, run.first_seq, 0)
        caller = caller_of(session.state, run)
        base = await self._base(session, run)
        live = LiveRun(run.id, run.message, run.message_id, caller, place, base)
        for seq, line in await self.store.events(session.id, run.first_seq, upto, run.id):
            live.replay(seq, native.decode(line))
        return live

    async def _base(self, session: LiveSession, run: RunRecord) -> FoldState | None:
        """What the message said when a continuation began: the row of a message that is being written is left alone."""
        if not session.state.continues(run):
            return None
        stored = await self.store.messages(session.id, [run.message])
        return revive(run.message_id, stored[0].parts or (), stored[0].metadata) if stored else None
