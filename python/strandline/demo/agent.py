"""The demo agent. It needs no key and no network, and it understands, exactly:

``count to N every M ms``   streams ``1 2 3 … N``, one number and one space per step
``fail after N``            raises after N numbers
``think N``                 reasons in N steps, then answers
``call weather CITY``       streams a tool's input, gives its output, answers
``say nothing``             finishes without any text
``delete FILE``             asks for approval, and goes on when somebody has decided
``send mail to NAME``       asks for approval, and goes on when somebody has decided
``plan N days in CITY``     writes day by day, and takes what it is told meanwhile into account
``research TOPIC``          two more agents look something up beside it, and say how far they are

Anything else gets a reply about how Strandline works. These commands are documented and stay as they are: they are how
anyone can check the promises from outside.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

from strandline.agents.run import Run
from strandline.demo.company import ask_to_delete, ask_to_mail, go_on, plan, research
from strandline.demo.words import about_strandline, pause, pieces, say

MAX_COUNT = 100_000
MAX_PAUSE_MS = 60_000
_WEATHER = ("clear", "a few clouds", "light rain", "windy", "fog in the morning", "thunderstorms")


class DemoFailure(RuntimeError):
    """What ``fail after N`` raises: an ordinary bug in an agent, with a text that users must not see."""


async def demo_agent(run: Run) -> None:
    """Answer the last message of the session, or go on with a reply that has waited for a decision."""
    if run.decisions:
        await go_on(run)
        return
    asked = _asked(run)
    for pattern, answer in _COMMANDS:
        match = pattern.fullmatch(asked)
        if match is not None:
            await answer(run, match)
            return
    await say(run, about_strandline(asked))


def _asked(run: Run) -> str:
    parts = run.messages[-1]["parts"] if run.messages else []
    return " ".join(" ".join(part["text"] for part in parts if part["type"] == "text").split())


async def _count(run: Run, match: re.Match[str]) -> None:
    seconds = min(int(match[2]), MAX_PAUSE_MS) / 1000
    for number in range(1, min(int(match[1]), MAX_COUNT) + 1):
        await run.text(f"{number} ")
        await asyncio.sleep(seconds)


async def _fail(run: Run, match: re.Match[str]) -> None:
    for number in range(1, min(int(match[1]), MAX_COUNT) + 1):
        await run.text(f"{number} ")
        await pause()
    raise DemoFailure("this is the demo's own failure; its text and traceback are for the server's log only")


async def _think(run: Run, match: re.Match[str]) -> None:
    steps = min(int(match[1]), 1000)
    for step in range(1, steps + 1):
        await run.reasoning(f"Step {step} of {steps}: looking at it from another side. ")
        await pause(4)
    await say(run, f"I thought about it in {steps} steps, and the answer is **{steps * 7}**.")


async def _weather(run: Run, match: re.Match[str]) -> None:
    city = match[1].strip()
    call = await run.tool_call("weather", _slow_json(city))
    await pause(10)
    digest = hashlib.sha256(city.casefold().encode()).digest()
    report = {"city": city, "celsius": digest[0] % 35, "sky": _WEATHER[digest[1] % len(_WEATHER)]}
    await run.tool_result(call, report)
    await say(run, f"In {city} it is {report['celsius']} °C, {report['sky']}. (The demo makes its weather up.)")


async def _slow_json(city: str) -> AsyncIterator[str]:
    escaped = city.replace("\\", "\\\\").replace('"', '\\"')
    for piece in pieces(f'{{"city": "{escaped}", "unit": "celsius"}}'):
        yield piece
        await pause()


async def _nothing(run: Run, match: re.Match[str]) -> None:
    """Finish without a word."""


_COMMANDS: list[tuple[re.Pattern[str], Callable[[Run, re.Match[str]], Awaitable[None]]]] = [
    (re.compile(r"count to (\d{1,9}) every (\d{1,9}) ms", re.IGNORECASE), _count),
    (re.compile(r"fail after (\d{1,9})", re.IGNORECASE), _fail),
    (re.compile(r"think (\d{1,9})", re.IGNORECASE), _think),
    (re.compile(r"call weather (.{1,80})", re.IGNORECASE), _weather),
    (re.compile(r"say nothing", re.IGNORECASE), _nothing),
    (re.compile(r"delete (.{1,80})", re.IGNORECASE), ask_to_delete),
    (re.compile(r"send mail to (.{1,80})", re.IGNORECASE), ask_to_mail),
    (re.compile(r"plan (\d{1,3}) days in (.{1,80})", re.IGNORECASE), plan),
    (re.compile(r"research (.{1,80})", re.IGNORECASE), research),
]
