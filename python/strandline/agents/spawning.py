"""Agents that are started by agents: what they are given, and what their parent holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from strandline.agents.catalog import Agents
from strandline.core.chunks import complaint
from strandline.core.ids import InvalidId, check_id
from strandline.core.records import MessageRecord, RunRecord
from strandline.errors import Misconfigured
from strandline.runtime.live import LiveRun, LiveSession
from strandline.runtime.session import Sessions

Prompt = str | Iterable[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Task:
    """What a spawned agent is to do: ``function`` is called with ``context`` as what it is asked."""

    function: Callable[..., Any]
    context: list[MessageRecord]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a spawned run ended, and what it said. ``text``: the text parts of ``message``, a UIMessage."""

    status: str
    reason: str | None
    error: str | None
    text: str
    message: Mapping[str, Any]


class Spawned:
    """A spawned run, in the hands of the agent that spawned it."""

    def __init__(self, sessions: Sessions, session: LiveSession, live: LiveRun, by: str) -> None:
        self._sessions = sessions
        self._session = session
        self._live = live
        self._by = by

    @property
    def id(self) -> str:
        """The id of its run."""
        return self._live.id

    @property
    def message_id(self) -> str:
        """The id of the message that it writes."""
        return self._session.state.runs[self._live.id].message_id

    async def result(self) -> Outcome:
        """Wait for its end, whatever that is, and return it."""
        await self._live.ended()
        run = self._session.state.runs[self._live.id]
        stored = await self._sessions.store.messages(self._session.id, [run.message])
        parts = list(stored[0].parts or ()) if stored else []
        message = {"id": run.message_id, "role": "assistant", "parts": parts}
        text = "\n\n".join(part["text"] for part in parts if part["type"] == "text" and part["text"])
        return Outcome(run.status.value, run.reason, run.error, text, message)

    async def stop(self) -> None:
        """End it now (``stopped``, reason ``parent``); what it has said is kept. Nothing happens where it has ended."""
        await self._sessions.stop_spawned(self._session, self._live.id, self._by)


class Spawner:
    """Starts agents for agents. One per application; it holds what is to be called until it is."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents
        self._tasks: dict[str, Task] = {}

    async def spawn(
        self,
        sessions: Sessions,
        session: LiveSession,
        live: LiveRun,
        by: str,
        context: list[MessageRecord],
        agent: str | Callable[..., Any],
        name: str | None,
        prompt: Prompt,
        body: Mapping[str, Any],
    ) -> Spawned:
        """See ``Run.spawn``."""
        function, named = self._resolve(agent, name)
        wrong = complaint(dict(body))
        if wrong is not None:
            raise TypeError(f"what is given to {named}{wrong}")
        task = Task(function, context if prompt is None else _context(session.id, prompt))

        def begun(run_id: str) -> None:
            self._tasks[run_id] = task

        return Spawned(sessions, session, await sessions.spawn(session, live, named, body, begun), f"agent:{by}")

    def take(self, run: RunRecord) -> Task | None:
        """What a spawned run is to do; None where nobody knows any more."""
        return self._tasks.pop(run.id, None)

    def _resolve(self, agent: str | Callable[..., Any], name: str | None) -> tuple[Callable[..., Any], str]:
        if isinstance(agent, str):
            known = self._agents.get(self._agents.choose(agent))
            if known is None or known.function is None:
                raise Misconfigured(f"The agent {agent} runs elsewhere; only one that runs here can be spawned.")
            return known.function, known.name
        named = name if name is not None else self._agents.name_of(agent)
        if named is None:
            raise Misconfigured("Give the agent that is spawned a name: run.spawn(function, name=...).")
        try:
            check_id(named, "agent's name")
        except InvalidId as error:
            raise Misconfigured(str(error)) from None
        registered = self._agents.get(named)
        if registered is not None and registered.function is not agent:
            raise Misconfigured(f"There is another agent called {named}: spawn this one under another name.")
        return agent, named


def _context(session: str, prompt: str | Iterable[Mapping[str, Any]]) -> list[MessageRecord]:
    """A prompt as the messages that an agent is asked."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    found = []
    for number, message in enumerate(asked, 1):
        parts = message.get("parts")
        if parts is None:
            parts = _parts(message.get("content"))
        message_id = str(message.get("id", f"prompt-{number}"))
        role = str(message.get("role", "user"))
        found.append(MessageRecord(session, message_id, message_id, None, role, role, 0, parts=tuple(parts)))
    return found


def _parts(content: Any) -> list[dict[str, Any]]:
    """The parts of what ``run.prompt()`` gives as ``content``."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise TypeError("a message of a prompt needs `content` (a string or a list) or `parts`")
    parts: list[dict[str, Any]] = []
    for item in content:
        if item["type"] == "image_url":
            parts.append({"type": "file", "mediaType": "image/*", "url": item["image_url"]["url"]})
        else:
            parts.append({"type": "text", "text": str(item["text"])})
    return parts
