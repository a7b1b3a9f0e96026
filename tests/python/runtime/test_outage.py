"""What an outage of the store leaves behind: nothing, also where nobody looks."""

from __future__ import annotations

import asyncio

from rig import Rig
from strandline.testing import until


async def test_a_session_that_left_memory_during_an_outage_is_read_again_afterwards(rig: Rig) -> None:
    quiet, call = await rig.begun("quiet", id="q1")
    call.finish()
    await quiet.end()
    held = await rig.sessions.find("quiet")  # as an agent's leftover thread would hold it
    assert held is not None
    await rig.clock.jump(rig.chat.settings.segment_age + 1)
    await rig.passing(lambda: held.idle)
    rig.store.fail()
    posting = asyncio.create_task(rig.post("c"))
    await until(lambda: rig.store.attempts > len(rig.store.committed))
    for _ in range(15):
        await rig.clock.advance(1)
    assert (await posting).status == 503
    await rig.clock.jump(rig.chat.settings.session_idle + 1)
    await rig.passing(lambda: "quiet" not in {session.id for session in rig.sessions.in_memory()})
    assert held.feed.failure is not None
    rig.store.mend()
    await rig.clock.advance(3)
    await until(lambda: rig.chat.service.ready)
    assert held.feed.failure is None
    again, call = await rig.begun("quiet", id="q2")
    call.say("fine").finish()
    await again.end()
    assert (again.text, again.types[-1]) == ("fine", "[DONE]")
