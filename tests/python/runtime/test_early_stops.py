"""A stop that comes before what it stops means one request, and is not lost with a commit that fails (DESIGN §7)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rig import Rig, running
from strandline.errors import StoreUnavailable
from strandline.testing import ManualClock


async def is_born_stopped(rig: Rig, **request: Any) -> bool:
    before = len(rig.agent.calls)
    answer = await rig.post("c", **request)
    assert answer.status == 200
    if len(rig.agent.calls) == before:
        for _ in range(20):
            await asyncio.sleep(0)
    stopped = len(rig.agent.calls) == before
    if not stopped:
        rig.agent.calls[-1].finish()
    await answer.end()
    assert answer.types[-2] == ("abort" if stopped else "finish")
    return stopped


async def test_a_stop_of_one_attempt_does_not_stop_the_next(rig: Rig) -> None:
    # The shim names both; its POST never arrives, and the user presses "retry".
    assert (await rig.stop("c", key="k1", messageId="u1")).status == 202
    assert not await is_born_stopped(rig, key="k2", trigger="regenerate-message")


@pytest.mark.parametrize("trigger", ["submit-message", "regenerate-message"])
async def test_a_stop_that_named_key_and_message(trigger: str) -> None:
    for key, stopped in [("k1", True), ("k2", False), (None, True)]:
        async with running() as rig:
            await rig.stop("c", key="k1", messageId="u1")
            assert await is_born_stopped(rig, key=key, trigger=trigger) is stopped, key


async def test_a_stop_that_named_only_the_message_stops_any_request_for_it() -> None:
    for key in ("k1", None):
        async with running() as rig:
            await rig.stop("c", messageId="u1")
            assert await is_born_stopped(rig, key=key), key
            # And it is used up.
            assert not await is_born_stopped(rig, key="k9", trigger="regenerate-message")


async def test_a_stop_that_named_only_the_key_stops_only_that_request() -> None:
    for key, stopped in [("k1", True), ("k2", False), (None, False)]:
        async with running() as rig:
            await rig.stop("c", key="k1")
            assert await is_born_stopped(rig, key=key) is stopped, key


async def test_a_stop_that_missed_still_meets_its_own_request(rig: Rig) -> None:
    await rig.stop("c", key="k1", messageId="u1")
    assert not await is_born_stopped(rig, key="k2")
    assert await is_born_stopped(rig, key="k1", id="u2")


@pytest.mark.parametrize("named", [{"key": "k1"}, {"messageId": "u1"}, {"key": "k1", "messageId": "u1"}])
async def test_an_early_stop_outlives_a_commit_that_fails(named: dict[str, str]) -> None:
    async with running(commit_patience=0.0) as rig:
        assert (await rig.stop("c", **named)).status == 202
        rig.store.fail()
        refused = await rig.post("c", key="k1")
        assert (refused.status, refused.code) == (503, "store-unavailable")
        rig.store.mend()
        await rig.passing(lambda: rig.chat.service.ready)
        assert await is_born_stopped(rig, key="k1")
        assert [run["reason"] for run in (await rig.history("c"))["runs"].values()] == ["user"]
        # Now it has met what it was for.
        assert not await is_born_stopped(rig, key="k2", trigger="regenerate-message")


async def test_a_number_is_never_used_twice_after_a_commit_failed() -> None:
    numbers: list[int] = []
    clock = ManualClock()
    async with running(commit_patience=0.0, clock=clock) as rig:
        commit = rig.store.commit

        async def watched(batch: Any) -> None:
            numbers.append(batch.number)
            await commit(batch)

        rig.store.commit = watched  # type: ignore[method-assign]
        answer, call = await rig.begun()
        call.say("words")
        await answer.until_text("words")
        for round in range(3):
            rig.store.fail()
            assert (await rig.post(f"d{round}")).status == 503
            rig.store.mend()
            await rig.passing(lambda: rig.chat.service.ready)
        _, call = await rig.begun("e")
        call.finish()
        await rig.ended("e")
    assert numbers == sorted(set(numbers)), "each was offered to the store once, and they only grow"


async def test_what_follows_a_commit_that_failed_but_counted_is_not_taken_for_it() -> None:
    """The store says that nothing was written, and is wrong: then at least nothing later is silently left out."""
    async with running(commit_patience=0.0) as rig:
        real = rig.store.inner.commit

        async def in_doubt(batch: Any) -> None:
            await real(batch)
            raise StoreUnavailable("the answer was lost")

        rig.store.inner.commit = in_doubt  # type: ignore[method-assign]
        assert (await rig.post("c")).code == "store-unavailable"
        rig.store.inner.commit = real  # type: ignore[method-assign]
        await rig.passing(lambda: rig.chat.service.ready)
        answer, call = await rig.begun("d")
        call.say("stored").finish()
        await answer.end()
        await rig.ended("d")
        assert (await rig.store.session("d")) is not None
        assert [run.status.value for run in (await rig.store.outline("d")).runs] == ["completed"]
