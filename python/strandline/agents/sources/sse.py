"""``stream_from``: a reply that another server writes, as chunks to yield; and what such a server wants to be sent.

The producer answers with server-sent events, in the AI SDK's protocol or in AG-UI. A stream that breaks is an error of
the run: there is no reconnecting, because a producer that numbers its events promises nothing about coming back to
them, and asking again could pay for a second reply. Whoever reads the run does reconnect; that is Strandline's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from typing import Any, Literal

import httpx

from strandline.agents.run import Run
from strandline.agents.sources.ag_ui import ag_ui_stream
from strandline.agents.sources.ag_ui_resume import resume_entries
from strandline.agents.ui_stream import ui_stream
from strandline.codecs.ag_ui import PROTOCOL_VERSION
from strandline.codecs.ag_ui_input import ag_ui_messages
from strandline.core.decisions import APPROVAL
from strandline.errors import ProducerFailed

Protocol = Literal["ui-message", "ag-ui"]

TIMEOUT = httpx.Timeout(10.0, read=300.0)
"""10 s to connect and to send; 5 minutes for the producer to say anything, if only a comment."""

PATIENCE = 5.0
"""Seconds in which a producer should close its stream after the reply, and say why it refuses."""

_TERMINAL = frozenset({"finish", "abort", "error"})
_SHOWN = 500
"""Bytes of a refusal that are told in the log."""


async def stream_from(
    url: str,
    *,
    protocol: Protocol = "ui-message",
    json: Any = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    timeout: httpx.Timeout | float = TIMEOUT,
    client: httpx.AsyncClient | None = None,
    run: Run | None = None,
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the chunks of the reply that ``url`` streams. ``json``: the body, as ``ui_message_body`` and ``ag_ui_body``
    make it. ``timeout``: as httpx takes it; a number is seconds for each step. ``client``: yours, which stays open, for
    its pool, proxies and authentication. ``run``: see ``ag_ui_stream``.

    Raises ProducerFailed when the producer cannot be reached, refuses, answers with something else than a stream, says
    nothing for too long, or ends before its reply has; ChunkRefused for what is not of the protocol. When this is
    closed, as by a stop, the connection is, too."""
    ended = False
    opened = client if client is not None else httpx.AsyncClient()
    owned: AbstractAsyncContextManager[Any] = nullcontext() if client is not None else opened
    try:
        request = opened.build_request(method, url, json=json, headers=_headers(headers), timeout=timeout)
        async with owned, _answer(opened, request) as response:
            pieces = response.aiter_bytes()
            said = _each(pieces)
            chunks = ag_ui_stream(said, run=run) if protocol == "ag-ui" else ui_stream(said, until_done=True)
            async with aclosing(chunks):
                async for chunk in chunks:
                    ended = ended or chunk.get("type") in _TERMINAL
                    yield chunk
                    if ended and protocol == "ag-ui":
                        break  # one request, one run
            await _drain(pieces)
    except httpx.InvalidURL as exc:
        raise ProducerFailed(f"The address of the producer is not valid: {exc}.") from exc
    except httpx.HTTPError as exc:
        if not ended:  # what becomes of the connection after the last chunk is of no interest
            raise ProducerFailed(f"{_named(request.url)}: {_said(exc)}") from exc
    if not ended:
        raise ProducerFailed(f"{_named(request.url)} ended the stream before the reply: there was no last chunk.")


def ui_message_body(run: Run, **more: Any) -> dict[str, Any]:
    """What a back end for ``useChat`` is sent: ``{id, messages, trigger}`` and ``more``. After decisions the last
    message is the reply with the answers in it, as a chat of the AI SDK sends it, and ``messageId`` its id."""
    messages, asked = run.messages, {each.tool_call for each in run.decisions if each.kind == APPROVAL}
    going_on = {}
    if run.decisions:
        parts = [_answered(part) if part.get("toolCallId") in asked else part for part in messages[-1]["parts"]]
        messages[-1] = {**messages[-1], "parts": parts}
        going_on = {"messageId": run.message_id}
    return {"id": run.session_id, "messages": messages, "trigger": "submit-message", **going_on, **more}


def _answered(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A call that was denied as the one who denied it has it: what becomes of it is for the back end to say."""
    return {**part, "state": "approval-responded"} if part["state"] == "output-denied" else part


def ag_ui_body(
    run: Run,
    *,
    tools: Iterable[Mapping[str, Any]] = (),
    context: Iterable[Mapping[str, Any]] = (),
    state: Any = None,
    forwarded_props: Any = None,
) -> dict[str, Any]:
    """What an AG-UI agent is sent: a ``RunAgentInput``, with the conversation as AG-UI messages; and with
    ``resume``, when the interrupts of its run before were decided."""
    resumed = resume_entries(run)
    return {
        "threadId": run.session_id,
        "runId": run.id,
        "protocolVersion": PROTOCOL_VERSION,
        "messages": ag_ui_messages(run.messages, resumed),
        "tools": list(tools),
        "context": list(context),
        "state": {} if state is None else state,
        "forwardedProps": {} if forwarded_props is None else forwarded_props,
        **({"resume": list(resumed.values())} if resumed else {}),
    }


@asynccontextmanager
async def _answer(client: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    """The response, if it is a stream of events."""
    response = await client.send(request, stream=True)
    try:
        if not response.is_success:
            raise ProducerFailed(f"{_named(request.url)} answered {response.status_code}: {await _beginning(response)}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            wrong = f"{response.status_code} with {kind or 'no content type'}, not with text/event-stream"
            raise ProducerFailed(f"{_named(request.url)} answered {wrong}: {await _beginning(response)}")
        yield response
    finally:
        await response.aclose()


async def _each(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What can be closed without closing ``pieces``."""
    async for piece in pieces:
        yield piece


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Let the producer hang up: what it has to do after its last chunk may be cancelled when we do."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(PATIENCE):
            async for _ in pieces:
                pass


async def _beginning(response: httpx.Response) -> str:
    """What a refusal says, as far as it has come: it is told whatever becomes of the rest."""
    said = b""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(PATIENCE):
            async for piece in response.aiter_bytes():
                said += piece
                if len(said) >= _SHOWN:
                    break
    return repr(said[:_SHOWN].decode(errors="replace"))


def _headers(headers: Mapping[str, str] | None) -> httpx.Headers:
    found = httpx.Headers({"Accept": "text/event-stream", "Cache-Control": "no-store"})
    found.update(headers)
    return found


def _named(url: httpx.URL) -> str:
    """The address without what may be secret in it."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _said(exc: httpx.HTTPError) -> str:
    if isinstance(exc, httpx.ReadTimeout):
        return "the producer said nothing for too long."
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return f"cannot be reached ({exc or type(exc).__name__})."
    return f"the stream was cut ({exc or type(exc).__name__})."
