"""Runs that are written elsewhere: who has taken each of them, for how long it may be silent, and what it sends
(PROTOCOL §18).

The log says who has taken a run and which of its requests it has; only time is kept here. So a server that is started
again goes on where the earlier one was, and every lease begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from strandline.agents.relayed import Relayed, Request
from strandline.agents.spawning import Spawner, Wanted
from strandline.agents.workers import Workers
from strandline.core.events import Appended, Event, RunClaimed
from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.core.unfold import closers
from strandline.errors import (
    ChunkRefused,
    Conflict,
    RunOver,
    StoreUnavailable,
    Unavailable,
    Unprocessable,
)
from strandline.runtime.clock import Clock
from strandline.runtime.ending import Ending
from strandline.runtime.live import Decided, LiveSession, SessionGone
from strandline.runtime.live_run import Claimed, LiveRun
from strandline.runtime.session import Sessions
from strandline.runtime.spawning import Numbered
from strandline.saying.decision import Terms
from strandline.settings import Settings

MAX_CLAIMS = 64
"""How often one run may be taken: a worker that dies again and again is not given more time for ever."""

_TURNS = 100
"""Turns of the loop in which the runner has surely begun with a run that was published."""

PUBLIC_ERROR = "The reply failed. Please try again."
_NOBODY = "Nobody is there to answer just now. Please try again later."
_HANDED_OVER = "The agent was restarted before this was finished."


@dataclass(frozen=True, slots=True)
class Returned:
    """That the agent has returned: the calls, by id, that it leaves to be decided, and what else it says of its end."""

    asked: Mapping[str, Terms]
    finish_reason: str | None
    usage: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Said:
    """One numbered request of a producer."""

    producer: int
    sequence: int
    what: Request | Wanted


class Lease:
    """One run that is written elsewhere."""

    def __init__(self, leases: Leases, session: LiveSession, live: LiveRun, record: RunRecord, seconds: float) -> None:
        self.session = session
        self.live = live
        self.record = record
        self.seconds = seconds
        self.status: str | None = None
        self.until = 0.0
        self.gone = False
        self._leases = leases
        self._claiming = asyncio.Lock()
        self._writer: Relayed | None = None
        self._waiting = 0

    @property
    def by(self) -> str:
        """How events name its agent."""
        return f"agent:{self.record.agent}"

    def renew(self) -> None:
        """The worker has said something."""
        self.until = self._leases.clock.monotonic() + self.seconds
        self._leases.workers.saw(self.record.agent)

    def leave(self) -> None:
        """The run has ended, or this server does."""
        self.gone = True
        self.live.pending.release()

    # ------------------------------------------------------------------ what a worker asks for

    async def claim(self, holder: str, claim: str) -> Claimed:
        """Take the run for ``holder``; the same ``claim`` again is the same taking. What an earlier producer has left
        open is closed, and it is refused from now on. Raises Conflict (``claimed``, ``fenced``) or RunOver."""
        # To its end, also when nobody waits for it any more: the earlier producer must not come in between.
        return await asyncio.shield(self._claim(holder, claim))

    async def _claim(self, holder: str, claim: str) -> Claimed:
        async with self._claiming:
            known = self.live.claimed
            if known is not None and claim in known.claims:
                if known.claims[claim] != known.producer:
                    raise _fenced()
            else:
                self._check_free(known, holder)
                at = self._leases.clock.now

                def decide(session: LiveSession) -> Decided | None:
                    if self.live.over:
                        return Decided((), lambda: None)
                    if self.live.pending:
                        return None  # what the earlier producer was promised comes first
                    return Decided(takeover(self.live, self.by, at(), holder, claim), lambda: None)

                await self._leases.sessions.journal.decide(self.session, decide)
            if self.live.over or self.live.claimed is None:
                raise _over(self.record)
            self.renew()
            return self.live.claimed

    def _check_free(self, known: Claimed | None, holder: str) -> None:
        if known is None:
            return
        if known.holder != holder and self._leases.clock.monotonic() < self.until:
            raise Conflict("Another worker has taken this run.", code="claimed")
        if len(known.claims) >= MAX_CLAIMS:
            raise Conflict(f"This run was taken {MAX_CLAIMS} times already.", code="claimed")

    async def append(self, said: Said) -> None:
        """Add a request, once, in order; return when it is in the log. Raises RunOver, Conflict (``fenced``, ``gap``),
        Unprocessable (``chunk-refused``: that ends the run) or Unavailable."""
        with self._room():
            # To its end, also when nobody waits for it any more: the next request must not come in between.
            await asyncio.shield(self._take(said))
            self.renew()
            await self._stored(said)

    async def _take(self, said: Said) -> None:
        async with self._claiming:
            writer = self._writer_for(said.producer)
            if said.sequence > writer.taken + 1:
                raise _gap(writer.taken + 1)
            if said.sequence == writer.taken + 1:
                await self._add(writer, said)

    async def _add(self, writer: Relayed, said: Said) -> None:
        if isinstance(said.what, Wanted):
            await self._spawn(writer, said.sequence, said.what)
            return
        try:
            await writer.take(said.sequence, said.what)
        except RunOver:
            pass  # it is being ended; whoever waits below learns how
        except ChunkRefused as exc:
            writer.give_up()
            ending = Ending(Status.FAILED, exc.code, PUBLIC_ERROR, after_pending=True)
            self._leases.sessions.enqueue_end(self.session, self.live, ending, self.by)
            raise Unprocessable(str(exc), code=exc.code) from None

    async def _spawn(self, writer: Relayed, sequence: int, wanted: Wanted) -> None:
        leases, numbered = self._leases, Numbered(self.record.id, writer.producer, sequence)
        with suppress(RunOver, SessionGone):  # whoever waits below learns how
            await leases.spawner.spawn_numbered(leases.sessions, self.session, self.live, wanted, numbered)
        writer.taken = sequence

    async def _stored(self, said: Said) -> None:
        while (claimed := self.live.claimed) is not None and not self.live.over:
            if claimed.producer != said.producer:
                raise _fenced()
            if claimed.sent >= said.sequence:
                return
            if self.gone:
                raise leaving()
            await self.live.pending.released()
        raise _over(self.record)

    async def beat(self, producer: int, status: str | None) -> None:
        """The worker lives. Raises RunOver or Conflict (``fenced``)."""
        self._check(producer)
        self.status = status or self.status
        self.renew()

    async def end(self, producer: int, sequence: int, how: Returned | Ending) -> None:
        """The agent has returned, or has failed, after request number ``sequence``. Raises Conflict (``fenced``,
        ``gap``), Unprocessable or Unavailable."""
        with self._room():
            async with self._claiming:
                writer = self._writer_for(producer)
                if sequence != writer.taken:
                    raise _gap(writer.taken + 1)
                if isinstance(how, Returned):
                    how = writer.returned(how.asked, how.finish_reason, how.usage)
                writer.give_up()
                self._leases.workers.returned(self.record.id)
            await self._leases.sessions.end(self.session, self.live, how, self.by)

    # ------------------------------------------------------------------ in one piece

    def _check(self, producer: int) -> None:
        claimed = self.live.claimed
        if claimed is None or claimed.producer != producer:
            raise _fenced()
        if self.live.over:
            raise _over(self.record)

    def _writer_for(self, producer: int) -> Relayed:
        self._check(producer)
        if self._writer is None or self._writer.producer != producer:
            self._writer = Relayed(self._leases.sessions, self._leases.settings, self.session, self.live, self.record)
        return self._writer

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Refuse what would have to wait: the worker keeps it, and sends it again."""
        settings = self._leases.settings
        if self.gone:
            raise leaving()
        if not self._leases.sessions.journal.healthy:
            raise StoreUnavailable("The store cannot be written just now; send this again in a moment.")
        if self._waiting >= settings.max_waiting or self.live.pending.size >= settings.pending_limit:
            raise Unavailable("Too much of this run waits to be stored; send this again soon.", code="too-many-waiting")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1


