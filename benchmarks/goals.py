"""What the project has set out to reach, beside what a run has measured: the second table of ``bench.md``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

Found = dict[str, dict[str, list[dict[str, float]]]]
"""Work, side, and the figures of every round."""


@dataclass(frozen=True)
class Goal:
    """``figure`` reads a run; ``most`` or ``least`` is what it should be."""

    name: str
    figure: Callable[[Found], float]
    most: float | None = None
    least: float | None = None

    def row(self, found: Found) -> str:
        """A line of the table. A run that left the work out says so."""
        wanted = f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:,g}"
        try:
            value = self.figure(found)
        except (KeyError, statistics.StatisticsError):
            return f"| {self.name} | {wanted} | not measured | – |"
        reached = value <= self.most if self.most is not None else self.least is not None and value >= self.least
        shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        return f"| {self.name} | {wanted} | {shown} | {'yes' if reached else '**no**'} |"


def median(found: Found, work: str, side: str, figure: str) -> float:
    """The median of the rounds. Raises KeyError."""
    return statistics.median(each[figure] for each in found[work][side])


def ratio(work: str, figure: str, side: str, other: str) -> Callable[[Found], float]:
    """One side beside another one, of one run."""
    return lambda found: median(found, work, side, figure) / median(found, work, other, figure)


def plain(work: str, figure: str, side: str = "strandline-full") -> Callable[[Found], float]:
    """A figure as it is."""
    return lambda found: median(found, work, side, figure)


def within(found: Found) -> float:
    """The most tokens per second and core among the works whose p99 is at most 100 ms: they are what arrived, on the
    one core that the server has."""
    rates = [
        median(found, work, "strandline-full", "tokens per second")
        for work in found
        if work.startswith("W1") and "p99 ms" in found[work].get("strandline-full", [{}])[0]
        if median(found, work, "strandline-full", "p99 ms") <= 100
    ]
    return max(rates, default=0.0)


_100, _300, _W3 = "W1 100 replies x 50/s", "W1 300 replies x 50/s", "W3 resume of 2000 tokens"
_W5, _CPU = "W5 bytes kept", "us CPU per token"

GOALS = (
    Goal(
        "CPU per token, 100 × 50/s: fsync against memory",
        ratio(_100, _CPU, "strandline-full", "strandline-memory"),
        1.25,
    ),
    Goal("the same against Redis Streams by hand", ratio(_100, _CPU, "strandline-full", "redis-streams"), 0.2),
    Goal("durable tokens per second on one core, p99 ≤ 100 ms", within, least=30_000),
    Goal("added latency at 5,000 tokens/s, p99 ms", plain(_100, "p99 ms"), 12),
    Goal("added latency at 15,000 tokens/s, p99 ms", plain(_300, "p99 ms"), 25),
    Goal("resume, first byte, p99 ms", plain(_W3, "first byte p99 ms"), 3),
    Goal("resume, whole reply, p99 ms", plain(_W3, "whole reply p99 ms"), 5),
    Goal("resumes per second and core", plain(_W3, "per second and core"), least=800),
    Goal(
        "resume against resumable-stream, p50",
        ratio(_W3, "whole reply p50 ms", "strandline-full", "resumable-stream"),
        0.5,
    ),
    Goal("readable after the producer died", plain("W8 the server dies", "replies whose words can be read"), least=1),
    Goal("bytes written per token at 15,000/s, while it runs", plain(_W5, "bytes written per token"), 250),
    Goal("the same, everything included", plain(_W5, "bytes written per token, with what follows"), 250),
    Goal("bytes kept per token: content", plain(_W5, "content kept, bytes per token"), 12),
    Goal("the same in pages of the file, 400 tokens each", plain(_W5, "file pages in use, bytes per token"), 12),
    Goal("kB per idle reader", plain("W6 1000 idle readers", "kB per idle reader"), 30),
    Goal("stop: until the last token, p99 ms", plain("W7 stop", "p99 ms"), 50),
)


def table(found: Found) -> str:
    """All goals, as Markdown."""
    return "\n".join(
        ["| goal | wanted | median | reached |", "|---|---|---|---|", *(goal.row(found) for goal in GOALS)]
    )
