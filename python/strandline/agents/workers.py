"""The workers of remote agents that are connected: what they are told, and how the agents are doing (PROTOCOL §18.2).

A worker is a connection that listens. It is told which runs wait to be taken, which ones are over, and where there are
notes; what it misses, it is told when it comes back, or learns from its next request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strandline.codecs.sse import OPENING, RETRY, frame
from strandline.core.records import RunRecord, SessionRecord
from strandline.errors import TooMany
from strandline.runtime.clock import Clock
from strandline.runtime.live import LiveSession

if TYPE_CHECKING:
    from strandline.agents.leases import Lease

MAX_WORKERS = 1000
"""Connections of one agent's workers."""
_MAX_NEWS = 1000
"""What a worker is told at once; of older things its requests tell."""


class Worker:
    """One connection."""

    __slots__ = ("agent", "holder", "may", "news", "wake")

    def __init__(self, agent: str, holder: str | None, may: Callable[[SessionRecord], bool]) -> None:
        self.agent = agent
        self.holder = holder
        self.may = may
        self.news: deque[tuple[str, str]] = deque(maxlen=_MAX_NEWS)
        self.wake = asyncio.Event()


class Workers:
    """All of them."""

    def __init__(self, clock: Clock, runs: Callable[[str], Iterable[Lease]]) -> None:
        self._clock = clock
        self._runs = runs
        self._connected: dict[str, dict[Worker, None]] = {}
        self._seen: dict[str, int] = {}
        self._returned: set[str] = set()
        self._closed = False

    def open(self) -> None:
        """The service has started."""
        self._closed = False

    def close(self) -> None:
        """The server is going away."""
        self._closed = True
        for workers in self._connected.values():
            for worker in workers:
                worker.wake.set()

    def tell(self, agent: str) -> None:
        """There is a run that waits."""
        for worker in self._connected.get(agent, ()):
            worker.wake.set()

    def over(self, session: LiveSession, run: RunRecord, *, told: bool) -> None:
        """A run is over, or (not ``told``) only the server. Its worker knows when it has ended it itself."""
        if told and run.id not in self._returned:
            self._say(session, run, "stop")
        self._returned.discard(run.id)

    def noted(self, session: LiveSession, run: RunRecord) -> None:
        """An agent was told something."""
        self._say(session, run, "note")

    def _say(self, session: LiveSession, run: RunRecord, kind: str) -> None:
        for worker in self._connected.get(run.agent, ()):
            if (kind, run.id) not in worker.news and worker.may(session.state.record):
                worker.news.append((kind, run.id))
            worker.wake.set()

    def returned(self, run: str) -> None:
        """The worker of this run is about to end it itself."""
        self._returned.add(run)

    def saw(self, agent: str) -> None:
        """A worker of this agent has said something."""
        self._seen[agent] = self._clock.now()

    def connected(self, agent: str) -> int:
        """How many listen."""
        return len(self._connected.get(agent, ()))

    def seen(self, agent: str) -> int | None:
        """When one was last heard of, in ms."""
        return self._seen.get(agent)

    @contextmanager
    def place(self, worker: Worker) -> Iterator[None]:
        """A worker's place, for as long as its response lasts. Raises TooMany."""
        workers = self._connected.setdefault(worker.agent, {})
        if len(workers) >= MAX_WORKERS:
            raise TooMany("Too many workers of this agent are connected.", code="too-many-readers", retry_after=5.0)
        workers[worker] = None
        self.saw(worker.agent)
        try:
            yield
        finally:
            del workers[worker]
            self.saw(worker.agent)

    async def stream(self, worker: Worker) -> AsyncGenerator[bytes]:
        """What a worker is told, until the server goes away."""
        joined = bytearray(OPENING + RETRY)
        told: set[str] = set()
        came = True
        while True:
            active: set[str] = set()
            for lease in self._runs(worker.agent):
                run, claimed = lease.record.id, lease.live.claimed
                active.add(run)
                if came and lease.live.notes and worker.may(lease.session.state.record):
                    worker.news.append(("note", run))
                # Those that it has itself are named once, when it comes: it may have been restarted.
                waits = claimed is None or (came and claimed.holder == worker.holder)
                if run in told or not waits or not worker.may(lease.session.state.record):
                    continue
                told.add(run)
                joined += frame({"type": "run", **described(lease)})
            told &= active
            came = False
            while worker.news:
                kind, run = worker.news.popleft()
                joined += frame({"type": kind, "run": run})
            if joined:
                yield bytes(joined)
                joined.clear()
            if self._closed:
                return
            await worker.wake.wait()
            worker.wake.clear()


def described(lease: Lease) -> dict[str, Any]:
    """A run as a worker is told of it before it takes it."""
    claimed = lease.live.claimed
    return {
        "run": lease.record.id,
        "session": lease.session.id,
        "messageId": lease.record.message_id,
        "user": lease.live.caller.user,
        "attempt": (claimed.producer if claimed is not None else 0) + 1,
        "createdAt": lease.record.created_at,
    }
