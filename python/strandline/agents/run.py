"""The ``Run``: what an agent author holds while the agent answers.

``yield`` is enough for most agents; the methods are for the rest. How it is written is in ``writing.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import orjson

from strandline.agents.decision import Decision, made, terms
from strandline.agents.prompt import prompt
from strandline.agents.republishing import Republisher
from strandline.agents.spawning import Spawned, Spawner
from strandline.agents.steering import Steered
from strandline.agents.writing import aclose
from strandline.core.chunks import FINISH_REASONS, complaint
from strandline.core.coalesce import PROGRESS
from strandline.core.records import MessageRecord, RunRecord
from strandline.errors import ChunkRefused
from strandline.runtime.live import Caller, LiveRun, LiveSession
from strandline.runtime.session import Sessions
from strandline.settings import Settings

_T = TypeVar("_T")


class Run(Republisher, Steered):
    """One execution of an agent. All methods that add content are coroutines; they wait when the store is behind.

    They raise ChunkRefused for something that clients could not read, and RunOver once the run has ended (it was
    stopped, superseded, or took too long).
    """

    def __init__(
        self,
        sessions: Sessions,
        settings: Settings,
        session: LiveSession,
        live: LiveRun,
        record: RunRecord,
        context: list[MessageRecord],
        spawner: Spawner,
    ) -> None:
        super().__init__(sessions, settings, session, live, record, context)
        self._spawner = spawner
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    # ------------------------------------------------------------------ what the agent is asked

    @property
    def id(self) -> str:
        """The run's id."""
        return self._record.id

    @property
    def session_id(self) -> str:
        """The session (the AI SDK calls it chat) that this run writes to."""
        return self._session.id

    @property
    def message_id(self) -> str:
        """The id of the assistant message that this run writes."""
        return self._record.message_id

    @property
    def user(self) -> Caller:
        """Who asked: ``user``, ``device``, ``roles``, ``claims``."""
        return self._live.caller

    @property
    def body(self) -> Mapping[str, Any]:
        """What the client sent along with the message (``useChat({ body })``)."""
        return self._live.caller.body

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The active path up to the message to answer, as UIMessages: ``{"id", "role", "parts", "metadata"?}``."""
        return [ui_message(message) for message in self._context]

    @property
    def message(self) -> dict[str, Any]:
        """What the reply says so far, as a UIMessage. A tool loop asks the model again with
        ``[*run.messages, run.message]``."""
        return {"id": self.message_id, "role": "assistant", "parts": self._fold.parts()}

    def prompt(self) -> list[dict[str, Any]]:
        """The same as ``[{"role", "content"}]``, the shape that OpenAI-style clients take. Content is a string, or a
        list of ``text`` and ``image_url`` items where a message has images."""
        return prompt(self._context)

    @property
    def decisions(self) -> list[Decision]:
        """What was decided since this agent asked for it, when it is called again to go on with its message; else
        empty. ``messages`` then ends with that message."""
        if self._live.base is None:
            return []
        records = self._session.state.decisions.values()
        return made((each for each in records if each.run == self._record.parent_run), self._live.base)

    def decided(self, tool_call: str) -> Decision | None:
        """The decision about this tool call, if there is one in ``decisions``."""
        return next((each for each in self.decisions if each.tool_call == tool_call), None)

    @property
    def cancelled(self) -> bool:
        """True once the run has ended for any reason. For agents that run in a thread and want to look."""
        return self._live.over

    # ------------------------------------------------------------------ what the agent says

    async def text(self, delta: str) -> None:
        """Add text. The first call opens a text part, anything else that is added closes it."""
        await self._delta("text", delta)

    async def reasoning(self, delta: str) -> None:
        """Add reasoning ("thinking"), shown apart from the text."""
        await self._delta("reasoning", delta)

    async def tool_call(
        self, name: str, input: Any | AsyncIterable[str] = None, *, id: str | None = None, dynamic: bool = False
    ) -> str:
        """Show a tool call; returns its id. ``input``: a JSON value, or an async iterator of pieces of JSON text, which
        is streamed as it comes."""
        await self._turn()
        self._step()
        call = id or self._mint("call")
        extra = {"dynamic": True} if dynamic else {}
        await self.append({"type": "tool-input-start", "toolCallId": call, "toolName": name, **extra})
        if isinstance(input, AsyncIterable):
            text = ""
            pieces = aiter(input)
            try:
                async for piece in pieces:
                    text += piece
                    await self.append({"type": "tool-input-delta", "toolCallId": call, "inputTextDelta": piece})
            finally:
                await aclose(pieces)
            try:
                input = orjson.loads(text)
            except orjson.JSONDecodeError as exc:
                detail = f"The input of the tool call {name!r} is not JSON: {exc}"
                failed = {"type": "tool-input-error", "toolCallId": call, "toolName": name, "input": text, **extra}
                await self.append({**failed, "errorText": "The tool input was not valid JSON."})
                raise ChunkRefused(detail) from exc
        await self.append(
            {"type": "tool-input-available", "toolCallId": call, "toolName": name, "input": input, **extra}
        )
        return call

    async def tool_result(self, call: str, output: Any = None, *, error: str | None = None) -> None:
        """Give the output (a JSON value) of a tool call, or the ``error`` text that it failed with."""
        if error is not None:
            await self.append({"type": "tool-output-error", "toolCallId": call, "errorText": error})
        else:
            await self.append({"type": "tool-output-available", "toolCallId": call, "output": output})
        self._tools_answered = True

    async def request_approval(
        self,
        name: str,
        input: Any = None,
        *,
        id: str | None = None,
        roles: Iterable[str] | None = None,
        expires_in: float | None = None,
        reason: str | None = None,
    ) -> str:
        """Show a tool call that somebody has to approve; returns its id (``id``: the tool call's). It does not wait:
        when the agent returns, the run is suspended, and the agent is called again when all that it asked for is
        decided (``decisions``). An approved call then gets its ``tool_result`` from the agent.

        roles: who may decide has one of them; expires_in: seconds from the end of this run; reason: shown to who is
        asked.
        """
        asked = terms(roles, expires_in)
        call = await self.tool_call(name, input, id=id)
        self._asked[call] = asked
        request = {"type": "tool-approval-request", "approvalId": self._sessions.clock.mint("approval")}
        why = {} if reason is None else {"reason": reason}
        await self.append({**request, "toolCallId": call, **why})
        return call

    async def call_client_tool(
        self,
        name: str,
        input: Any = None,
        *,
        id: str | None = None,
        roles: Iterable[str] | None = None,
        expires_in: float | None = None,
    ) -> str:
        """Show a call of a tool that a client runs; returns its id. The output comes as with ``request_approval``."""
        asked = terms(roles, expires_in)
        call = await self.tool_call(name, input, id=id or self._sessions.clock.mint("call"))
        self._asked[call] = asked
        return call

    def client_tools(self, *names: str, roles: Iterable[str] | None = None, expires_in: float | None = None) -> None:
        """Calls of these tools that are left without output are for a client to run, however they were added: what a
        library's stream says of a tool is the same for both kinds."""
        self._client_tools |= dict.fromkeys(names, terms(roles, expires_in))

    async def data(self, name: str, value: Any, *, id: str | None = None, transient: bool = False) -> None:
        """Add a data part ``data-<name>``. With ``id`` a later one replaces it; ``transient`` ones are only passed on
        to who is attached now, and kept in no message."""
        chunk: dict[str, Any] = {"type": f"data-{name}", "data": value}
        if id is not None:
            chunk["id"] = id
        if transient:
            chunk["transient"] = True
        await self.append(chunk)

    async def progress(self, id: str, value: Any) -> None:
        """Say how far something is: a ``data-progress`` part (a JSON value, such as ``{"label", "done", "of"}``) that
        the next one with this ``id`` replaces. Of many that come faster than they can be stored only the newest is.
        Readers can ask for nothing else (``only=progress``)."""
        await self.append({"type": PROGRESS, "id": id, "data": value})

    async def source(self, url: str, title: str | None = None, *, id: str | None = None) -> None:
        """Cite a web page."""
        chunk = {"type": "source-url", "sourceId": id or self._mint("source"), "url": url}
        if title is not None:
            chunk["title"] = title
        await self.append(chunk)

    async def file(self, url: str, media_type: str) -> None:
        """Add a file by its URL (``https:`` or ``data:``)."""
        await self.append({"type": "file", "url": url, "mediaType": media_type})

    async def annotate(
        self,
        kind: str,
        data: Any = None,
        *,
        message: str | None = None,
        range: Mapping[str, int] | None = None,
        id: str | None = None,
    ) -> str:
        """Annotate a message of the session (its id; default: the one that this run writes); returns the annotation's
        id. ``range`` is ``{"part", "start", "end"}`` (PROTOCOL §19.1). The same ``id`` again replaces it. Raises
        Unprocessable, NotFound, Conflict and TooMany."""
        record, _ = await self._sessions.annotate(
            self.session_id,
            message if message is not None else self.message_id,
            (kind, data, range),
            id,
            f"agent:{self._record.agent}",
            lambda session: session is not None,
        )
        return record.id

    async def metadata(self, value: Mapping[str, Any]) -> None:
        """Merge into the message's metadata."""
        await self.append({"type": "message-metadata", "messageMetadata": dict(value)})

    async def spawn(
        self,
        agent: str | Callable[..., Any],
        *,
        prompt: str | Iterable[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **body: Any,
    ) -> Spawned:
        """Start another agent beside this one, with a message of its own. ``agent``: one of the application's, or its
        name; or any other callable, under the ``name`` that it says things by. It is given ``prompt``: a text, a list
        of messages, or None for what this run was asked; and ``body`` as ``run.body``.

        When this run ends other than by returning, what it has spawned is stopped. Raises TooMany where too much goes
        on already."""
        return await self._spawner.spawn(
            self._sessions, self._session, self._live, self._record.agent, self._context, agent, name, prompt, body
        )

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """For agents that run in a thread: ``run.wait(run.progress("files", 3))``. Those on the event loop await."""
        if threading.get_ident() == self._thread:
            coroutine.close()
            raise RuntimeError("run.wait is for agents that run in a thread: write `await run.…` here.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def usage(self, **counts: Any) -> None:
        """Record what the run used (``input_tokens=…``, JSON values); kept with the run and given to ``on_end``."""
        wrong = complaint(counts)
        if wrong is not None:
            raise ChunkRefused(f"usage{wrong}")
        self._usage = {**(self._usage or {}), **counts}

    def finish(self, reason: str) -> None:
        """Set the finish reason: ``stop`` (default), ``length``, ``content-filter``, ``tool-calls`` or ``other``."""
        if reason not in FINISH_REASONS:
            raise ChunkRefused(f"The finish reason must be one of {', '.join(FINISH_REASONS)}, not {reason!r:.60}.")
        self._finish_reason = reason


def ui_message(message: MessageRecord) -> dict[str, Any]:
    """A stored message as an AI SDK UIMessage."""
    found: dict[str, Any] = {"id": message.message_id, "role": message.role, "parts": list(message.parts or ())}
    if message.metadata is not None:
        found["metadata"] = message.metadata
    return found
