"""The ``Run``: what an agent author holds while the agent answers.

``yield`` is enough for most agents; the methods are for the rest. What can be said is in ``saying/``, how it is written
in ``writing.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

from strandline.agents.decision import made
from strandline.agents.prompt import prompt
from strandline.agents.republishing import Republisher
from strandline.agents.spawning import Spawned, Spawner
from strandline.agents.steering import Steered
from strandline.core.records import MessageRecord, RunRecord
from strandline.errors import Misconfigured
from strandline.runtime.ending import Ending
from strandline.runtime.live import LiveSession
from strandline.runtime.live_run import Caller, LiveRun
from strandline.runtime.session import Sessions
from strandline.saying.decision import Decision, read
from strandline.saying.voice import Voice
from strandline.settings import Settings

_T = TypeVar("_T")


class Run(Republisher, Steered, Voice):
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
    def authors(self) -> dict[str, str]:
        """Who has said each of ``messages``, by its id: ``user:<id>``, ``agent:<name>``, or ``server`` for what was
        imported. With several people in a session the model can be told who is who. Of what another agent gives as the
        prompt of a spawned one, it is the role."""
        return {message.message_id: message.author for message in self._context}

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
        return [read(each) for each in made(self._session, self._live)]

    @property
    def cancelled(self) -> bool:
        """True once the run has ended for any reason. For agents that run in a thread and want to look."""
        return self._live.over

    # ------------------------------------------------------------------ what else it can do

    def _may_ask(self) -> None:
        """Raises Misconfigured (``cannot-suspend``) where nobody could call this agent again."""
        name = self._record.agent
        if self._record.spawned and not self._spawner.knows(name):
            raise Misconfigured(
                f"{name} was spawned as a function: no later process could call it when what it asks for is decided. "
                f"Register it (@chat.agent(name={name!r})) and spawn it by that name.",
                code="cannot-suspend",
            )

    async def close(self) -> Ending:
        """See ``Writer.close``. A library's stream may have asked for something, too."""
        ending = await super().close()
        if ending.awaits:
            self._may_ask()
        return ending

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
        on already, Misconfigured for what has no name, TypeError for what is not JSON, and ChunkRefused
        (``prompt-too-long``)."""
        return await self._spawner.spawn(
            self._sessions, self._session, self._live, self._record.agent, self._context, agent, name, prompt, body
        )

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """For agents that run in a thread: ``run.wait(run.progress("files", 3))``. Those on the event loop await."""
        if threading.get_ident() == self._thread:
            coroutine.close()
            raise RuntimeError("run.wait is for agents that run in a thread: write `await run.…` here.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def ui_message(message: MessageRecord) -> dict[str, Any]:
    """A stored message as an AI SDK UIMessage."""
    found: dict[str, Any] = {"id": message.message_id, "role": message.role, "parts": list(message.parts or ())}
    if message.metadata is not None:
        found["metadata"] = message.metadata
    return found
