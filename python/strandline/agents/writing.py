"""How what an agent says gets into the log: checked, copied, split, in order, and never more than the store can take.

Everything passes ``append`` or ``_delta``: it is folded into what the message says so far, including what is still on
its way to the store, so that a bad chunk raises in the agent and never reaches a client (DESIGN §14.8, §14.11).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.core.chunks import ChunkInvalid, check, has_lone_surrogate
from strandline.core.coalesce import PROGRESS
from strandline.core.decisions import APPROVAL, CLIENT_TOOL, Awaited
from strandline.core.events import Chunk
from strandline.core.ids import InvalidId, check_id
from strandline.core.message import FoldError
from strandline.core.parts import Text, Tool
from strandline.core.portable import portable
from strandline.core.records import MessageRecord, RunRecord
from strandline.core.run import Status
from strandline.errors import ChunkRefused, RunOver
from strandline.runtime.ending import Ending
from strandline.runtime.live import LiveRun, LiveSession
from strandline.runtime.session import Sessions
from strandline.settings import Settings

_TERMINAL = frozenset({"finish", "abort", "error"})
_PARTS = {"text-start": "text", "reasoning-start": "reasoning"}


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may decide (None: whoever the policy lets), and within how many seconds after the run was suspended."""

    roles: tuple[str, ...] | None = None
    expires_in: float | None = None


