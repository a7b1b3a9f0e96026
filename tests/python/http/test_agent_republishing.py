"""Remote agents that take back what they have said (PROTOCOL §18.12): once, in order, and never two copies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from asking import decide, tools
from far import Worker, asked, reply, served, text
from rig import Answer, Rig
from strandline.agents.leases import Said
from strandline.agents.relayed import Anew
from strandline.testing import fold_frames

PLAIN = {"type": "text", "text": "plain", "state": "done"}
RICH = [
    {"type": "step-start"},
    {"type": "reasoning", "id": "r", "text": "hm", "state": "done"},
    {"type": "tool-add", "toolCallId": "c1", "state": "output-available", "input": {"a": 1}, "output": 2},
    {"type": "step-start"},
    PLAIN,
    {"type": "data-thing", "id": "d", "data": {"x": 1}},
]


async def anew(worker: Worker, content: str | list[Any] | None, sequence: int | None = None) -> Answer:
    """Replace the message, or with None begin again."""
    number = sequence or worker.sent + 1
    more: dict[str, Any] = {} if content is None else {"text" if isinstance(content, str) else "parts": content}
    answer = await worker.about("restart" if content is None else "replace", sequence=number, **more)
    if answer.status == 200:
        worker.sent = max(worker.sent, number)
    return answer


def words(parts: list[Any]) -> list[str]:
    return [part["text"] for part in parts if part["type"] == "text"]


async def resets(rig: Rig) -> int:
    return [event["type"] for event in await rig.log_from_store()].count("message-reset")


@pytest.mark.parametrize("content", ["plain", RICH])
async def test_a_replacement_is_one_commit_and_what_follows_it_comes_after(far: Rig, content: Any) -> None:
    answer, worker = await asked(far)
    await worker.append({"type": "message-metadata", "messageMetadata": {"model": "m"}})
    await worker.append("a draft")
    await answer.until_text("a draft")
    assert (await anew(worker, content)).json == {"state": "running", "sequence": 3, "notes": 0}
    kinds = [far.kinds(batch) for batch in far.store.committed]
    assert next(each for each in kinds if "message-reset" in each) == ["message-reset", "appended"]
    await answer.end()
    assert answer.frames[-1].chunk["code"] == "resync"
    joined = await far.resume("c")
    await joined.until_text("plain")
    await worker.append(" and more")
    await worker.end()
    await joined.end()
    parts, how = await reply(far)
    assert fold_frames(joined.frames).parts() == parts
    assert (words(parts), how["status"]) == (["plain", " and more"], "completed")
    assert (await far.history("c"))["messages"][-1]["metadata"] == {"model": "m"}
    if content is RICH:
        assert parts[: len(RICH)] == RICH


@pytest.mark.parametrize("content", ["anew", [PLAIN], [], None])
async def test_its_number_is_in_the_same_commit(far: Rig, content: Any) -> None:
    """So that a server which dies right after it knows that it was done."""
    _, worker = await asked(far)
    await worker.append("a draft")
    assert (await anew(worker, content)).status == 200
    (batch,) = [batch for batch in far.store.committed if "message-reset" in far.kinds(batch)]
    reset, said = [json.loads(blob) for entry in batch.entries for blob in entry.events]
    assert (reset["type"], said["type"], said["sent"]) == ("message-reset", "appended", 2)
    await worker.end()
    assert words((await reply(far))[0]) == {"anew": ["anew"]}.get(str(content), ["plain"] if content else [])


async def test_it_counts_once_however_often_it_comes(far: Rig) -> None:
    _, worker = await asked(far)
    await worker.append("a draft")
    first = await anew(worker, "one")
    await worker.append(" two")
    for sequence in (2, 2):
        assert (await anew(worker, "one", sequence)).json == first.json
    late = await anew(worker, "four", 5)
    assert (late.code, late.json["expected"]) == ("gap", 4)
    await anew(worker, None)
    assert (await anew(worker, None, 4)).json == {"state": "running", "sequence": 4, "notes": 0, "partial": None}
    await worker.append("three")
    await worker.end()
    assert words((await reply(far))[0]) == ["three"]
    assert await resets(far) == 2


async def test_twins_count_once_and_what_comes_meanwhile_comes_after(far: Rig) -> None:
    _, worker = await asked(far)
    await worker.append("a draft")
    far.store.hang()
    asks = [asyncio.create_task(worker.append(" goes on", sequence=2))]
    await asyncio.sleep(0.01)
    asks += [asyncio.create_task(anew(worker, "anew", 3)) for _ in range(3)]
    await asyncio.sleep(0.01)
    asks.append(asyncio.create_task(worker.append(", and more", sequence=4)))
    asks.append(asyncio.create_task(anew(worker, "again", 5)))
    await asyncio.sleep(0.01)
    assert not any(each.done() for each in asks), "answered before it is durable"
    far.store.mend()
    assert [(await each).status for each in asks] == [200] * 6
    await worker.append("!")
    await worker.end()
    assert words((await reply(far))[0]) == ["again", "!"]
    assert await resets(far) == 2


async def test_one_whose_request_is_gone_is_carried_out_once(far: Rig) -> None:
    _, worker = await asked(far)
    await worker.append("a draft")
    far.store.hang()
    gone = asyncio.create_task(worker.append(" goes on", sequence=2))
    lease = far.chat._leases.find(worker.run)
    assert lease is not None
    await asyncio.sleep(0.01)
    asking = asyncio.create_task(lease.append(Said(1, 3, Anew("anew"))))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait({asking})
    later = [asyncio.create_task(worker.append("!", sequence=4)), asyncio.create_task(anew(worker, "anew", 3))]
    await asyncio.sleep(0.01)
    far.store.mend()
    assert [(await each).status for each in (gone, *later)] == [200] * 3
    await worker.end()
    assert words((await reply(far))[0]) == ["anew", "!"]
    assert await resets(far) == 1


async def test_a_zombie_takes_nothing_back(far: Rig) -> None:
    _, zombie = await asked(far)
    await zombie.append("one ")
    newer = Worker(far.app)
    await newer.claim(zombie.run, "again")
    for refused in (await anew(zombie, "mine"), await anew(zombie, None)):
        assert (refused.status, refused.code) == (409, "fenced")
    assert (await anew(newer, [PLAIN])).status == 200
    newest = Worker(far.app)
    claimed = (await newest.claim(zombie.run, "third")).json
    assert (words(claimed["partial"]["parts"]), claimed["sequence"]) == (["plain"], 0)
    await newest.append(" and more")
    await newest.end()
    assert words((await reply(far))[0]) == ["plain", " and more"]
    assert await resets(far) == 1


@pytest.mark.parametrize("unfriendly", [True, False])
@pytest.mark.parametrize("content", ["anew", [PLAIN], None])
async def test_the_next_server_knows_that_it_was_done(tmp_path: Path, content: Any, unfriendly: bool) -> None:
    path = tmp_path / "chat.db"
    async with served(path) as rig:
        _, worker = await asked(rig)
        await worker.append("a draft")
        first = await anew(worker, content)
        if unfriendly:
            rig.chat.service.stop = rig.chat.service._close  # type: ignore[method-assign]
    async with served(path) as rig:
        worker.app = rig.app
        assert (await anew(worker, content, 2)).json == first.json
        await worker.append("!")
        assert (await anew(worker, content, 2)).status == 200
        await worker.end()
        said = {"anew": ["anew", "!"], None: ["!"]}.get(content if content is None else str(content), ["plain", "!"])
        assert words((await reply(rig))[0]) == said
        assert await resets(rig) == 1


async def test_a_reply_that_goes_on_begins_again_with_what_it_said_before(far: Rig) -> None:
    _, worker = await asked(far)
    call = {"toolCallId": "k", "toolName": "refund"}
    await worker.append(
        {"type": "start-step"},
        *text("May I? "),
        {"type": "tool-input-available", **call, "input": {}},
        {"type": "tool-approval-request", "approvalId": "ask", "toolCallId": "k"},
    )
    assert (await worker.end()).json["status"] == "suspended"
    decided = (await decide(far, "ask", {"approved": True})).json
    claimed = (await worker.claim(decided["run"], "second")).json
    await worker.append({"type": "tool-output-available", "toolCallId": "k", "output": "too early"})
    await worker.append("a draft")
    again = (await anew(worker, None)).json
    assert again["partial"] == claimed["partial"]
    assert tools(again["partial"])[0]["state"] == "approval-responded", "open again"
    await worker.append({"type": "tool-output-available", "toolCallId": "k", "output": "done"})
    await worker.append("Settled.")
    await worker.end()
    parts, how = await reply(far)
    assert (words(parts), tools({"parts": parts})[0]["output"]) == (["May I? ", "Settled."], "done")
    assert how["status"] == "completed"


@pytest.mark.parametrize("content", ["anew", None])
async def test_what_the_agent_was_told_and_has_taken_stays(far: Rig, content: Any) -> None:
    _, worker = await asked(far)
    note = {"id": "n1", "role": "user", "parts": [{"type": "text", "text": "shorter"}]}
    assert (await far.ask("POST", "/api/sessions/c/steer", {"message": note})).status == 202
    await worker.append("a draft")
    taken = await worker.about("steering", sequence=2, taken=0)
    assert [each["id"] for each in taken.json["told"]] == ["n1"]
    worker.sent = 2
    again = await anew(worker, content)
    if content is None:
        assert [part["type"] for part in again.json["partial"]["parts"]] == ["steering-message"]
    told = await worker.about("steering", sequence=4, taken=1)
    assert told.json["told"] == []
    worker.sent = 4
    await worker.append("!")
    await worker.end()
    parts, _ = await reply(far)
    assert [part.get("text") or part["type"] for part in parts if part["type"] != "step-start"] == [
        "steering-message",
        *(["anew"] if content else []),
        "!",
    ]


async def test_a_stop_comes_first_or_last(far: Rig) -> None:
    answer, worker = await asked(far)
    await worker.append("words")
    await far.stop("c")
    for late in (await anew(worker, "anew"), await anew(worker, None)):
        assert (late.json["state"], late.json["status"]) == ("over", "stopped")
    await answer.end()
    assert (words((await reply(far))[0]), await resets(far)) == (["words"], 0)


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text"}],
        [{"type": "nothing-known", "x": 1}],
        ["words"],
        [{"type": "text", "text": None}],
        [{"type": "tool-add", "toolCallId": "c1"}],
        [{"type": "data-thing", "data": {"__proto__": 1}}],
        [{"type": "data-thing", "data": "x" * 1_100_000}],
    ],
)
async def test_parts_that_no_client_could_read_end_the_run_and_change_nothing(far: Rig, parts: Any) -> None:
    _, worker = await asked(far)
    await worker.append("before")
    refused = await anew(worker, parts)
    assert (refused.status, refused.code) == (422, "chunk-refused")
    said, how = await reply(far)
    assert (words(said), how["status"], how["reason"]) == (["before"], "failed", "chunk-refused")
    assert await resets(far) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": 1},
        {"text": "x", "parts": []},
        {"parts": "x"},
        {"parts": [PLAIN] * 1001},
        {"text": "x", "sequence": 0},
        {"text": "x", "producer": "1"},
    ],
)
async def test_a_replacement_that_makes_no_sense_harms_nothing(far: Rig, body: Any) -> None:
    _, worker = await asked(far)
    refused = await worker.about("replace", **{"sequence": 1, **body})
    assert (refused.status, refused.code) == (422, "invalid-request")
    await anew(worker, [PLAIN] * 1000)
    await worker.end()
    assert words((await reply(far))[0]) == ["plain"] * 1000


async def test_it_counts_towards_the_longest_reply() -> None:
    async with served(message_limit=1000, chunk_limit=1000, delta_limit=100) as far:
        _, worker = await asked(far)
        assert (await anew(worker, "y" * 500)).status == 200
        appended = [event for event in await far.log() if event["type"] == "appended"]
        deltas = [chunk["delta"] for event in appended for chunk in event["chunks"] if chunk["type"] == "text-delta"]
        assert (max(map(len, deltas)), "".join(deltas)) == (25, "y" * 500)
        refused = await anew(worker, "y" * 500)
        assert (refused.status, refused.code) == (422, "reply-too-long")
        assert (await reply(far))[1]["reason"] == "reply-too-long"
