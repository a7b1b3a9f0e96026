"""What a reader is owed that was told to read anew, or to whom history left a reply out (PROTOCOL §6.6): the whole of
it, once, also when the run has ended meanwhile; and never an older one in its place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import SHIM, Answer, Rig, running
from strandline.core.offset import parse
from strandline.http import ai_sdk as wire
from strandline.stores import MemoryStore
from strandline.testing import until

CLIENTS = pytest.mark.parametrize("shim", [True, False], ids=["shim", "stock"])


def as_client(shim: bool) -> dict[str, str]:
    return SHIM if shim else {}


def last_code(answer: Answer) -> Any:
    return answer.frames[-1].chunk.get("code")


async def restarted(rig: Rig, shim: bool) -> tuple[Answer, Any]:
    """A reader that has seen the old words when the reply begins anew."""
    answer, call = await rig.begun(headers=as_client(shim))
    call.say("old words")
    await answer.until_text("old words")
    call.do(lambda run: run.restart())
    return answer, call


async def gets_the_whole_of_it_once(rig: Rig, shim: bool, text: str, **headers: str) -> None:
    resumed = await rig.resume("c", shim=shim, **headers)
    assert resumed.status == 200
    assert resumed.headers["strandline-replay"] == "full"
    await resumed.end()
    assert resumed.text == text
    assert resumed.frames[-1].done
    again = await rig.resume("c", shim=shim)
    assert again.status == 204, "owed once"


@CLIENTS
@pytest.mark.parametrize("seconds", [0, 29])
async def test_an_open_stream_that_was_reset_reads_the_new_words_after_the_end(
    rig: Rig, shim: bool, seconds: int
) -> None:
    answer, call = await restarted(rig, shim)
    call.say("new words").finish()
    await answer.end()
    assert last_code(answer) == "resync"
    await rig.ended()
    await rig.clock.advance(seconds)
    await gets_the_whole_of_it_once(rig, shim, "new words")


@CLIENTS
async def test_the_promise_is_for_30_seconds_and_for_this_user(rig: Rig, shim: bool) -> None:
    answer, call = await restarted(rig, shim)
    call.say("new words").finish()
    await answer.end()
    await rig.ended()
    assert (await rig.as_user("eve").resume("c", shim=shim)).status == 204
    await rig.clock.advance(31)
    assert (await rig.resume("c", shim=shim)).status == 204


async def test_the_key_of_a_resume_keeps_the_promise_for_its_repetitions(rig: Rig) -> None:
    answer, call = await restarted(rig, True)
    call.say("new words").finish()
    await answer.end()
    await rig.ended()
    for _ in range(3):
        resumed = await (await rig.resume("c", shim=True, **{"Idempotency-Key": "k1"})).end()
        assert resumed.text == "new words"
    assert (await rig.resume("c", shim=True)).status == 204


@pytest.mark.parametrize("named", [True, False])
async def test_a_shim_whose_cursor_is_older_than_a_reset_reads_the_new_words_after_the_end(
    rig: Rig, named: bool
) -> None:
    answer, call = await rig.begun(headers=SHIM)
    call.say("old words")
    await answer.until_text("old words")
    cursor = answer.cursor
    await answer.drop()
    call.do(lambda run: run.restart()).say("new words").finish()
    await rig.ended()
    query = f"?run={call.run.id}" if named else ""
    told = await (await rig.resume("c", cursor, shim=True, query=query)).end()
    assert [frame.chunk.get("code") for frame in told.frames] == ["resync"]
    await gets_the_whole_of_it_once(rig, True, "new words")


async def test_a_stock_client_whose_cursor_is_older_than_a_reset_is_given_the_new_words_at_once(rig: Rig) -> None:
    answer, call = await rig.begun()
    call.say("old words")
    await answer.until_text("old words")
    cursor = answer.cursor
    await answer.drop()
    call.do(lambda run: run.restart()).say("new words").finish()
    await rig.ended()
    resumed = await (await rig.resume("c", cursor)).end()
    assert (resumed.headers["strandline-replay"], resumed.text) == ("full", "new words")


@CLIENTS
async def test_a_cursor_into_an_expired_log_leads_to_the_whole_message(rig: Rig, shim: bool) -> None:
    answer, call = await rig.begun()
    call.say("some ")
    await answer.until_text("some ")
    cursor = answer.cursor
    call.say("words").finish()
    await answer.end()
    await rig.go_cold()
    assert await rig.store.expire(2**62) > 0
    told = await (await rig.resume("c", cursor, shim=shim)).end()
    if shim:
        assert last_code(told) == "resync"
        await gets_the_whole_of_it_once(rig, shim, "some words")
    else:
        assert told.text == "some words"


# ---------------------------------------------------------------------- a log that expires under a reader


@CLIENTS
async def test_a_reader_under_whom_the_log_expires_is_told_to_read_anew(
    rig: Rig, shim: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, call = await rig.begun()
    call.say("some ")
    await answer.until_text("some ")
    cursor = answer.cursor
    call.say("words").finish()
    await answer.end()
    await rig.go_cold()
    real = wire.continues

    async def then_expire(*args: Any, **named: Any) -> bool:
        """The hourly sweep comes between the look at the log and the reading of it."""
        found = await real(*args, **named)
        await rig.store.expire(2**62)
        return found

    monkeypatch.setattr(wire, "continues", then_expire)
    told = await (await rig.resume("c", cursor, shim=shim)).end(timeout=5)
    assert told.types == ["error"]
    assert (last_code(told), told.frames[0].cursor) == ("resync", None)
    await gets_the_whole_of_it_once(rig, shim, "some words")


# ---------------------------------------------------------------------- only the newest


async def test_a_promise_for_an_older_run_is_not_honoured_beside_a_newer_one(rig: Rig) -> None:
    first, call = await rig.begun()
    call.say("first")
    await first.until_text("first")
    await rig.history("c")  # leaves the first reply out
    second, call = await rig.begun(id="u2")
    call.say("second").finish()
    await second.end()
    await first.end()
    await rig.ended()
    assert (await rig.resume("c")).status == 204
    await rig.go_cold()
    assert (await rig.resume("c")).status == 204


async def test_a_resync_of_an_older_run_gives_no_second_copy_of_it(rig: Rig) -> None:
    answer, call = await restarted(rig, True)
    call.say("new words")
    await answer.end()
    assert last_code(answer) == "resync"
    second, call = await rig.begun(id="u2")
    call.say("second").finish()
    await second.end()
    assert (await rig.resume("c", shim=True)).status == 204
    assert parse((await rig.stop("c", run="run-1")).json["cursor"])


async def test_the_newest_run_is_still_owed_when_an_older_promise_is_not(rig: Rig) -> None:
    _, call = await rig.begun()
    await rig.history("c")
    second, call = await rig.begun(id="u2")
    await rig.history("c")
    call.say("second").finish()
    await second.end()
    await gets_the_whole_of_it_once(rig, False, "second")


async def test_a_promise_survives_a_reader_that_goes_away_before_the_end() -> None:
    async with running(store=MemoryStore()) as rig:
        answer, call = await rig.begun()
        call.say("half ")
        await answer.until_text("half ")
        await rig.history("c")
        leaving = await rig.resume("c")
        await leaving.until_text("half ")
        await leaving.drop()
        call.say("whole").finish()
        await answer.end()
        session = await rig.sessions.find("c")
        await until(lambda: not session.live)
        await asyncio.sleep(0)
        await gets_the_whole_of_it_once(rig, False, "half whole")
