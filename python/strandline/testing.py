"""For tests: yours and ours. Time in your hands, an agent that says what you tell it, a store that fails on demand,
and readers for the bytes that a client is sent.

::

    clock, agent = ManualClock(), ScriptedAgent()
    chat = Strandline(FailingStore(MemoryStore()), auth=..., clock=clock)
    chat.agent(agent)
    ...
    call = await agent.called()      # once a message was posted
    call.say("Hello").finish()
    frames = read_frames(response.content)
    assert fold_frames(frames).parts()[-1]["text"] == "Hello"
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.agents.run import Run
from strandline.core.message import FoldState
from strandline.core.records import AnnotationRecord, DecisionRecord, MessageRecord, RunRecord, SessionRecord
from strandline.errors import StoreUnavailable
from strandline.stores.port import Batch, Outline, Store

__all__ = [
    "FailingStore",
    "Frame",
    "FrameReader",
    "ManualClock",
    "ScriptedAgent",
    "ScriptedCall",
    "fold_frames",
    "read_frames",
    "until",
]


async def until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait (in real time) until ``condition()`` is true; raises TimeoutError. For what other tasks and threads do."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        await asyncio.sleep(0.001)


class ManualClock:
    """A clock that stands still until ``advance``. Ids are ``run-1``, ``run-2``, …: give a second clock that works on
    the same store another ``name``, or use the same clock again."""

    def __init__(self, name: str = "", start: int = 1_800_000_000_000) -> None:
        self._name = name
        self._start = start
        self._elapsed = 0.0
        self._minted: dict[str, int] = {}
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self._start + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        """Seconds."""
        return 1000.0 + self._elapsed

    def mint(self, prefix: str) -> str:
        """The next id."""
        self._minted[prefix] = number = self._minted.get(prefix, 0) + 1
        return f"{prefix}-{self._name}{number}"

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was advanced so far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self._count += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, self._count, woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass: sleepers wake in order, each at its own time, and get a few turns of the loop."""
        target = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, due)
            if not woken.done():
                woken.set_result(None)
                await _turns()
        self._elapsed = target
        await _turns()

    async def jump(self, seconds: float) -> None:
        """Let time pass in one leap, as when a machine was asleep: sleepers that are due wake late, all at once."""
        self._elapsed += seconds
        await self.advance(0)


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class ScriptedCall:
    """One call of a ``ScriptedAgent``: what the test lets it say, and how it ended.

    closed: its generator was closed or has ended; cancelled: by a cancellation (a stop, for instance).
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.closed = False
        self.cancelled = False
        self._steps: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, *pieces: Any) -> ScriptedCall:
        """Yield these, one after the other."""
        for piece in pieces:
            self._steps.put_nowait((_SAY, piece))
        return self

    def do(self, act: Callable[[Run], Any]) -> ScriptedCall:
        """Await ``act(run)``, for the methods of ``Run``."""
        self._steps.put_nowait((_DO, act))
        return self

    def finish(self) -> ScriptedCall:
        """Return."""
        self._steps.put_nowait((_FINISH, None))
        return self

    def fail(self, exc: BaseException) -> ScriptedCall:
        """Raise ``exc``."""
        self._steps.put_nowait((_FAIL, exc))
        return self

    async def _play(self) -> AsyncIterator[Any]:
        try:
            while True:
                kind, what = await self._steps.get()
                if kind == _FINISH:
                    return
                if kind == _FAIL:
                    raise what
                if kind == _DO:
                    await what(self.run)
                else:
                    yield what
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.closed = True


_SAY, _DO, _FINISH, _FAIL = "say", "do", "finish", "fail"


class ScriptedAgent:
    """An agent for ``chat.agent(...)``. Each time it is called there is a new ``ScriptedCall`` in ``calls``.

    With ``pieces`` every call says them and finishes by itself; without, the test tells each call what to do.
    """

    __name__ = "scripted"

    def __init__(self, *pieces: Any) -> None:
        self.calls: list[ScriptedCall] = []
        self._pieces = pieces

    async def __call__(self, run: Run) -> AsyncIterator[Any]:
        call = ScriptedCall(run)
        if self._pieces:
            call.say(*self._pieces).finish()
        self.calls.append(call)
        stream = call._play()
        try:
            async for item in stream:
                yield item
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def called(self, times: int = 1) -> ScriptedCall:
        """Wait until the agent was called so often; that call."""
        await until(lambda: len(self.calls) >= times)
        return self.calls[times - 1]


class FailingStore:
    """A store around another one whose commits fail or hang on demand. ``committed`` holds the batches that passed."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.committed: list[Batch] = []
        self.attempts = 0
        self._error: BaseException | None = None
        self._gate = asyncio.Event()
        self._gate.set()
        self._reads_fail = False

    def fail(self, error: BaseException | None = None, *, reads: bool = False) -> None:
        """From now on commits (and with ``reads`` everything else) raise ``error``, by default StoreUnavailable."""
        self._error = error or StoreUnavailable("This store fails because the test says so.")
        self._reads_fail = reads
        self._gate.set()

    def hang(self) -> None:
        """From now on commits wait, until ``mend`` or ``fail``."""
        self._gate.clear()

    def mend(self) -> None:
        """Everything works again; commits that hang go on."""
        self._error, self._reads_fail = None, False
        self._gate.set()

    async def commit(self, batch: Batch) -> None:
        self.attempts += 1
        await self._gate.wait()
        if self._error is not None:
            raise self._error
        await self.inner.commit(batch)
        self.committed.append(batch)

    async def open(self) -> int:
        return await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def session(self, session_id: str) -> SessionRecord | None:
        self._check()
        return await self.inner.session(session_id)

    async def sessions(self, *which: Any, **named: Any) -> list[SessionRecord]:
        self._check()
        return await self.inner.sessions(*which, **named)

    async def pending(self, session_ids: Sequence[str]) -> dict[str, int]:
        self._check()
        return await self.inner.pending(session_ids)

    async def outline(self, session_id: str) -> Outline:
        self._check()
        return await self.inner.outline(session_id)

    async def messages(self, session_id: str, versions: Sequence[str]) -> list[MessageRecord]:
        self._check()
        return await self.inner.messages(session_id, versions)

    async def run(self, run_id: str) -> RunRecord | None:
        self._check()
        return await self.inner.run(run_id)

    async def unfinished(self) -> list[RunRecord]:
        return await self.inner.unfinished()

    async def annotations(self, *which: Any) -> list[AnnotationRecord]:
        self._check()
        return await self.inner.annotations(*which)

    async def due(self, before: int) -> list[DecisionRecord]:
        self._check()
        return await self.inner.due(before)

    async def events(
        self, session_id: str, first_seq: int, last_seq: int, run: str | None = None
    ) -> list[tuple[int, bytes]]:
        self._check()
        return await self.inner.events(session_id, first_seq, last_seq, run)

    async def expire(self, before: int) -> int:
        self._check()
        return await self.inner.expire(before)

    async def checkpoint(self, *, truncate: bool = False) -> bool:
        return await self.inner.checkpoint(truncate=truncate)

    def _check(self) -> None:
        if self._reads_fail and self._error is not None:
            raise self._error


