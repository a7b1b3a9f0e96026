"""The demo agent. It needs no key and no network, and it understands, exactly:

``count to N every M ms``   streams ``1 2 3 … N``, one number and one space per step
``fail after N``            raises after N numbers
``think N``                 reasons in N steps, then answers
``call weather CITY``       streams a tool's input, gives its output, answers
``say nothing``             finishes without any text

Anything else gets a reply about how Strandline works. These commands are documented and stay as they are: they are how
anyone can check the promises from outside.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from strandline.agents.run import Run
from strandline.demo.words import about_strandline

MAX_COUNT = 100_000
MAX_PAUSE_MS = 60_000
_PACE = 0.03
_WEATHER = ("clear", "a few clouds", "light rain", "windy", "fog in the morning", "thunderstorms")


class DemoFailure(RuntimeError):
    """What ``fail after N`` raises: an ordinary bug in an agent, with a text that users must not see."""


async def demo_agent(run: Run) -> None:
    """Answer the last message of the session."""
    asked = _asked(run)
    for pattern, answer in _COMMANDS:
        match = pattern.fullmatch(asked)
        if match is not None:
            await answer(run, match)
            return
    for piece in _pieces(about_strandline(asked)):
        await run.text(piece)
        await asyncio.sleep(_PACE)


def _asked(run: Run) -> str:
    parts = run.messages[-1]["parts"] if run.messages else []
    return " ".join(" ".join(part["text"] for part in parts if part["type"] == "text").split())


async def _count(run: Run, match: re.Match[str]) -> None:
    pause = min(int(match[2]), MAX_PAUSE_MS) / 1000
    for number in range(1, min(int(match[1]), MAX_COUNT) + 1):
        await run.text(f"{number} ")
        await asyncio.sleep(pause)


async def _fail(run: Run, match: re.Match[str]) -> None:
    for number in range(1, min(int(match[1]), MAX_COUNT) + 1):
        await run.text(f"{number} ")
        await asyncio.sleep(_PACE)
    raise DemoFailure("this is the demo's own failure; its text and traceback are for the server's log only")


async def _think(run: Run, match: re.Match[str]) -> None:
    steps = min(int(match[1]), 1000)
    for step in range(1, steps + 1):
        await run.reasoning(f"Step {step} of {steps}: looking at it from another side. ")
        await asyncio.sleep(_PACE * 4)
    for piece in _pieces(f"I thought about it in {steps} steps, and the answer is **{steps * 7}**."):
        await run.text(piece)
        await asyncio.sleep(_PACE)


async def _weather(run: Run, match: re.Match[str]) -> None:
    city = match[1].strip()
    call = await run.tool_call("weather", _slow_json(city))
    await asyncio.sleep(_PACE * 10)
    digest = hashlib.sha256(city.casefold().encode()).digest()
    report = {"city": city, "celsius": digest[0] % 35, "sky": _WEATHER[digest[1] % len(_WEATHER)]}
    await run.tool_result(call, report)
    for piece in _pieces(f"In {city} it is {report['celsius']} °C, {report['sky']}. (The demo makes its weather up.)"):
        await run.text(piece)
        await asyncio.sleep(_PACE)


async def _slow_json(city: str) -> AsyncIterator[str]:
    escaped = city.replace("\\", "\\\\").replace('"', '\\"')
    for piece in _pieces(f'{{"city": "{escaped}", "unit": "celsius"}}'):
        yield piece
        await asyncio.sleep(_PACE)


async def _nothing(run: Run, match: re.Match[str]) -> None:
    """Finish without a word."""


def _pieces(text: str) -> list[str]:
    """Text as a model would send it: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


_COMMANDS: list[tuple[re.Pattern[str], Callable[[Run, re.Match[str]], Awaitable[None]]]] = [
    (re.compile(r"count to (\d{1,9}) every (\d{1,9}) ms", re.IGNORECASE), _count),
    (re.compile(r"fail after (\d{1,9})", re.IGNORECASE), _fail),
    (re.compile(r"think (\d{1,9})", re.IGNORECASE), _think),
    (re.compile(r"call weather (.{1,80})", re.IGNORECASE), _weather),
    (re.compile(r"say nothing", re.IGNORECASE), _nothing),
]
