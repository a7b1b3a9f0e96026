"""How what an agent says gets into the log: in order, and never more than the store can take (DESIGN §14.11).

What is folded includes what is still on its way to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import starmap
from typing import Any

from strandline.core.chunks import has_lone_surrogate
from strandline.core.decisions import APPROVAL, Awaited
from strandline.core.events import Chunk
from strandline.core.ids import InvalidId, check_id
from strandline.core.parts import Tool
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.run import Status
from strandline.errors import ChunkRefused, RunOver
from strandline.runtime.ending import TOO_MANY_DECISIONS, Ending
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.session import Sessions
from strandline.saying.composing import Composing, size_of
from strandline.saying.decision import Terms
from strandline.settings import Settings


class Writer(Composing):
    """The writing side of one run. ``Run`` is what agents see of it."""

    def __init__(
        self,
        sessions: Sessions,
        settings: Settings,
        session: LiveSession,
        live: LiveRun,
        record: RunRecord,
        context: list[MessageRecord],
    ) -> None:
        # What the message says already, where another run or an earlier process has begun it.
        super().__init__(live.fold.fork(), settings.delta_limit, settings.chunk_limit)
        self._sessions = sessions
        self._settings = settings
        self._session = session
        self._live = live
        self._record = record
        self._context = context
        self._since_pause = 0
        self._written = 0
        self._closed = False
        self._taken: set[str] = set()
        self._loop = asyncio.get_running_loop()

    def say(self, delta: str) -> bool:
        """Add text at once if nothing has to be waited for or opened, as for nine of ten deltas: the short way of
        ``_delta``. False: nothing was added."""
        part = self._open
        if (
            part is None
            or part[0] != "text"
            or not delta
            or len(delta) > self._settings.delta_limit // 4
            or self._since_pause + 1 >= self._settings.yield_every
            or self._live.pending.size >= self._settings.pending_limit
            or self._held is not None
            or self._broken_off is not None
            or has_lone_surrogate(delta)
        ):
            return False
        self._since_pause += 1
        self._put({"type": "text-delta", "id": part[1], "delta": delta}, size_of(delta))
        return True

    async def _turn(self) -> None:
        """Wait until something may be added. From here to the next await whatever is added stays together, also when
        several tasks of the agent add to the run."""
        self._since_pause += 1
        if self._since_pause >= self._settings.yield_every:
            # An agent that never really waits must not keep the event loop from everybody else.
            self._since_pause = 0
            await asyncio.sleep(0)
        if self._live.pending.size >= self._settings.pending_limit:
            await self._live.pending.room(self._settings.pending_limit)
        if self._held is not None:
            await self._unheld()

    def _put(self, chunk: Chunk, size: int = 64) -> None:
        """One checked chunk of about ``size`` bytes: into the message so far, and on its way to the store."""
        if self._live.over or self._closed:
            raise RunOver(f"The run {self._record.id} has ended.")
        self._spend(size)
        fitting = self._push(chunk)
        if fitting is None:
            return
        self._live.pending.add(fitting, size, self._settings.delta_limit)
        self._sessions.journal.mark(self._session)

    def _spend(self, size: int) -> None:
        self._written += size
        if self._written > self._settings.message_limit:
            raise ChunkRefused(f"The reply is longer than {self._settings.message_limit} bytes.", code="reply-too-long")

    async def close(self) -> Ending:
        """The agent has returned: end what it left open and say how the run ended."""
        await self._unheld()  # a restart that the agent did not wait for
        if not self._live.over:
            self._close_part()
        self._closed = True
        if self._broken_off is not None:
            kind, text = self._broken_off
            if kind == "error":
                return Ending(Status.FAILED, "agent-error", text, usage=self._usage, after_pending=True)
            return Ending(Status.STOPPED, text or "agent-abort", usage=self._usage, after_pending=True)
        return self._returned(self._finish_reason, self._usage)

    def _returned(self, finish_reason: str | None, usage: Mapping[str, Any] | None) -> Ending:
        """How the run ends that has said all it has to say."""
        awaits = tuple(starmap(self._await, self._undecided()))
        if awaits:
            reason = "awaiting-decisions"
            return Ending(Status.SUSPENDED, reason, None, "tool-calls", usage, after_pending=True, awaits=awaits)
        return Ending(Status.COMPLETED, "completed", None, finish_reason or "stop", usage, after_pending=True)

    def _await(self, tool: Tool, kind: str, terms: Terms) -> Awaited:
        clock, expires_at = self._sessions.clock, None
        wanted = str(tool.fields["approval"]["id"]) if kind == APPROVAL else tool.id
        if terms.expires_in is not None:
            expires_at = clock.now() + round(terms.expires_in * 1000)
        try:
            decision = check_id(wanted, "decision")
        except InvalidId:  # of a library; no path could have it
            decision = clock.mint("decision")
        return Awaited(tool.id, kind, decision, terms.roles, expires_at)

    def _may_ask_more(self) -> None:
        most = self._settings.max_decisions
        if len(self._session.state.waiting()) + len(self._undecided()) >= most:
            raise ChunkRefused(f"The session may wait for {most} decisions at a time.", code=TOO_MANY_DECISIONS)

    def give_up(self) -> None:
        """The agent has failed: nothing that it may have left running can add to the message any more."""
        self._closed = True

    @property
    def limit(self) -> int:
        """How many agents may run at once."""
        return self._settings.max_active_runs

    @property
    def used(self) -> dict[str, Any] | None:
        """What ``usage`` was told so far."""
        return self._usage

    def _new_id(self, prefix: str) -> str:
        return self._sessions.clock.mint(prefix)
