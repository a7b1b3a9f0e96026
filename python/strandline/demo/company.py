"""What the demo agent does in company: it asks people, listens to them while it writes, and starts other agents."""

from __future__ import annotations

import re
from typing import Any

from strandline.agents.run import Run
from strandline.demo.words import pause, say

MAX_DAYS = 30
_MORNINGS = ("the old town on foot", "the market", "the castle", "the museum by the river", "the botanical garden")
_EVENINGS = ("fish by the harbour", "a concert", "the view from the hill", "a long dinner", "the night tram")
_COLLEAGUES = (("web", 12, 12), ("archive", 8, 27))


async def ask_to_delete(run: Run, match: re.Match[str]) -> None:
    await _ask(run, "delete_file", {"path": match[1].strip()}, "What is deleted does not come back.")


async def ask_to_mail(run: Run, match: re.Match[str]) -> None:
    mail = {"to": match[1].strip(), "subject": "Hello from the demo"}
    await _ask(run, "send_mail", mail, "It leaves the house under your name.")


async def _ask(run: Run, tool: str, given: dict[str, Any], reason: str) -> None:
    """Ask, and return: the run is suspended, and nothing is held open. ``go_on`` is what follows."""
    await say(run, "I can do that. Somebody has to agree first, on whatever device.")
    await run.request_approval(tool, given, reason=reason)


async def go_on(run: Run) -> None:
    """Everything that was asked for is decided: do what was approved, with the input that was shown."""
    for decision in run.decisions:
        if decision.approved:
            await pause(20)
            await run.tool_result(decision.tool_call, {"done": True})
            await say(run, f"`{decision.tool}` is done. (The demo only pretends.)")
        else:
            await say(run, f"Then I leave it: `{decision.tool}` was not called.")


async def plan(run: Run, match: re.Match[str]) -> None:
    days, city = min(int(match[1]), MAX_DAYS), match[2].strip()
    await say(run, f"## {days} days in {city}\n\n")
    wishes: list[str] = []
    for day in range(days):
        for note in run.take_steering():
            wishes.append(note.text)
            await say(run, f"Noted, from day {day + 1} on.\n\n")
        morning, evening = _MORNINGS[day % len(_MORNINGS)], _EVENINGS[day % len(_EVENINGS)]
        heeded = "".join(f" As you wished: *{wish}*." for wish in wishes)
        await say(run, f"**Day {day + 1}.** In the morning {morning}, in the evening {evening}.{heeded}\n\n", 3)


async def research(run: Run, match: re.Match[str]) -> None:
    topic = match[1].strip()
    await say(run, f"Two colleagues look into *{topic}*, each in a run of its own.")
    colleagues = [
        await run.spawn(_colleague, name=name, prompt=topic, pages=pages, beats=beats)
        for name, pages, beats in _COLLEAGUES
    ]
    outcomes = [await colleague.result() for colleague in colleagues]
    came_back = sum(outcome.status == "completed" for outcome in outcomes)
    await say(run, f"\n\n{came_back} of {len(outcomes)} came back. What they found is in their cards.")


async def _colleague(run: Run) -> None:
    """Reads ``pages`` pages, each for so many ``beats``."""
    pages = run.body["pages"]
    for page in range(pages):
        await run.progress("pages", {"label": "Pages read", "done": page, "of": pages})
        await pause(run.body["beats"])
    await run.progress("pages", {"label": "Pages read", "done": pages, "of": pages})
    await say(run, f"{pages} pages about {run.prompt()[-1]['content']}, and nothing speaks against it.")