class Leases:
    """The runs of remote agents that are active, and the workers that could take them. One per application."""

    def __init__(self, clock: Clock, settings: Settings, spawner: Spawner) -> None:
        self.clock = clock
        self.settings = settings
        self.spawner = spawner
        self.workers = Workers(clock, self.of)
        self.sessions: Sessions
        self._held: dict[str, Lease] = {}

    def serve(self, sessions: Sessions) -> None:
        """The service has started. The workers' connections end with it."""
        self.sessions = sessions
        sessions.at_close.append(self.workers.close)
        self.workers.open()

    def find(self, run: str) -> Lease | None:
        """The lease of an active run."""
        return self._held.get(run)

    def of(self, agent: str) -> list[Lease]:
        """The active runs of one agent, oldest first."""
        return [lease for lease in self._held.values() if lease.record.agent == agent]

    async def begun(self, session: LiveSession, run: str) -> None:
        """Return when the lease of a run is there that was started just now, or the run is over."""
        for _ in range(_TURNS):
            if run in self._held or run not in session.live:
                return
            await asyncio.sleep(0)

    async def hold(self, session: LiveSession, live: LiveRun, record: RunRecord, seconds: float) -> Ending:
        """What the runner calls in place of an agent: returns when the time of its worker is over. Every other end
        cancels this."""
        lease = Lease(self, session, live, record, seconds)
        lease.until = self.clock.monotonic() + (
            seconds if live.claimed is not None else self._patience(session, record)
        )
        self._held[record.id] = lease
        self.workers.tell(record.agent)
        hear, name = self._hear(session, live, record), f"strandline-notes-{record.id}"
        hearing = asyncio.get_running_loop().create_task(hear, name=name)
        kept = True
        try:
            while (left := lease.until - self.clock.monotonic()) > 0:
                # No longer than a lease: it may begin in the middle of the wait for a worker, and end before that.
                await self.clock.sleep(min(left, seconds))
            kept = False
        finally:
            hearing.cancel()
            del self._held[record.id]
            lease.leave()
            told = not kept or live.over or session.feed.failure is not None
            self.workers.over(session, record, told=told)
        if live.claimed is None:
            return Ending(Status.FAILED, "no-agent", _NOBODY)
        return Ending(Status.LOST, "lease-expired")

    def _patience(self, session: LiveSession, record: RunRecord) -> float:
        """Seconds that a run waits for a worker. What somebody has decided is not thrown away for a restart."""
        decided = session.state.continues(record)
        return self.settings.decided_timeout if decided else self.settings.claim_timeout

    async def _hear(self, session: LiveSession, live: LiveRun, record: RunRecord) -> None:
        """Tell the workers of every note."""
        while not live.over:
            await live.told()
            if live.notes:
                self.workers.noted(session, record)


