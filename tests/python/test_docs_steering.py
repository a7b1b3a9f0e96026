"""The agent and the request of docs/steering.md do what the page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from rig import running

PAGE = (Path(__file__).parents[2] / "docs" / "steering.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, language
    return found[1]


async def test_what_the_agent_is_told_is_noted_in_its_reply() -> None:
    (words,) = (shlex.split(line) for line in [block("sh").replace("\\\n", " ")])
    url, body = next(word for word in words if word.startswith("http")), json.loads(words[words.index("-d") + 1])
    found: list[Any] = []
    sent: list[int] = []

    class Chat:
        def agent(self, function: Any) -> Any:
            found.append(function)
            return function

    async def one_step() -> None:
        if not sent:
            answer = await rig.ask("POST", url.removeprefix("http://127.0.0.1:8123"), body)
            sent.append(answer.status)

    exec(compile(block("python"), "steering.md", "exec"), {"chat": Chat(), "one_step": one_step})
    async with running(agent=found[0]) as rig:
        answer = await (await rig.post("c1")).end()
        assert sent == [202]
        assert answer.text == "First (noted: Shorter, please.) second third "
