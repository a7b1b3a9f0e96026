"""The fault suite. `make test` runs a short slice of every trial, `make chaos` the same trials at their full length.

Trials draw from a seed, which is part of every failure: ``CHAOS_SEED=<seed> make chaos`` begins with the same one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trials import nursery, scale, seed

# What the other folders have of readers, stores and commands is hurt here.
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("cli", "crash", "stores")]

__all__ = ["memory_path", "nursery", "say", "scale", "seed"]


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where the system has one: for trials that sync a thousand times and do not ask the disk."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as folder:
        yield Path(folder)


_SAID = pytest.StashKey[list[str]]()


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``say(figure)``: a line at the end of the run, whatever pytest captures, to be quoted."""
    said = request.config.stash.setdefault(_SAID, [])
    return lambda figure: said.append(f"{request.node.name}: {figure}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for figure in config.stash.get(_SAID, []):
        terminalreporter.write_line(figure)
