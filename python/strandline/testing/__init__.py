"""For tests: yours and ours. Time in your hands, an agent that says what you tell it, a store that fails on demand,
and readers for the bytes that a client is sent.

::

    clock, agent = ManualClock(), ScriptedAgent()
    chat = Strandline(FailingStore(MemoryStore()), auth=..., clock=clock)
    chat.agent(agent)
    ...
    call = await agent.called()      # once a message was posted
    call.say("Hello").finish()
    frames = read_frames(response.content)
    assert fold_frames(frames).parts()[-1]["text"] == "Hello"
"""

from __future__ import annotations

from strandline.testing.agent import ScriptedAgent, ScriptedCall
from strandline.testing.clock import ManualClock, until
from strandline.testing.frames import Frame, FrameReader, fold_frames, read_frames
from strandline.testing.store import FailingStore

__all__ = [
    "FailingStore",
    "Frame",
    "FrameReader",
    "ManualClock",
    "ScriptedAgent",
    "ScriptedCall",
    "fold_frames",
    "read_frames",
    "until",
]
