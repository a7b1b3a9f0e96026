"""Serves one remote agent: listens for runs, takes them, calls the agent, sends what it says."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import httpx
from httpx_sse import SSEError, aconnect_sse

from strandline.core.ids import check_id
from strandline.errors import ChunkRefused, Misconfigured, PublicError, RunOver
from strandline.remote.asking import Headers, Pauses, Refused, Server, Unreachable, refuse_unless_ok
from strandline.remote.outbox import Outbox
from strandline.remote.run import RemoteRun

logger = logging.getLogger("strandline.remote")

_LISTEN = httpx.Timeout(10.0, read=60.0)
"""The server says something every 15 s: a minute of silence is a dead connection."""


async def serve_agent(
    url: str,
    name: str,
    function: Callable[[RemoteRun], Any],
    *,
    headers: Headers | None = None,
    holder: str | None = None,
    at_once: int = 100,
    patience: float = 300.0,
    client: httpx.AsyncClient | None = None,
) -> None:
    """Answer for the remote agent ``name`` until cancelled.

    url: of the agent wire, for example ``https://host/api/agents``. function: an async function or async generator that
    takes a RemoteRun. headers: sent with every request (``Authorization``), or a function that gives them. holder: what
    this worker calls itself; with the name that it had before it was restarted it takes its own runs again at once.
    at_once: runs at a time. patience: seconds for which the server may be unreachable while a run is written. Raises
    Refused when the server will not have this worker.
    """
    code = function if inspect.isroutine(function) else type(function).__call__
    if not (inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)):
        raise Misconfigured("A remote agent is an async function or an async generator; wrap a plain one in one.")
    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(httpx.AsyncClient(limits=httpx.Limits(max_connections=None)))
        server = Server(client, url, headers or {}, patience)
        worker = _Worker(
            server, check_id(name, "name"), function, check_id(holder or uuid.uuid4().hex, "holder"), at_once
        )
        try:
            await worker.listen()
        finally:
            await worker.close()


class _Worker:
    def __init__(
        self, server: Server, name: str, function: Callable[[RemoteRun], Any], holder: str, at_once: int
    ) -> None:
        self._server = server
        self._name = name
        self._function = function
        self._holder = holder
        self._at_once = at_once
        self._waiting: dict[str, None] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._boxes: dict[str, Outbox] = {}

    async def listen(self) -> None:
        """Take what is offered, for ever. Raises Refused."""
        url, pauses = f"{self._server.url}/{self._name}/runs", Pauses()
        while True:
            options: Any = {"params": {"holder": self._holder}, "headers": self._server.headers, "timeout": _LISTEN}
            try:
                async with aconnect_sse(self._server.client, "GET", url, **options) as source:
                    if not source.response.is_success:
                        await source.response.aread()
                        refuse_unless_ok(source.response)
                    async for event in source.aiter_sse():
                        pauses.reset()
                        self._told(event.json())
            except (httpx.TransportError, SSEError, ValueError) as exc:
                logger.info("the server cannot be heard: %r", exc, extra={"action": "remote-unheard"})
            await asyncio.sleep(pauses.next())

    async def close(self) -> None:
        """Leave off. What is being written ends as lost, or is taken again by the same holder."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _told(self, frame: Mapping[str, Any]) -> None:
        run: str = frame["run"]
        if frame["type"] == "run" and run not in self._tasks:
            self._waiting[run] = None
            self._take_more()
        elif frame["type"] == "stop":
            self._waiting.pop(run, None)
            if run in self._boxes:
                self._boxes[run].stop(frame)
        elif frame["type"] == "note" and run in self._boxes:
            self._boxes[run].noted()

    def _take_more(self) -> None:
        while self._waiting and len(self._tasks) < self._at_once:
            run = next(iter(self._waiting))
            del self._waiting[run]
            task = asyncio.get_running_loop().create_task(self._take(run), name=f"strandline-remote-{run}")
            self._tasks[run] = task
            task.add_done_callback(partial(self._over, run))

    def _over(self, run: str, _: asyncio.Task[None]) -> None:
        del self._tasks[run]
        self._take_more()

    async def _take(self, run: str) -> None:
        try:
            claim = {"holder": self._holder, "claim": uuid.uuid4().hex}
            claimed = await self._server.ask(f"runs/{run}/claim", claim)
            if claimed["state"] == "running":
                await self._write(claimed)
        except (Refused, Unreachable) as exc:
            if exc.code != "claimed":  # by another worker, which was quicker
                logger.warning("run %s was not taken: %s", run, exc, extra={"action": "remote-not-taken", "run": run})
        except Exception:
            logger.exception("run %s failed outside of its agent", run, extra={"action": "remote-failed", "run": run})

    async def _write(self, claimed: Mapping[str, Any]) -> None:
        """Call the agent, send what it says while it says it, and say how it ended."""
        outbox = self._boxes[claimed["run"]] = Outbox(self._server, claimed)
        run = RemoteRun(claimed, outbox)
        loop = asyncio.get_running_loop()
        sending, beating = loop.create_task(outbox.send()), loop.create_task(outbox.beat())
        calling, over = loop.create_task(self._call(run)), loop.create_task(outbox.ended.wait())
        tasks = (sending, beating, calling, over)
        try:
            await asyncio.wait({calling, over}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                calling.cancel()  # stopped, taken by another, or refused: what it says is not wanted any more
                await asyncio.wait({calling})
            how = calling.result() if not calling.cancelled() else {"status": "failed"}
            outbox.finish()
            await sending
            if not outbox.over:
                await outbox.end(how)
            if isinstance(outbox.why, Exception):
                extra = {"action": "remote-refused", "run": run.id}
                logger.warning("run %s was not written to its end: %s", run.id, outbox.why, extra=extra)
        finally:
            del self._boxes[run.id]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, run: RemoteRun) -> dict[str, Any]:
        try:
            produced = self._function(run)
            await run.emit(await produced if inspect.isawaitable(produced) else produced)
            return await run.returned()
        except RunOver:
            return run.failing(None)
        except PublicError as exc:
            return run.failing(str(exc)[:1000] or None)
        except ChunkRefused:
            extra = {"action": "remote-chunk-refused", "run": run.id}
            logger.exception("run %s said something that clients cannot read", run.id, extra=extra)
            return run.failing(None)
        except Exception:
            logger.exception("run %s failed", run.id, extra={"action": "remote-agent-failed", "run": run.id})
            return run.failing(None)
