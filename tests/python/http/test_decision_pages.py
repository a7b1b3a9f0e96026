"""The decisions of a session in pages, bounded in number and in bytes (PROTOCOL §15.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asking import asked, decide, pending
from rig import Rig, running
from strandline.http import decisions

LIST = "/api/sessions/c/decisions"


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with running(tmp_path / "chat.db" if request.param == "sqlite" else None) as rig:
        yield rig


def tool(number: int, input: Any = None) -> Any:
    return lambda run: run.call_client_tool("look", input, id=f"d{number}")


async def page(rig: Rig, query: str) -> tuple[list[str], str | None]:
    answer = await rig.ask("GET", f"{LIST}?{query}")
    assert answer.status == 200, answer.body
    return [each["id"] for each in answer.json["decisions"]], answer.json["next"]


async def pages(rig: Rig, query: str) -> list[list[str]]:
    found, following = await page(rig, query)
    all_of_it = [found]
    while following is not None:
        found, following = await page(rig, f"{query}&before={following}")
        all_of_it.append(found)
    return all_of_it


async def test_pages_have_every_decision_once_oldest_first(rig: Rig) -> None:
    await asked(rig, *map(tool, range(5)))
    for number in (1, 3):
        assert (await decide(rig, f"d{number}", {"output": number})).status == 200
    for _ in range(2):
        assert await pages(rig, "all=true") == [["d0", "d1", "d2", "d3", "d4"]]
        assert await pages(rig, "all=true&limit=2") == [["d3", "d4"], ["d1", "d2"], ["d0"]]
        assert await pages(rig, "all=true&limit=5") == [["d0", "d1", "d2", "d3", "d4"]]
        assert await pages(rig, "limit=2") == [["d2", "d4"], ["d0"]]
        assert await pages(rig, "limit=100000") == [["d0", "d2", "d4"]]
        await rig.go_cold()


async def test_a_page_goes_on_after_one_that_was_decided_meanwhile(rig: Rig) -> None:
    await asked(rig, *map(tool, range(4)))
    _, following = await page(rig, "limit=2")
    assert following == "d2"
    assert (await decide(rig, "d2", {"output": 1})).status == 200
    assert await page(rig, "limit=2&before=d2") == (["d0", "d1"], None)


async def test_a_page_is_bounded_in_bytes_and_never_empty(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "PAGE_BYTES", 30_000)
    sizes = [100, 12_000, 12_000, 100_000, 100]
    await asked(rig, *(tool(number, "x" * size) for number, size in enumerate(sizes)))
    split = [["d4"], ["d3"], ["d0", "d1", "d2"]]
    assert await pages(rig, "") == split
    assert await pages(rig, "all=true") == split
    for number, size in enumerate(sizes):
        assert (await decide(rig, f"d{number}", {"output": "y" * size})).status == 200
    assert await pages(rig, "all=true") == split, "answers count as well"
    assert await pages(rig, "") == [[]]


async def test_what_names_no_page_is_refused(rig: Rig) -> None:
    await asked(rig, tool(0))
    for query in ("limit=0", "limit=-1", "limit=x", "before=unknown", "all=yes"):
        refused = await rig.ask("GET", f"{LIST}?{query}")
        assert (refused.status, refused.code) == (422, "invalid-request"), query
    odd = await rig.ask("GET", f"{LIST}?before=a%20b")
    assert (odd.status, odd.code) == (422, "invalid-id")
    assert [each["id"] for each in await pending(rig)] == ["d0"]
