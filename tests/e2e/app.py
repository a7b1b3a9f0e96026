"""The application under test: the demo agent over the file in ``E2E_DB``, for this machine only.

What the agent went through is written to ``E2E_RECORD``, one JSON object a line, so that it outlives a killed process.
``GET /test/calls`` gives it back: per session how often the agent was called, and how each provider stream ended.

More commands than the demo agent has. ``relay N every M ms`` counts like ``count to N every M ms``, but the numbers
come out of an async generator that the agent returns, as a model's stream would. ``restart after M ms`` says
``old words``, waits, throws that away and says ``new words``, waits again, and is over.
``replace after M ms`` and ``step again after M ms`` come to the same words by ``run.replace`` and ``run.reset_step``.
The agents ``phoenix-restart`` and ``phoenix-continue`` say ``old words`` and wait for their process to be killed;
called again they say ``new words``, the second one where ``old words`` was taken back to a checkpoint before it.
``attend N every M ms`` counts like that and says what it is told in between: ``1 2 (faster) 3``.
``delegate`` has an agent beside it say a few words.
``perform NAME`` adds the chunks of a script that was put there before with ``PUT /test/scripts/NAME``: a list of
``{"chunks": [UIMessageChunk], "pause": ms}``.

``ask approval`` asks whether it may ``refund``, ``ask tool`` has a client ``locate``, ``ask both`` does both; with
``within M ms`` there is no longer to decide; ``politely`` says something first, ``slowly`` as well, and takes half a
second for it. When it is decided the agent gives an approved call its output, says how everything was decided, a word
every 20 ms, and with ``ask twice`` asks once more; ``silently`` does nothing then, and ``busily`` calls a tool of its
own, and says nothing about it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from strandline import Run, Strandline, open_on_loopback
from strandline.demo.agent import demo_agent

RECORD = Path(os.environ["E2E_RECORD"])
RESTART = re.compile(r"restart after (\d+) ms")
REPLACE = re.compile(r"replace after (\d+) ms")
STEP = re.compile(r"step again after (\d+) ms")
RELAY = re.compile(r"relay (\d+) every (\d+) ms")
ATTEND = re.compile(r"attend (\d+) every (\d+) ms")
PERFORM = re.compile(r"perform (\S+)")
ASK = re.compile(r"ask (approval|tool|both|twice)(?: (politely|slowly|silently|busily))?(?: within (\d+) ms)?")

chat = Strandline(os.environ["E2E_DB"], auth=open_on_loopback("tester"))


scripts: dict[str, list[dict[str, Any]]] = {}


def record(kind: str, run: Run, **more: Any) -> None:
    with RECORD.open("a") as file:
        file.write(json.dumps({"kind": kind, "session": run.session_id, "run": run.id, **more}) + "\n")


async def relayed(run: Run, to: int, pause: float) -> AsyncIterator[str]:
    """The stream of a provider. It notes that it was closed, however that came about."""
    given = 0
    try:
        for number in range(1, to + 1):
            given = number
            yield f"{number} "
            await asyncio.sleep(pause)
    finally:
        record("provider-closed", run, given=given, whole=given == to)


async def attended(run: Run, to: int, pause: float) -> None:
    """Counting, with an ear for what it is told."""
    for number in range(1, to + 1):
        for note in run.take_steering():
            await run.text(f"({note.text}) ")
        await run.text(f"{number} ")
        await asyncio.sleep(pause)


async def beside(run: Run) -> AsyncIterator[str]:
    yield "seen from "
    await asyncio.sleep(0.1)
    yield "beside"


async def restarted(run: Run, pause: float) -> None:
    """A first attempt that is thrown away."""
    await run.text("old words")
    await asyncio.sleep(pause)
    await run.restart()
    await run.text("new ")
    await run.text("words")
    await asyncio.sleep(pause)


async def replaced(run: Run, pause: float) -> None:
    await run.text("old words")
    await asyncio.sleep(pause)
    await run.replace("new ")
    await run.text("words")
    await asyncio.sleep(pause)


async def stepped(run: Run, pause: float) -> None:
    await run.text("old words")
    await asyncio.sleep(pause)
    await run.reset_step()
    await run.text("new ")
    await run.text("words")
    await asyncio.sleep(pause)


async def performed(run: Run, script: list[dict[str, Any]]) -> None:
    for act in script:
        for chunk in act["chunks"]:
            await run.append(chunk)
        await asyncio.sleep(act["pause"] / 1000)


async def asked(run: Run, what: str, within: float | None) -> None:
    for decision in run.decisions:
        if decision.approved:
            await run.tool_result(decision.tool_call, {"refunded": decision.input["amount"]})
    said = [
        f"{each.tool}: {json.dumps(each.output) if each.kind == 'tool' else each.outcome}" for each in run.decisions
    ]
    for word in " ".join(said).split():
        await run.text(f"{word} ")
        await asyncio.sleep(0.02)
    rounds = sum(part["type"] == "tool-refund" for message in run.messages[1:] for part in message["parts"])
    if run.decisions and not (what == "twice" and rounds == 1):
        return
    if what != "tool":
        await run.request_approval("refund", {"order": 42, "amount": 9.5}, expires_in=within)
    if what in ("tool", "both"):
        await run.call_client_tool("locate", {"precise": True}, expires_in=within)


@chat.agent
async def reply(run: Run) -> AsyncIterator[str] | None:
    record("called", run)
    last = next(message for message in reversed(run.messages) if message["role"] == "user")
    text = "".join(part.get("text", "") for part in last["parts"])
    if (match := RELAY.fullmatch(text)) is not None:
        return relayed(run, int(match[1]), int(match[2]) / 1000)
    try:
        if (match := RESTART.fullmatch(text)) is not None:
            await restarted(run, int(match[1]) / 1000)
        elif (match := REPLACE.fullmatch(text)) is not None:
            await replaced(run, int(match[1]) / 1000)
        elif (match := STEP.fullmatch(text)) is not None:
            await stepped(run, int(match[1]) / 1000)
        elif (match := ATTEND.fullmatch(text)) is not None:
            await attended(run, int(match[1]), int(match[2]) / 1000)
        elif (match := PERFORM.fullmatch(text)) is not None:
            await performed(run, scripts[match[1]])
        elif text == "delegate":
            critic = await run.spawn(beside, name="critic", prompt="What do you see?")
            await run.text("It has said: ")
            await run.text((await critic.result()).text)
        elif (match := ASK.fullmatch(text)) is not None:
            if match[2] == "politely" and not run.decisions:
                await run.reasoning("Will they? ")
                await run.text("Please. ")
            elif match[2] == "slowly" and not run.decisions:
                await run.text("Well. ")
                await asyncio.sleep(0.5)
            elif match[2] in ("silently", "busily") and run.decisions:
                if match[2] == "busily":
                    await run.tool_call("note", {}, id="note")
                    await run.tool_result("note", {"noted": True})
                return None
            await asked(run, match[1], int(match[3]) / 1000 if match[3] else None)
        else:
            await demo_agent(run)
    finally:
        record("agent-left", run)
    return None


async def phoenix(run: Run) -> None:
    record("called", run)
    if not run.recovered:
        await run.checkpoint("start")
        await run.text("old words")
        await asyncio.sleep(600)
    await run.text("new ")
    await asyncio.sleep(0.1)
    await run.text("words")


chat.agent(name="phoenix-restart", recover=True)(phoenix)
chat.agent(name="phoenix-continue", recover="continue")(phoenix)

app: FastAPI = chat.app(title="Strandline, under test")


@app.get("/test/calls")
def calls() -> dict[str, Any]:
    """Everything that was recorded, by session."""
    sessions: dict[str, dict[str, Any]] = {}
    for line in RECORD.read_text().splitlines() if RECORD.exists() else ():
        entry = json.loads(line)
        session = sessions.setdefault(entry["session"], {"called": 0, "left": 0, "closed": []})
        if entry["kind"] == "called":
            session["called"] += 1
        elif entry["kind"] == "agent-left":
            session["left"] += 1
        else:
            session["closed"].append({"run": entry["run"], "given": entry["given"], "whole": entry["whole"]})
    return {"sessions": sessions}


@app.put("/test/scripts/{name}")
def put_script(name: str, acts: list[dict[str, Any]]) -> None:
    scripts[name] = acts
