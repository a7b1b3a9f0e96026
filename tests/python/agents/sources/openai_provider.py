"""OpenAI's own client in front of a server of ours, agents that ask it, and what the library makes of its answers.

The streams are in ``openai_recordings.py``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from model_server import ModelServer, model_server, typed
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam

from strandline import Run
from strandline.agents.sources.openai import chat_messages, openai_chat, openai_responses, responses_input

USED = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "cached_tokens": 4, "reasoning_tokens": 3}


class Provider:
    """The fake server, the library's client for it, and agents that ask it."""

    def __init__(self, server: ModelServer, client: openai.AsyncOpenAI) -> None:
        self.server = server
        self.client = client

    async def answer(self, run: Run) -> AsyncIterator[Any]:
        """An agent over the Responses API."""
        asked = responses_input(run.messages)
        yield openai_responses(run, self.client.responses.create(model="m", input=asked, stream=True))

    async def chat(self, run: Run) -> AsyncIterator[Any]:
        """An agent over Chat Completions."""
        asked = chat_messages(run.messages)
        yield openai_chat(run, self.client.chat.completions.create(model="m", messages=asked, stream=True))


@asynccontextmanager
async def serving() -> AsyncIterator[Provider]:
    """A provider. What it was asked is checked against the library's own types at the end."""
    async with model_server() as server:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url, max_retries=0, http_client=http) as client:
            yield Provider(server, client)
    for request in server.requests:
        asked = request["input"] if "input" in request else request["messages"]
        kind = ResponseInputItemParam if "input" in request else ChatCompletionMessageParam
        assert isinstance(asked, str) or typed(asked, kind) == asked


def library_says(items: list[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item.type == "message":
            for content in item.content:
                found.append(("text", content.text if content.type == "output_text" else content.refusal))
                found += [("source", each.to_dict()) for each in getattr(content, "annotations", ())]
        elif item.type == "reasoning":
            pieces = [piece.text for piece in [*item.summary, *(item.content or ())]] or [""]
            found += [("reasoning", piece) for piece in pieces]
        elif item.type == "function_call":
            found.append(("call", item.call_id, item.name, json.loads(item.arguments or "{}")))
        else:
            found.append((item.type, item.to_dict(mode="json", exclude_none=True)))
    return found


def we_say(parts: list[dict[str, Any]]) -> list[Any]:
    found: list[Any] = []
    for part in parts:
        kind = part["type"]
        if kind in ("text", "reasoning"):
            assert part["state"] == "done"
            found.append((kind, part["text"]))
        elif kind.startswith("source-"):
            found.append(("source", part["providerMetadata"]["openai"]))
        elif part.get("providerExecuted"):
            found.append((part["output"]["type"], part["output"]))
        elif kind == "custom":
            found.append(
                (part["providerMetadata"]["openai"]["item"]["type"], part["providerMetadata"]["openai"]["item"])
            )
        elif kind != "file":
            found.append(("call", part["toolCallId"], kind.removeprefix("tool-"), part["input"]))
    return found


URL = {"type": "url_citation", "url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 4}
SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "tides", "queries": ["tides"]},
}
CUSTOM = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "call_9",
    "name": "sql",
    "input": "select 1",
    "status": "completed",
}


SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
JSON = st.dictionaries(
    SAID.filter("__proto__".__ne__),
    st.one_of(SAID, st.integers(-5, 5), st.none(), st.lists(SAID, max_size=2)),
    max_size=3,
)
CUTS = st.lists(st.integers(0, 1000), max_size=6)
often = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