class Writer:
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
        self._sessions = sessions
        self._settings = settings
        self._session = session
        self._live = live
        self._record = record
        self._context = context
        # What the message says already, where another run or an earlier process has begun it.
        self._fold = live.fold.fork()
        self._asked: dict[str, Terms] = {}
        self._client_tools: dict[str, Terms] = {}
        self._renamed: dict[tuple[str, str], str] = {}
        self._minted = 0
        self._since_pause = 0
        self._written = 0
        self._own_steps = False
        self._open = self._left_open()
        self._tools_answered = self._has_answers()
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._ending: Ending | None = None
        self._closed = False
        self._held: asyncio.Event | None = None
        self._taken: set[str] = set()
        self._loop = asyncio.get_running_loop()

    async def append(self, chunk: Chunk) -> None:
        """Add one AI SDK ``UIMessageChunk`` (ai@7.0.173). ``start``, ``finish``, ``abort`` and ``error`` belong to the
        run: what they say is kept (metadata, finish reason, failure), the chunk itself is not passed on."""
        try:
            check(chunk)
        except ChunkInvalid as exc:
            raise ChunkRefused(str(exc)) from exc
        kind = chunk["type"]
        if self._ending is not None:
            if kind in _TERMINAL or kind.endswith(("-end", "finish-step")):
                return  # what producers send after an error to tidy up
            raise ChunkRefused("Nothing can follow a chunk that ended the reply.")
        name = DELTAS.get(kind)
        if name is None:
            # A copy: the agent may go on using its objects, and what was logged must stay as it was.
            blob = _dump(chunk)
            self._check_size(kind, len(blob))
            await self._turn()
            self._append(kind, orjson.loads(blob), len(blob))
            return
        # Also a copy, though only a delta with more than its text can hold something that changes.
        extra: Chunk = chunk if len(chunk) == 3 else orjson.loads(_dump(chunk))
        for piece in split(chunk[name], self._settings.delta_limit):
            await self._turn()
            self._append(kind, {**extra, name: piece}, size_of(piece))

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
            or self._ending is not None
            or has_lone_surrogate(delta)
        ):
            return False
        self._since_pause += 1
        self._put({"type": "text-delta", "id": part[1], "delta": delta}, size_of(delta))
        return True

    async def _delta(self, family: str, delta: str) -> None:
        if not isinstance(delta, str):
            raise ChunkRefused(f"Text must be a str, not {type(delta).__name__}.")
        if self._ending is not None:
            raise ChunkRefused("Nothing can follow a chunk that ended the reply.")
        if has_lone_surrogate(delta):
            raise ChunkRefused("The text has half of a surrogate pair: join split characters first.")
        for piece in split(delta, self._settings.delta_limit) if delta else ():
            await self._turn()
            if self._open is None or self._open[0] != family:
                self._close_part()
                self._step()
                part = self._mint("t" if family == "text" else "r")
                self._put({"type": f"{family}-start", "id": part})
                self._open = (family, part)
            self._put({"type": f"{family}-delta", "id": self._open[1], "delta": piece}, size_of(piece))

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
        while self._held is not None:
            await self._held.wait()

    def _append(self, kind: str, chunk: Chunk, size: int) -> None:
        if kind == "start" or kind in _TERMINAL:
            self._absorb(kind, chunk, size)
            return
        if kind == "start-step":
            self._own_steps = True
        if self._open is not None and not self._continues(kind, chunk):
            self._close_part()
        self._put(self._unique(kind, chunk), size)

    def _absorb(self, kind: str, chunk: Chunk, size: int) -> None:
        if chunk.get("messageMetadata") is not None:
            self._put({"type": "message-metadata", "messageMetadata": chunk["messageMetadata"]}, size)
        if kind == "finish" and "finishReason" in chunk:
            self._finish_reason = chunk["finishReason"]
        elif kind == "error":
            self._ending = Ending(
                Status.FAILED, "agent-error", chunk["errorText"], usage=self._usage, after_pending=True
            )
        elif kind == "abort":
            reason = chunk.get("reason") or "agent-abort"
            self._ending = Ending(Status.STOPPED, reason, usage=self._usage, after_pending=True)

    def _continues(self, kind: str, chunk: Chunk) -> bool:
        assert self._open is not None
        return kind in (f"{self._open[0]}-delta", "message-metadata", PROGRESS) or bool(chunk.get("transient"))

    def _unique(self, kind: str, chunk: Chunk) -> Chunk:
        """Part ids are unique per message: a repeated one is renamed, for its deltas and its end as well."""
        family = kind.partition("-")[0]
        if kind in _PARTS:
            part = chunk["id"]
            if part in self._fold.used_ids():
                renamed = self._mint(part)
                self._renamed[(family, part)] = renamed
                return {**chunk, "id": renamed}
            self._renamed.pop((family, part), None)
        elif self._renamed and family in ("text", "reasoning") and (family, chunk["id"]) in self._renamed:
            return {**chunk, "id": self._renamed[(family, chunk["id"])]}
        return chunk

    def _put(self, chunk: Chunk, size: int = 64) -> None:
        """One checked chunk of about ``size`` bytes: into the message so far, and on its way to the store."""
        if self._live.over or self._closed:
            raise RunOver(f"The run {self._record.id} has ended.")
        self._spend(size)
        fitting = portable(self._fold, chunk)
        if fitting is None:
            return
        try:
            self._fold.push(fitting)
        except FoldError as exc:
            raise ChunkRefused(str(exc)) from exc
        self._live.pending.add(fitting, size, self._settings.delta_limit)
        self._sessions.journal.mark(self._session)

    def _spend(self, size: int) -> None:
        self._written += size
        if self._written > self._settings.message_limit:
            raise ChunkRefused(f"The reply is longer than {self._settings.message_limit} bytes.", code="reply-too-long")

    def _check_size(self, kind: str, size: int) -> None:
        if size > self._settings.chunk_limit:
            raise ChunkRefused(
                f"A {kind} chunk of {size} bytes is over the limit of {self._settings.chunk_limit}. "
                "Store large content elsewhere and send its URL."
            )

    def _left_open(self) -> tuple[str, str] | None:
        """The part that the message ends in the middle of: what is said now goes on there."""
        for entry in reversed(self._fold.entries):
            if isinstance(entry, Text) and entry.open:
                return entry.kind, entry.id
            if not isinstance(entry, dict) or entry["type"] != PROGRESS:
                break
        return None

    def _has_answers(self) -> bool:
        fold = self._fold
        tools = [entry for entry in fold.entries if isinstance(entry, Tool) and fold.in_current_step(entry)]
        return fold.step_open and any(tool.finished for tool in tools)

    def _close_part(self) -> None:
        if self._open is not None:
            family, part = self._open
            self._open = None
            self._put({"type": f"{family}-end", "id": part})

    def _step(self) -> None:
        """Steps as ai's own servers mark them: one to begin with, a new one after tool results."""
        if self._own_steps:
            return
        if self._fold.step_open and (not self._tools_answered or self._fold.unfinished_tools):
            return
        self._close_part()
        if self._fold.step_open:
            self._put({"type": "finish-step"})
        self._tools_answered = False
        self._put({"type": "start-step"})

    async def close(self) -> Ending:
        """The agent has returned: end what it left open and say how the run ended."""
        while self._held is not None:  # a restart that the agent did not wait for
            await self._held.wait()
        if not self._live.over:
            self._close_part()
        self._closed = True
        if self._ending is not None:
            return self._ending
        awaits = self._awaited()
        if awaits:
            reason = "awaiting-decisions"
            return Ending(Status.SUSPENDED, reason, None, "tool-calls", self._usage, after_pending=True, awaits=awaits)
        return Ending(
            Status.COMPLETED, "completed", None, self._finish_reason or "stop", self._usage, after_pending=True
        )

    def _awaited(self) -> tuple[Awaited, ...]:
        """The calls that somebody has to decide about: those with an open approval, and those of tools that a client
        runs, which have no output."""
        found = []
        for tool in self._fold.unfinished_tools:
            approval, asked = tool.fields.get("approval", {}), self._asked.get(tool.id)
            if tool.state == "approval-requested" and not approval.get("isAutomatic"):
                found.append(self._await(tool.id, APPROVAL, str(approval["id"]), asked or Terms()))
            elif tool.state == "input-available" and not tool.fields.get("providerExecuted"):
                terms = asked or self._client_tools.get(tool.name)
                if terms is not None:
                    found.append(self._await(tool.id, CLIENT_TOOL, tool.id, terms))
        return tuple(found)

    def _await(self, tool_call: str, kind: str, wanted: str, terms: Terms) -> Awaited:
        clock, expires_at = self._sessions.clock, None
        if terms.expires_in is not None:
            expires_at = clock.now() + round(terms.expires_in * 1000)
        try:
            decision = check_id(wanted, "decision")
        except InvalidId:  # of a library; no path could have it
            decision = clock.mint("decision")
        return Awaited(tool_call, kind, decision, terms.roles, expires_at)

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

    def _mint(self, prefix: str) -> str:
        while True:
            self._minted += 1
            minted = f"{prefix}-{self._minted}"
            if minted not in self._fold.used_ids() and self._fold.tool(minted) is None:
                return minted


DELTAS = {"text-delta": "delta", "reasoning-delta": "delta", "tool-input-delta": "inputTextDelta"}


def split(text: str, limit: int) -> list[str]:
    """Pieces of at most ``limit`` bytes."""
    if len(text) <= limit // 4 or len(text.encode()) <= limit:
        return [text]
    return [text[start : start + limit // 4] for start in range(0, len(text), limit // 4)]


def size_of(delta: str) -> int:
    return 48 + (len(delta) if delta.isascii() else len(delta.encode()))


async def aclose(iterator: Any) -> None:
    """Close an iterator at once, not whenever it is collected, if it can be closed."""
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


def _dump(chunk: Chunk) -> bytes:
    try:
        return orjson.dumps(chunk)
    except TypeError as exc:
        raise ChunkRefused(f"A {chunk['type']} chunk is not JSON: {exc}") from exc