@dataclass(frozen=True, slots=True)
class Frame:
    """One SSE event. ``chunk`` is its JSON object (``{}`` for ``[DONE]``), ``cursor`` its id."""

    chunk: Mapping[str, Any]
    cursor: str | None = None
    done: bool = False


class FrameReader:
    """Takes bytes as they come, cut anywhere, and keeps the frames that are complete. Strict: raises ValueError for
    anything that PROTOCOL §4.3 does not allow (``id_first``: §11.5). ``comments`` holds the comment lines, ``retry``
    what a plain EventSource was told to wait, in ms."""

    def __init__(self, *, id_first: bool = False) -> None:
        self.id_first = id_first
        self.frames: list[Frame] = []
        self.comments: list[str] = []
        self.retry: int | None = None
        self._rest = b""
        self._lines: list[str] = []

    def feed(self, data: bytes) -> None:
        """More bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode())

    def _line(self, line: str) -> None:
        if "\r" in line:
            raise ValueError(f"a carriage return: {line!r}")
        if line.startswith(":"):
            self.comments.append(line)
        elif line.startswith("retry: ") and not self._lines:
            self.retry = int(line[7:])
        elif line:
            self._lines.append(line)
        else:
            self.frames.append(_frame(self._lines[::-1] if self.id_first else self._lines))
            self._lines = []


def _frame(lines: list[str]) -> Frame:
    data, *rest = lines
    cursor = rest[0].removeprefix("id: ") if rest else None
    if not data.startswith("data: ") or len(rest) > 1 or (rest and not rest[0].startswith("id: ")):
        raise ValueError(f"not a frame: {lines!r}")
    if data == "data: [DONE]":
        return Frame({}, cursor, done=True)
    return Frame(orjson.loads(data[6:]), cursor)


def read_frames(data: bytes, *, id_first: bool = False) -> list[Frame]:
    """The complete frames in ``data``."""
    reader = FrameReader(id_first=id_first)
    reader.feed(data)
    return reader.frames


def fold_frames(frames: Iterable[Frame]) -> FoldState:
    """The message that a client has after these frames. A ``start`` begins anew, as a full replay does."""
    state = FoldState()
    for frame in frames:
        if frame.done:
            continue
        if frame.chunk["type"] == "start":
            state = FoldState()
        state.push(frame.chunk)
    return state
