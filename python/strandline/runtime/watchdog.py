"""Notices an agent that blocks the event loop (DESIGN §14.16): then nobody is served, and nobody can say why.

A thread looks whether the loop still turns. When it has stood still for a while the stack of the loop's thread is
logged, which names the line that blocks. It changes nothing.
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
    """Warns once per standstill of more than ``patience`` seconds."""

    def __init__(self, patience: float = 2.0) -> None:
        self._patience = patience
        self._beat = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop; called on it."""
        watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(watched,), name="strandline-watchdog", daemon=True)
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
        self._beat = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._tick)

    def _watch(self, watched: int) -> None:
        warned_of = 0.0
        while not self._over.wait(_LOOK_EVERY):
            beat = self._beat
            still = time.monotonic() - beat
            if still < self._patience or beat == warned_of:
                continue
            warned_of = beat
            frame = sys._current_frames().get(watched)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "(unknown)"
            logger.warning(
                "agent-blocks-the-event-loop: nothing has been served for %.1f s. Something blocks the event loop, for "
                "example a plain (not async) client called in an async agent. Make the agent a plain function (it then "
                "runs in a thread), or await the call with asyncio.to_thread. It stands here:\n%s",
                still,
                stack,
                extra={"action": "loop-blocked"},
            )
