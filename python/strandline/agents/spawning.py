"""Agents that are started by agents: what they are given, and what their parent holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.agents.catalog import Agents
from strandline.agents.prompt import prompt as for_model
from strandline.core.chunks import complaint
from strandline.core.ids import InvalidId, check_id
from strandline.core.records import MessageRecord, RunRecord
from strandline.errors import ChunkRefused, Misconfigured, Unprocessable
from strandline.runtime import spawning
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import LiveRun
from strandline.runtime.session import Sessions

Prompt = str | Iterable[Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Task:
    """What a spawned agent is to do: ``function`` is called with ``context`` as what it is asked."""

    function: Callable[..., Any]
    context: list[MessageRecord]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a remote agent wants to spawn: one of the application's agents, and what that is given."""

    agent: str
    prompt: Prompt
    body: Mapping[str, Any]


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
        """Wait for its end, whatever that is, and return it. ``suspended`` is one: somebody has to decide something
        first. Once that was decided and the agent goes on, this waits for the end of that."""
        while (live := self._session.live.get(self._newest.id)) is not None and not live.over:
            await live.ended()
        run = self._newest
        stored = await self._sessions.store.messages(self._session.id, [run.message])
        parts = list(stored[0].parts or ()) if stored else []
        message = {"id": run.message_id, "role": "assistant", "parts": parts}
        text = "\n\n".join(part["text"] for part in parts if part["type"] == "text" and part["text"])
        return Outcome(run.status.value, run.reason, run.error, text, message)

    async def stop(self) -> None:
        """End it now (``stopped``, reason ``parent``); what it has said is kept. Nothing happens where it has ended:
        what a suspended one has asked for can still be decided."""
        await self._sessions.stop_spawned(self._session, self._newest.id, self._by)

    @property
    def _newest(self) -> RunRecord:
        """The run that writes its message, or has written it last."""
        state = self._session.state
        return state.runs[str(state.messages[self._live.message].run)]


class Spawner:
    """Starts agents for agents. One per application; it holds what is to be called until it is. ``limit``: bytes that
    an agent which may be called again is given at most."""

    def __init__(self, agents: Agents, limit: int) -> None:
        self._agents = agents
        self._limit = limit
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
        messages, given = self._given(named, prompt, body)
        kept = self._kept(named, given) if self.knows(named) else None
        task = Task(function, context if messages is None else spawning.asked(session.id, messages))
        beside = await sessions.spawn(session, live, named, given["body"], kept, self._begun(task))
        assert beside is not None
        return Spawned(sessions, session, beside, f"agent:{by}")

    async def spawn_numbered(
        self, sessions: Sessions, session: LiveSession, live: LiveRun, wanted: Wanted, numbered: spawning.Numbered
    ) -> None:
        """The same for an agent that runs elsewhere; the other one may run elsewhere as well. Raises Unprocessable
        (``unknown-agent``, ``invalid-request``, ``prompt-too-long``), TooMany, RunOver and SessionGone."""
        known = self._agents.spawned_by(session.state.runs[live.id].agent, wanted.agent)
        try:
            messages, given = self._given(known.name, wanted.prompt, wanted.body)
            asked = None if messages is None else spawning.asked(session.id, messages)
            for_model(asked or ())  # what no agent could read is refused here
            kept = self._kept(known.name, given)
        except ChunkRefused as exc:
            raise Unprocessable(exc.detail, code=exc.code) from None
        except (AttributeError, KeyError, TypeError) as exc:
            raise Unprocessable(
                f"What is given to the agent is no prompt: {exc!r:.200}", code="invalid-request"
            ) from exc
        begun = self._begun(None)
        if known.function is not None:
            context = asked if asked is not None else await sessions.context(session, session.state.runs[live.id])
            begun = self._begun(Task(known.function, context))
        await sessions.spawn(session, live, known.name, given["body"], kept, begun, numbered)

    def _begun(self, task: Task | None) -> Callable[[str], None]:
        """What is to be called once the run has its id; None: nothing that runs here."""

        def begun(run_id: str) -> None:
            if task is not None:
                self._tasks[run_id] = task

        return begun

    def _given(
        self, name: str, prompt: Prompt, body: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]] | None, dict[str, Any]]:
        """The prompt as UIMessages, and all that the agent is given. Raises TypeError for what is not JSON."""
        messages = None if prompt is None else _messages(prompt)
        given = spawning.given(body, messages)
        wrong = complaint(given)
        if wrong is not None:
            raise TypeError(f"what is given to {name}{wrong}")
        return messages, given

    def knows(self, name: str) -> bool:
        """Whether an agent of this name can be called again, by whatever process."""
        return self._agents.get(name) is not None

    def _kept(self, name: str, given: Mapping[str, Any]) -> Any:
        """A copy, for the log: the agent may go on using its objects."""
        blob = orjson.dumps(given)
        if len(blob) > self._limit:
            raise ChunkRefused(
                f"What is given to {name} is {len(blob)} bytes, over the limit of {self._limit}. "
                "Store large content elsewhere and send its URL.",
                code="prompt-too-long",
            )
        return orjson.loads(blob)

    def take(self, run: RunRecord) -> Task | None:
        """What a spawned run is to do; None where nobody knows any more."""
        return self._tasks.pop(run.id, None)

    def _resolve(self, agent: str | Callable[..., Any], name: str | None) -> tuple[Callable[..., Any], str]:
        if isinstance(agent, str):
            known = self._agents.get(self._agents.choose(agent))
            if known is None or known.function is None:
                raise Misconfigured(
                    f"The agent {agent} runs in another process, and only one that runs here can be spawned. Register "
                    "a function that asks it over HTTP (stream_from) with @chat.agent, or use chat.speak."
                )
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


def _messages(prompt: str | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A prompt as UIMessages."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    found = []
    for number, message in enumerate(asked, 1):
        parts = message.get("parts")
        if parts is None:
            parts = _parts(message.get("content"))
        message_id, role = str(message.get("id", f"prompt-{number}")), str(message.get("role", "user"))
        found.append({"id": message_id, "role": role, "parts": list(parts)})
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
