"""What is erased while a reader of the live thread is made ready is not kept for those who come later."""

from __future__ import annotations

from typing import Any

import pytest
from test_tanstack_live import begun, ended, follow, hydrate

from rig import Rig
from strandline.runtime import ag_ui_frames

SECRET = "the word is tamarind"


@pytest.mark.parametrize("what", ["annotation", "message"])
async def test_what_goes_while_a_reply_is_being_read_is_told_to_nobody(
    sqlite_rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    rig = sqlite_rig
    await ended(rig, "r1", "u1", "one")
    cursor = (await hydrate(rig))["cursor"]
    call = await begun(rig, "r2", "u2", "two")
    if what == "annotation":
        body = {"message": "u1", "type": "note", "id": "a1", "data": {"name": SECRET}}
        assert (await rig.ask("POST", "/api/sessions/c/annotations", body)).status == 201
        gone = "/api/sessions/c/annotations/a1"
    else:
        said = {"id": "u3", "role": "user", "content": SECRET}
        queued = {"threadId": "c", "runId": "r3", "messages": [said], "forwardedProps": {"submit": "queue"}}
        assert (await rig.ask("POST", "/api/tanstack", queued, {"Prefer": "respond-async"})).status == 202
        gone = "/api/sessions/c/messages/u3"
    base_of, reads = ag_ui_frames.base_of, 0

    async def slow(*of: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 1:
            assert (await rig.ask("DELETE", gone)).status == 204
        return await base_of(*of)

    monkeypatch.setattr(ag_ui_frames, "base_of", slow)
    for _ in range(2):
        reader = await follow(rig, cursor)
        await reader.until(lambda reader=reader: b"strandline." in reader.body)
        assert SECRET.encode() not in reader.body
        await reader.drop()
    assert reads > 0
    call.finish()
