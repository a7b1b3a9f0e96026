"""A real server with an agent of the ``ai`` package for Python in it, run by an interpreter that has the package:
``python ai_app.py app PORT``. The model is the package's own fake.

``/oracle/{session}``: what the package itself says of the last run of a session. ``/producer``: a back end for
``useChat`` as the package's own documentation writes it, without Strandline.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import ai
import pydantic
import uvicorn
from ai.ui.ai_sdk import (
    UI_MESSAGE_STREAM_HEADERS,
    UIMessage,
    apply_approvals,
    to_messages,
    to_sse,
    to_stream,
    to_ui_messages,
)
from ai.ui.ai_sdk.ui_events import UIDataEvent
from fastapi import Request
from fastapi.responses import StreamingResponse

from strandline import Run, Strandline, ui_stream
from strandline.agents.sources.sse import ui_message_body
from strandline.http.auth import Auth


class Report(pydantic.BaseModel):
    wind_speed: float | None
    sky: str = pydantic.Field(serialization_alias="skyNow")


said: dict[str, list[Any]] = {}
closed: list[str] = []


@ai.tool
async def weather(city: str) -> Report:
    """The weather in a city."""
    return Report(wind_speed=None, sky=f"clear over {city}")


@ai.tool
async def broken() -> str:
    """Fails."""
    raise ValueError("nobody home")


@ai.tool
async def count(to: int) -> ai.StreamingTextTool:
    """Counts."""
    for number in range(to):
        yield f"{number} "


@ai.tool
async def wait() -> str:
    """Takes for ever."""
    try:
        await asyncio.sleep(3600)
    finally:
        closed.append("tool")
    return "never"


paid: list[int] = []


@ai.tool(require_approval=True)
async def pay(sum: int) -> str:
    """Pays."""
    paid.append(sum)
    return f"paid {sum}"


agent = ai.Agent(tools=[weather, broken, count, wait, pay])

QUESTION, AGAIN = ai.user_message("weather?"), ai.user_message("and now?")
REPLY = [
    ai.assistant_message(
        ai.thinking("the weather"), "Looking.", ai.testing.tool_call(weather, city="Oslo"),
        ai.testing.tool_call(broken), ai.testing.tool_call(count, to=3),
    ),
    ai.assistant_message("It is ", "clear. 🦩"),
]  # fmt: skip
PAYING = ai.assistant_message(
    "Let me.",
    ai.testing.tool_call(pay, sum=5).model_copy(update={"tool_call_id": "c1"}),
    ai.testing.tool_call(pay, sum=900).model_copy(update={"tool_call_id": "c2"}),
)
MODEL = ai.testing.FakeModel(
    # The second answer is only given if the history that it is asked with is the first one, word for word.
    [QUESTION, *REPLY, AGAIN, ai.assistant_message("Still clear.")],
    [ai.user_message("a picture?"), ai.assistant_message("Here.", ai.file_part(b"\x89PNG", media_type="image/png"))],
    [ai.user_message("wait"), ai.assistant_message("Waiting.", ai.testing.tool_call(wait))],
    [ai.user_message("pay"), PAYING, ai.user_message("and now?"), ai.assistant_message("Nothing paid.")],
)
GOING_ON = ai.testing.FakeModel(
    # The package flags what it goes on with, which its fake takes for another message.
    [ai.user_message("pay"), PAYING.model_copy(update={"replay": True}), ai.assistant_message("Paid, in part.")]
)


def read(ui_messages: list[Any]) -> Any:
    return to_messages([UIMessage.model_validate(message) for message in ui_messages])


async def deferring(events: Any) -> AsyncIterator[Any]:
    async for event in events:
        if isinstance(event, ai.events.HookEvent) and event.hook.status == "pending":
            ai.defer_hook(event.hook)
        yield event


async def user_of(request: Request) -> str:
    return "ann"


chat = Strandline(os.environ["CHAT_DB"], auth=Auth(user_of))


@chat.agent
async def reply(run: Run) -> AsyncIterator[Any]:
    if run.prompt()[-1]["content"] == "objects":
        made = [UIDataEvent("mark", {"n": None}, id="x"), UIDataEvent("mark", [Report(wind_speed=1, sky="s")], id="y")]
        yield ui_stream(made)
        return
    messages, approvals = read(ui_message_body(run)["messages"])
    async with agent.run(GOING_ON if approvals else MODEL, messages) as stream:
        apply_approvals(approvals)
        events = deferring(stream)
        yield ui_stream(to_sse(events) if run.body.get("sse") else to_stream(events))
        said[run.session_id] = stream.messages[len(messages) :]


app = chat.app()


@app.post("/producer")
async def producer(request: Request) -> StreamingResponse:
    body = await request.json()
    messages, approvals = read(body["messages"])

    async def frames() -> AsyncIterator[str]:
        async with agent.run(GOING_ON if approvals else MODEL, messages) as stream:
            apply_approvals(approvals)
            async for frame in to_sse(deferring(stream)):
                yield frame
            said[body["id"]] = stream.messages[len(messages) :]

    return StreamingResponse(frames(), headers=UI_MESSAGE_STREAM_HEADERS)


@app.get("/oracle/{session}")
async def oracle(session: str) -> Any:
    shown = to_ui_messages(said.get(session, []))
    return {
        "closed": closed,
        "paid": paid,
        "messages": [message.model_dump(mode="json", by_alias=True, exclude_none=True) for message in shown],
    }


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="info")
