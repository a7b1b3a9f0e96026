"""Calls an agent, whatever kind of callable it is, and says how that ended.

Async functions and generators run on the event loop, plain ones in a thread. What they yield or return goes to
``Run``. Exceptions become a failed run with a text that anybody may see; the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from strandline.agents.run import Run
from strandline.core.chunks import has_lone_surrogate
from strandline.core.run import Status
from strandline.errors import ChunkRefused, PublicError, RunOver
from strandline.runtime.ending import Ending
from strandline.saying.composing import aclose

logger = logging.getLogger("strandline.agent")

Agent = Callable[[Run], Any]

PUBLIC_ERROR = "The reply failed. Please try again."

_in_threads: set[asyncio.Future[Any]] = set()
"""The calls whose thread has not come to its end, also those for which nobody waits any more."""


async def call(agent: Agent, run: Run) -> Ending:
    """Run the agent to its end."""
    try:
        code = agent if inspect.isroutine(agent) or isinstance(agent, partial) else type(agent).__call__
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            await _consume(run, agent(run))
        elif inspect.isgeneratorfunction(code):
            await _consume_thread(run, agent(run))
        else:
            await _consume(run, await _in_thread(run, agent, run))
        return await run.close()
    except RunOver:
        return Ending(Status.STOPPED, "over")
    except PublicError as exc:
        if exc.__cause__ is None:
            extra = {"action": "agent-declined", "session": run.session_id, "run": run.id}
            logger.info("run %s ended with an error that its agent shows to the user", run.id, extra=extra)
        else:
            extra = {"action": "agent-failed", "session": run.session_id, "run": run.id}
            logger.error("run %s failed", run.id, extra=extra, exc_info=exc.__cause__)
        text = str(exc)
        return _failed("agent-error", PUBLIC_ERROR if has_lone_surrogate(text) else text or PUBLIC_ERROR, run)
    except ChunkRefused as exc:
        extra = {"action": "chunk-refused", "session": run.session_id, "run": run.id}
        logger.exception("run %s added something that clients cannot read", run.id, extra=extra)
        return _failed(exc.code, PUBLIC_ERROR, run)
    except Exception:
        extra = {"action": "agent-failed", "session": run.session_id, "run": run.id}
        logger.exception("run %s failed", run.id, extra=extra)
        return _failed("agent-error", PUBLIC_ERROR, run)
    except BaseException:
        # Cancelled: whatever the agent may have left running adds nothing any more, so the end does not wait for it.
        run.give_up()
        raise


def _failed(reason: str, error: str, run: Run) -> Ending:
    run.give_up()
    return Ending(Status.FAILED, reason, error, usage=run.used, after_pending=True)


async def emit(run: Run, item: Any) -> None:
    """Add one yielded or returned thing: text, a chunk, or an iterator of either."""
    if isinstance(item, str):
        await run.text(item)
    elif isinstance(item, Mapping):
        await run.append(item)
    elif item is None:
        return
    elif isinstance(item, AsyncIterator) or inspect.isasyncgen(item):
        await _consume(run, item)
    else:
        raise ChunkRefused(
            f"An agent yields str, UIMessageChunk dicts or async iterators of them, not {type(item).__name__}. "
            "For another library's stream use ui_stream(...) or yield its text."
        )


async def _consume(run: Run, produced: Any) -> None:
    if inspect.isawaitable(produced):
        produced = await produced
    if hasattr(produced, "__aiter__"):
        iterator = aiter(produced)
        try:
            async for item in iterator:
                if type(item) is not str or not run.say(item):
                    await emit(run, item)
        finally:
            # The provider's stream is closed at once when the run was stopped, not whenever it is collected.
            await aclose(iterator)
    elif isinstance(produced, Iterator):
        await _consume_thread(run, produced)
    else:
        await emit(run, produced)


async def _consume_thread(run: Run, iterator: Iterator[Any]) -> None:
    loop = asyncio.get_running_loop()

    def pump() -> None:
        try:
            for item in iterator:
                if run.cancelled:
                    break
                asyncio.run_coroutine_threadsafe(emit(run, item), loop).result()
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    await _in_thread(run, pump)


async def _in_thread(run: Run, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` in a thread of its own: agents are few and slow, and must not wait for one another. A thread
    that does not end keeps nobody: neither the run, whose end is recorded, nor the exit of the process. But it counts:
    there are at most as many as there may be runs."""
    if len(_in_threads) >= run.limit:
        raise PublicError("Too many replies are being written at the moment.")
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, exc: BaseException | None) -> None:
        if outcome.done():
            return
        if exc is not None:
            outcome.set_exception(exc)
        else:
            outcome.set_result(result)

    def work() -> None:
        result, failure = None, None
        try:
            result = context.run(function, *args)
        except StopIteration as exc:
            failure = RuntimeError(f"the agent raised {exc!r}")  # which no future can hold
        except BaseException as exc:
            failure = exc  # type: ignore[assignment]
        _in_threads.discard(outcome)  # before anybody learns of it, who may need a thread next
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
            loop.call_soon_threadsafe(settle, result, failure)

    thread = threading.Thread(target=work, name=f"strandline-agent-{run.id}", daemon=True)
    _in_threads.add(outcome)
    try:
        thread.start()
    except BaseException:
        _in_threads.discard(outcome)
        raise
    return await outcome
