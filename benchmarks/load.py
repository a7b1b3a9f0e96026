"""Runs the load generator (``load.c``), pinned to its own core, and reads what it measured."""

from __future__ import annotations

import asyncio
import json
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from machine import LOAD_CORE, pin

HERE = Path(__file__).parent
Figures = dict[str, Any]


@cache
def program() -> Path:
    """The compiled load generator."""
    target = Path(mkdtemp(prefix="strandline-load-")) / "load"
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(target), str(HERE / "load.c")], check=True)
    return target


async def load(
    port: int,
    request: bytes,
    total: int = 1,
    *,
    seconds: float = 60.0,
    at_once: int = 0,
    ramp: float = 0.0,
    herd: bool = False,
    lasts: bool = False,
    enough: int = 0,
    steady: tuple[float, float] = (0.0, 1e9),
) -> Figures:
    """Send ``total`` requests. Times in the answer are milliseconds; ``cpu`` and ``wall`` are seconds. ``steady``:
    between which seconds latencies are taken and the tokens in ``steady`` counted."""
    template = Path(mkdtemp(prefix="strandline-request-")) / "request"
    template.write_bytes(request)
    arguments = ["-p", str(port), "-f", str(template), "-n", str(total), "-t", str(seconds), "-c", str(at_once)]
    arguments += [
        "-s",
        str(steady[0]),
        "-e",
        str(steady[1]),
        "-k",
        str(enough),
        "-r",
        str(ramp * 1000),
        *(["-w"] if herd else []),
        *(["-l"] if lasts else []),
    ]
    process = await asyncio.create_subprocess_exec(
        str(program()), *arguments, stdout=subprocess.PIPE, preexec_fn=lambda: pin(LOAD_CORE)
    )
    out, _ = await asyncio.wait_for(process.communicate(), seconds + 30)
    if process.returncode != 0:
        raise RuntimeError(f"the load generator failed with {process.returncode}")
    found: Figures = json.loads(out)
    return found
