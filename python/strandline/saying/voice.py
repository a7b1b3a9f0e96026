"""What an agent says, call by call: the same for a ``Run`` and a ``RemoteRun``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import Any

import orjson

from strandline.core.chunks import FINISH_REASONS, complaint
from strandline.core.coalesce import PROGRESS
from strandline.errors import ChunkRefused
from strandline.saying.composing import Composing, aclose
from strandline.saying.decision import Decision, Terms, terms


class Voice(Composing):
    """Everything that an agent can say. All of it ends up in ``append``."""

    @property
    @abstractmethod
    def decisions(self) -> list[Decision]:
        """What was decided since this agent asked for it, when it is called again to go on with its message; else
        empty. ``messages`` then ends with that message."""

    def decided(self, tool_call: str) -> Decision | None:
        """The decision about this tool call, if there is one in ``decisions``."""
        return next((each for each in self.decisions if each.tool_call == tool_call), None)

    @property
    def waiting(self) -> bool:
        """True once there is something that somebody has to decide: a tool loop returns then."""
        return bool(self._undecided())

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
        """Show a tool call that somebody has to approve; returns its id (``id``: the tool call's). With the ``id`` of a
        call that a model has made, and that is shown, it is that one, with its input. It does not wait: when the agent
        returns, the run is suspended, and the agent is called again when all that it asked for is decided
        (``decisions``). An approved call then gets its ``tool_result`` from the agent.

        roles: who may decide has one of them; expires_in: seconds from the end of this run; reason: shown to who is
        asked.
        """
        self._may_ask()
        self._may_ask_more()
        asked = terms(roles, expires_in)
        shown = self._fold.tool(id) if id is not None else None
        if id is not None and shown is not None and shown.state == "input-available" and shown.name == name:
            call = id
        else:
            call = await self.tool_call(name, input, id=id)
        self._asked[call] = asked
        request = {"type": "tool-approval-request", "approvalId": self._new_id("approval")}
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
        self._may_ask()
        self._may_ask_more()
        asked = terms(roles, expires_in)
        call = await self.tool_call(name, input, id=id or self._new_id("call"))
        self._asked[call] = asked
        return call

    def client_tools(self, *names: str, roles: Iterable[str] | None = None, expires_in: float | None = None) -> None:
        """Calls of these tools that are left without output are for a client to run, however they were added: what a
        library's stream says of a tool is the same for both kinds."""
        self._may_ask()
        self._client_tools |= dict.fromkeys(names, terms(roles, expires_in))

    def approvals(self, *names: str, roles: Iterable[str] | None = None, expires_in: float | None = None) -> None:
        """Who may decide when calls of these tools are to be approved, and how long they have, however that was asked
        for: what a library's stream asks does not say it. Without names: for every tool that is not named. What
        ``request_approval`` was told itself comes first. Raises Misconfigured."""
        self._may_ask()
        self._approvals |= dict.fromkeys(names or (None,), terms(roles, expires_in))

    def leave_to_client(self, call: str, name: str) -> None:
        """The same for one call, of a tool of this name: for adapters of libraries that say so. What ``client_tools``
        was told of that tool holds for it."""
        self._asked.setdefault(call, self._client_tools.get(name, Terms()))

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

    async def metadata(self, value: Mapping[str, Any]) -> None:
        """Merge into the message's metadata."""
        await self.append({"type": "message-metadata", "messageMetadata": dict(value)})

    async def reset_step(self) -> None:
        """Throw away what was said since the current step began: for a model call that is made again. Clients of ai@7
        are told in passing, older ones load the message anew."""
        await self._turn()
        self._open = None
        for part in self._fold.open_text:
            self._put({"type": "text-end", "id": part})
        for part in self._fold.open_reasoning:
            self._put({"type": "reasoning-end", "id": part})
        self._append("reset-step", {"type": "reset-step"}, 64)
        self._tools_answered = False

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
