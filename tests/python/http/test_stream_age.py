"""How long one response may stream (PROTOCOL §4.7)."""

from __future__ import annotations

from rig import SHIM, Rig, running

AGE = 60.0


async def grow_old(rig: Rig) -> None:
    for _ in range(int(AGE) + 2):
        await rig.clock.advance(1)


async def test_a_session_feed_ends_and_goes_on_where_it_was() -> None:
    async with running(max_stream_age=AGE) as rig:
        _, call = await rig.begun()
        feed = await rig.open("GET", "/api/sessions/c/events")
        call.say("before ")
        await feed.until(lambda: b"before " in feed.body)
        await rig.clock.advance(AGE - 1)
        assert not feed.over
        await rig.clock.advance(2)
        await feed.end()
        assert feed.frames[-1].chunk["type"] not in ("error", "replaced")
        call.say("after")
        again = await rig.open("GET", "/api/sessions/c/events", headers={"last-event-id": feed.cursor or ""})
        await again.until(lambda: b"after" in again.body)
        assert b"before" not in again.body


async def test_the_shims_stream_ends_without_a_terminal_frame_and_a_stock_clients_does_not() -> None:
    async with running(max_stream_age=AGE) as rig:
        stock, call = await rig.begun()
        call.say("before ")
        shim = await rig.resume("c", shim=True)
        await shim.until_text("before ")
        await grow_old(rig)
        await shim.end()
        assert shim.types[-1] == "text-delta"
        assert not stock.over
        again = await rig.resume("c", shim.cursor, shim=True)
        call.say("after").finish()
        await again.end()
        await stock.end()
        assert stock.text == "before after"
        assert again.types[-2:] == ["finish", "[DONE]"]


async def test_an_ag_ui_stream_ends_only_after_it_has_carried_a_frame() -> None:
    async with running(max_stream_age=AGE) as rig:
        _, call = await rig.begun()
        joined = await rig.open("GET", f"/api/tanstack?offset=-1&runId={call.run.id}")
        await joined.until(lambda: joined.frames)
        silent = await rig.open(
            "GET", f"/api/tanstack?offset=-1&runId={call.run.id}", headers={"last-event-id": joined.cursor or ""}
        )
        await grow_old(rig)
        await joined.end()
        assert joined.frames[-1].chunk["type"] not in ("RUN_FINISHED", "RUN_ERROR")
        assert silent.frames == [] and not silent.over
        call.say("a word")
        await silent.until(lambda: b"a word" in silent.body)
        await rig.clock.advance(1)
        await silent.end()


async def test_nothing_grows_too_old_where_the_setting_says_so() -> None:
    async with running(max_stream_age=0.0, run_deadline=604800.0) as rig:
        _, call = await rig.begun()
        feed = await rig.open("GET", "/api/sessions/c/events", headers=SHIM)
        for _ in range(4):
            await rig.clock.jump(100_000)
        call.say("still here")
        await feed.until(lambda: b"still here" in feed.body)
