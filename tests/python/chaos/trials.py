"""How long a trial is, what it draws from, and what starts its servers: for the fault suite and the crash suite."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from forking import Nursery

LONG = os.environ.get("CHAOS") == "long"


@pytest.fixture
def scale() -> Callable[[int, int], int]:
    """``scale(short, long)``: how often, or how large, in this run."""
    return lambda short, long: long if LONG else short


@pytest.fixture
def seed() -> int:
    """Where the trials' random numbers begin: the same in every run, unless ``CHAOS_SEED`` says otherwise."""
    return int(os.environ.get("CHAOS_SEED", "20261"))


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks processes, which have to be ended by who asked for them."""
    made = Nursery()
    yield made
    made.close()
