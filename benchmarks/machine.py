"""What the operating system says of a process: CPU time, memory, bytes written; and pinning to a core (Linux)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

SERVER_CORE = 0
LOAD_CORE = 1
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds, bytes that reached the disk, and proportional memory (bytes) of some processes."""

    cpu: float
    written: int
    memory: int


def spent(pids: list[int]) -> Spent:
    """All threads of the processes, together."""
    cpu = written = memory = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu += int(fields[11]) + int(fields[12])
        written += _field(Path(f"/proc/{pid}/io"), "write_bytes")
        memory += _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") * 1024
    return Spent(cpu / _TICK, written, memory)


def pin(core: int) -> None:
    """Run this process, and what it starts, on one core."""
    os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    return 0
