"""Keeps the garbage collector from stopping the process (docs/performance.md).

A commit of a thousand replies makes tens of thousands of objects that live until it is published. With the
interpreter's own thresholds they are all promoted to the oldest generation, which then is searched every few commits,
together with every module that is loaded: tens of milliseconds, several times a second. Nothing of ours depends on
the collector; it only has to come more rarely, and not to look at what was there before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_ORDINARY = (700, 10, 10), (2000, 10, 0), (2000, 10, 10)
"""What CPython 3.11–3.14 begin with. Other values are somebody's choice, and are left alone."""
_CALM = (50_000, 20, 50)

_calm = 0
_before = gc.get_threshold()


@contextmanager
def calm() -> Iterator[None]:
    """Higher thresholds, and what is loaded set aside, unless the application has thresholds of its own. Services of
    one process share this: the first one sets the thresholds, the last one puts them back."""
    global _calm, _before
    if not _calm and not (gc.isenabled() and gc.get_threshold() in _ORDINARY):
        yield
        return
    _calm += 1
    if _calm == 1:
        _before = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*_CALM)
    try:
        yield
    finally:
        _calm -= 1
        if not _calm:
            gc.set_threshold(*_before)
            gc.unfreeze()
