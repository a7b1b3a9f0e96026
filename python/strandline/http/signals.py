"""Shutdown begins at the exit signal, not at the end of the lifespan (DESIGN §7).

Servers wait for open responses before they run the end of the lifespan; ours stay open as long as there is something to
stream. So the signal is listened to as well, beside whatever handler the server has put there.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_exit_signal(callback: Callable[[], Any]) -> Iterator[None]:
    """Call ``callback`` on the running loop when SIGTERM or SIGINT arrives, then the handler that was there before.

    Outside the main thread signals cannot be listened to; then shutdown begins with the end of the lifespan.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        previous = before.get(signal.Signals(number))
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _SIGNALS:
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, previous)
