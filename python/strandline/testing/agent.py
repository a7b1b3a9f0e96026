"""An agent that says what a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from strandline.agents.run import Run
from strandline.testing.clock import until


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
