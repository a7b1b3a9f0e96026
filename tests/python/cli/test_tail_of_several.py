"""``strandline tail`` where several agents write at once: each piece has the name of who says it."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.cli.following import _Page


def test_whose_words_come_next_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    page = _Page(resumed=False)

    def queued(run: str, agent: str) -> dict[str, Any]:
        return {"type": "run-queued", "run": run, "agent": agent}

    def said(run: str, text: str) -> dict[str, Any]:
        return {"type": "appended", "run": run, "chunks": [{"type": "text-delta", "id": "t", "delta": text}]}

    frames = [queued("r1", "lead"), said("r1", "one "), said("r1", "two"), queued("r2", "critic"), said("r2", "but")]
    for frame in [*frames, said("r1", "three"), {"type": "run-ended", "run": "r2", "status": "completed"}]:
        page.show("", frame)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        "── assistant  lead  run r1",
        "one two",
        "── assistant  critic  run r2",
        "but",
        "── assistant  lead  run r1 goes on",
        "three",
        "── assistant  critic  run r2 goes on",
        "── completed",
    ]
