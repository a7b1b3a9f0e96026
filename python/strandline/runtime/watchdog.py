"""Notices an agent that blocks the event loop (DESIGN §14.16): then nobody is served, and nobody can say why.

A thread looks whether the loop still turns. When it has stood still for a while, the log is told in which task (an
agent's names its run and session) and at which line; and for how long, once the loop turns again. It changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

logger = logging.getLogger("strandline.watchdog")

_LOOK_EVERY = 0.5


class Watchdog:
    """Warns once per standstill of more than ``patience`` seconds, and says when it is over."""

    def __init__(self, patience: float = 2.0) -> None:
        self._patience = patience
        self._beat = time.monotonic()
        self._warned_of = 0.0
        self._culprit = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop; called on it."""
        watched = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=watched, name="strandline-watchdog", daemon=True)
        self._tick()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; called on the loop."""
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join()

    def _tick(self) -> None:
        now = time.monotonic()
        if self._warned_of == self._beat:
            logger.warning(
                "the event loop goes on: it stood still for %.1f s, in %s",
                now - self._beat,
                self._culprit,
                extra={"action": "loop-goes-on"},
            )
        self._beat = now
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._tick)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        looked, worked = time.monotonic(), time.process_time()
        while not self._over.wait(_LOOK_EVERY):
            slept, busy = time.monotonic() - looked, time.process_time() - worked
            looked, worked = looked + slept, worked + busy
            beat = self._beat
            still = looked - beat
            if still < self._patience or beat == self._warned_of:
                continue
            if slept >= self._patience and busy < slept / 2:
                # This thread slept as long, and nothing was computed: the whole process was stopped, or its machine.
                continue
            task = asyncio.current_task(loop)
            self._culprit = task.get_name() if task is not None else "a callback"
            self._warned_of = beat
            frame = sys._current_frames().get(thread)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(unknown)"
            logger.warning(
                "agent-blocks-the-event-loop: nothing has been served for %.1f s, because of %s. Something blocks the "
                "event loop, for example a plain (not async) client called in an async agent. Make the agent a plain "
                "function (it then runs in a thread), or await the call with asyncio.to_thread. It stands here:\n%s",
                still,
                self._culprit,
                stack,
                extra={"action": "loop-blocked"},
            )
