"""`make bench`: every side, interleaved, in one run; one Markdown table and one JSON file.

The server is pinned to core 0, the load generator to core 1. Each round runs every side on every work once, in an order
that is turned from round to round; what is reported is the median of the rounds and how far they spread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import works
from goals import Found, table
from sides import SIDES, Server, Side, running
from works import Numbers

STRANDLINE = ("strandline-full", "strandline-normal", "strandline-memory")
RELAYS = ("resumable-stream", "redis-streams")
LIMITS = {"STRANDLINE_MAX_READERS_PER_SESSION": "5000", "STRANDLINE_MAX_READERS": "20000"}


@dataclass(frozen=True)
class Work:
    """Something to measure. Every side gets a fresh server for it."""

    name: str
    sides: tuple[str, ...]
    measure: Callable[[Server], Awaitable[Numbers]]


def w1(count: int) -> Callable[[Server], Awaitable[Numbers]]:
    return lambda server: works.replies(server, count)


def w2(readers: int) -> Callable[[Server], Awaitable[Numbers]]:
    return lambda server: works.fan_out(server, readers)


EVERY = (*STRANDLINE, *RELAYS, "floor")
BOTH = ("strandline-full", "strandline-memory")
WORKS = (
    Work("W1 1 reply x 50/s", (*BOTH, *RELAYS, "floor"), w1(1)),
    Work("W1 20 replies x 50/s", (*BOTH, *RELAYS, "floor"), w1(20)),
    Work("W1 100 replies x 50/s", EVERY, w1(100)),
    # From here on the relay by hand does not keep up: it would take twenty times as long as the others.
    Work("W1 200 replies x 50/s", (*BOTH, "resumable-stream", "floor"), w1(200)),
    Work("W1 300 replies x 50/s", (*BOTH, "floor"), w1(300)),
    Work("W1 600 replies x 50/s", (*BOTH, "floor"), w1(600)),
    Work("W1 1000 replies x 50/s", (*STRANDLINE, "resumable-stream", "floor"), w1(1000)),
    Work("W1 saturated", EVERY, works.saturated),
    Work("W2 1 reply, 1 reader", ("strandline-full", *RELAYS), w2(1)),
    Work("W2 1 reply, 50 readers", (*BOTH, *RELAYS), w2(50)),
    Work("W2 1 reply, 500 readers", ("strandline-full", "resumable-stream"), w2(500)),
    Work("W3 resume of 2000 tokens", (*BOTH, *RELAYS), works.resumes),
    Work("W4 catch-up", BOTH, works.catch_up),
    Work("W5 bytes kept", ("strandline-full",), works.kept),
    Work("W6 1000 idle readers", ("strandline-full", *RELAYS), works.idle),
    Work("W7 stop", BOTH, works.stops),
    Work("W8 the server dies", ("strandline-full", *RELAYS), works.deaths),
)


async def one(side: Side, work: Work) -> Numbers:
    """One work on one side, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder, running(side, Path(folder), **LIMITS) as server:
        return await work.measure(server)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="names of works that contain this")
    parser.add_argument("--sides", default="", help="comma-separated; default: all")
    parser.add_argument("--out", type=Path, default=Path("artefacts/bench"))
    asked = parser.parse_args()
    chosen = [work for work in WORKS if asked.only in work.name]
    names = set(asked.sides.split(",")) if asked.sides else set(SIDES)
    found: Found = {}
    for number in range(asked.rounds):
        for work in chosen:
            sides = [name for name in work.sides if name in names]
            for name in sides[number % max(1, len(sides)) :] + sides[: number % max(1, len(sides))]:
                try:
                    numbers = await one(SIDES[name], work)
                except (RuntimeError, TimeoutError, OSError) as exc:
                    print(f"round {number + 1}  {work.name:<26} {name:<20} FAILED: {exc}", flush=True)
                    continue
                found.setdefault(work.name, {}).setdefault(name, []).append(numbers)
                shown = "  ".join(f"{key} {value:.4g}" for key, value in numbers.items())
                print(f"round {number + 1}  {work.name:<26} {name:<20} {shown}", flush=True)
        write(asked.out, found, number + 1)
    print(f"\n{asked.out / 'bench.md'}\n")


def write(out: Path, found: Found, rounds: int) -> None:
    """What is known after so many rounds."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps({"machine": machine(), "rounds": rounds, "works": found}))
    (out / "bench.md").write_text(report(found, rounds))


def machine() -> str:
    """What it was measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "unknown CPU",
    )
    return f"{cpu}, Linux {platform.release()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"


def report(found: Found, rounds: int) -> str:
    """The Markdown table: medians, (lowest to highest), and the ratio to the first side of the row."""
    lines = [f"{machine()}; medians of {rounds} rounds (lowest–highest), ratio to the first side.", ""]
    lines += [table(found), ""]
    lines += ["| work | figure | side | durable | median | spread | ratio |", "|---|---|---|---|---|---|---|"]
    for work, sides in found.items():
        for figure in dict.fromkeys(key for rounds_of in sides.values() for each in rounds_of for key in each):
            base: float | None = None
            for name, numbers in sides.items():
                values = [each[figure] for each in numbers if figure in each]
                if not values:
                    continue
                median = statistics.median(values)
                base = median if base is None else base
                ratio = f"{median / base:.2f}" if base else "–"
                spread = f"{min(values):.4g}–{max(values):.4g}"
                lines.append(
                    f"| {work} | {figure} | {name} | {SIDES[name].durable} | {median:.4g} | {spread} | {ratio} |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    asyncio.run(main())
