"""A TanStack reader whose run's log expires under it ends; it never waits for what will not come."""

from __future__ import annotations

import asyncio

import pytest

from rig import Rig
from strandline.runtime.readers import Reader
from strandline.runtime.reading_ag_ui import ag_ui_stream, begin


async def test_a_reader_behind_an_expired_log_is_told_to_load_the_reply_again(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("some ")
    await answer.until_text("some ")
    session = await rig.sessions.find("c")
    assert session is not None
    record = session.state.runs[call.run.id]
    begun = await begin(session, rig.sessions.store, record, None)
    call.say("words").finish()
    await answer.end()
    await rig.go_cold()
    session = await rig.sessions.find("c")
    assert session is not None
    await rig.store.expire(2**60)
    pieces = ag_ui_stream(session, rig.sessions.store, record, begun, Reader("r", "ann", None, "ag-ui", 0))
    async with asyncio.timeout(5):
        told = b"".join([piece async for piece in pieces])
    assert b'"code":"resync"' in told


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT"])
@pytest.mark.parametrize("path", ["/api/tanstack", "/api/tanstack/x", "/api/tanstack/a%0Ab"])
async def test_a_method_or_path_that_does_not_exist_is_a_problem(rig: Rig, method: str, path: str) -> None:
    answer = await rig.ask(method, path)
    assert answer.status == 404
    assert method == "HEAD" or answer.code == "not-found"


async def test_the_cursor_of_an_end_whose_log_is_gone_gets_nothing_more(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("words").finish()
    await answer.end()
    await rig.go_cold()
    session = await rig.sessions.find("c")
    assert session is not None
    await rig.store.expire(2**60)
    last = session.state.runs[call.run.id].last_seq
    cursor = f"{session.state.record.epoch}.{last}.1"
    again = await rig.ask("GET", f"/api/tanstack?offset=-1&runId={call.run.id}", headers={"Last-Event-ID": cursor})
    assert (again.status, again.frames) == (200, [])
