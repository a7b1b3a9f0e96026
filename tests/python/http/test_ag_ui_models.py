"""Every event of every demo command is one of AG-UI's own (``ag-ui-protocol 1.0.0``), with no field that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from ag_ui.core import Event
from pydantic import BaseModel, TypeAdapter

from strandline import Strandline, open_on_loopback
from strandline.demo import agent as demo
from strandline.demo import words

EVENT: TypeAdapter[Any] = TypeAdapter(Event)
ASKED = [
    *("count to 3 every 1 ms", "fail after 2", "think 2", "call weather Lisbon", "say nothing", "help"),
    *("delete a.txt", "send mail to Ada", "plan 2 days in Rome", "research tides"),
]


def foreign(model: BaseModel) -> dict[str, Any]:
    """Fields that the model and the models in it do not have: they allow any."""
    found = dict(model.model_extra or {})
    for name in type(model).model_fields:
        value = getattr(model, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, BaseModel):
                found |= foreign(each)
    return found


def test_every_command_is_asked() -> None:
    for pattern, _ in demo._COMMANDS:
        assert len([text for text in ASKED if pattern.fullmatch(text)]) == 1, pattern


@pytest.mark.parametrize("text", ASKED)
async def test_every_event_is_one_of_ag_ui(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PACE", 0)
    chat = Strandline(tmp_path / "chat.db", auth=open_on_loopback())
    chat.agent(demo.demo_agent)
    message = {"id": "u1", "role": "user", "content": text}
    body = {"threadId": "c", "runId": "r1", "messages": [message], "tools": [], "context": [], "state": {}}
    async with chat.lifespan():
        transport = httpx.ASGITransport(chat.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/api/tanstack", json={**body, "forwardedProps": {}})
    assert answer.status_code == 200
    events = [EVENT.validate_json(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert len(events) >= 3
    assert [each for event in events if (each := foreign(event))] == []
    assert events[0].type == "RUN_STARTED"
    assert events[-1].type == ("RUN_ERROR" if text.startswith("fail") else "RUN_FINISHED")