def takeover(live: LiveRun, by: str, at: int, holder: str, claim: str) -> tuple[Event, ...]:
    """What it takes that a new producer goes on: nothing that the earlier one has left open, and its number. What was
    open when the run began is for whoever writes it: an approved call, for one, gets its output from the agent."""
    events: list[Event] = []
    before = live.claimed
    if before is not None and live.fold.anything_open:
        given = {tool.id for tool in live.base.unfinished_tools} if live.base is not None else ()
        closing = tuple(closers(live.fold, _HANDED_OVER, given))
        if closing:
            events.append(Appended(at, live.id, live.message, closing))
    events.append(RunClaimed(at, by, live.id, (before.producer if before is not None else 0) + 1, holder, claim))
    return tuple(events)


def failed(error: str | None, usage: Mapping[str, Any] | None) -> Ending:
    """What an agent says that has failed."""
    return Ending(Status.FAILED, "agent-error", error or PUBLIC_ERROR, usage=usage, after_pending=True)


def leaving() -> Unavailable:
    """For a run that is active, but has no lease: its end is not recorded yet, or it goes on under the next server."""
    return Unavailable("This run is about to end, or this server is; ask again in a moment.")


def _fenced() -> Conflict:
    return Conflict("A newer producer writes this run: stop, nothing more of this one is taken.", code="fenced")


def _gap(expected: int) -> Conflict:
    detail = f"Requests are missing: send number {expected} next."
    return Conflict(detail, code="gap", members={"expected": expected})


def _over(record: RunRecord) -> RunOver:
    return RunOver(f"The run {record.id} has ended.")
