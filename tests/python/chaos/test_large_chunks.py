"""What is large in one piece: text is split, anything else is refused in the agent that says it (DESIGN §11)."""

from __future__ import annotations

from collections.abc import Callable

from wires import LOAD_APP, ask, history, resume

from replies import text_of
from server_process import ServerProcess

Serve = Callable[..., ServerProcess]

BIG = "0123456789abcdéf" * 588_235
"""10 MB, as the agent says it (apps/load_app.py)."""
DELTA = 65_536
MIB = 1_048_576


async def test_a_token_of_ten_megabytes_comes_in_pieces_and_whole(serve: Serve) -> None:
    server = serve(script=LOAD_APP)
    live = await (await ask(server, "c", "big")).end()
    deltas = [frame.chunk["delta"] for frame in live.frames if frame.chunk.get("type") == "text-delta"]
    assert max(len(delta.encode()) for delta in deltas) <= DELTA
    assert "".join(deltas) == BIG
    assert text_of((await history(server, "c"))["messages"][-1]) == BIG
    late = await (await resume(server, "c", run=live.headers["strandline-run"])).end()
    assert late.text == BIG
    half = len(live.frames) // 2
    rest = await (await resume(server, "c", live.frames[half].cursor)).end()
    assert rest.frames == live.frames[half + 1 :]


async def test_a_tool_output_that_is_too_large_raises_in_the_agent(serve: Serve) -> None:
    server = serve(script=LOAD_APP)
    elsewhere = (await ask(server, "d", "count to 50 every 5 ms")).follow()
    failed = await (await ask(server, "careless", f"tool {MIB + 1}")).end()
    assert [frame.chunk.get("type") for frame in failed.frames[-2:]] == ["error", None]
    assert failed.frames[-2].chunk["errorText"] == "The reply failed. Please try again."
    found = await history(server, "careless")
    assert [(run["status"], run["reason"]) for run in found["runs"].values()] == [("failed", "chunk-refused")]
    assert "is over the limit of 1048576. Store large content elsewhere and send its URL." in server.said()

    # An agent that catches it goes on.
    told = await (await ask(server, "careful", f"tool {MIB + 1}")).end()
    assert told.text == "done"
    found = await history(server, "careful")
    assert [run["status"] for run in found["runs"].values()] == ["completed"]
    [tool] = [part for part in found["messages"][-1]["parts"] if part["type"].startswith("tool-")]
    assert "over the limit of 1048576" in tool["errorText"]
    fits = await (await ask(server, "fits", f"tool {MIB - 1_000}")).end()
    assert fits.text == "done"
    assert len((await elsewhere.end()).text.split()) == 50
