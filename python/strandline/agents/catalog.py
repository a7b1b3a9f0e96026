"""Which agents there are: by name, the first one being the one that answers where nobody is named (PROTOCOL §7.7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from strandline.core.ids import InvalidId, check_id
from strandline.errors import Misconfigured, Unprocessable
from strandline.runtime.recovering import Recovery

Agent = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Named:
    """An agent under its name. ``recovery``: how it is called again when its process was lost; None: it is not. One
    that runs elsewhere has no function here, but a lease: how many seconds its worker may be silent (PROTOCOL §18), and
    the names of the agents that it may spawn."""

    name: str
    function: Agent | None
    recovery: Recovery | None = None
    lease: float = 0.0
    spawns: frozenset[str] = frozenset()


class Agents:
    """The agents of one application. Filled before it serves."""

    def __init__(self) -> None:
        self._known: dict[str, Named] = {}

    def add(self, function: Agent, name: str | None = None, recover: Recovery | bool | None = None) -> None:
        """Take an agent in; without a name it has that of its function. Raises Misconfigured."""
        if recover not in (None, False, True, "restart", "continue"):
            raise Misconfigured(f'recover must be True, "restart" or "continue", not {recover!r:.60}.')
        named = name if name is not None else getattr(function, "__name__", type(function).__name__)
        self._add(Named(named, function, "restart" if recover is True else recover or None))

    def add_remote(self, name: str, lease: float, spawns: Iterable[str] = ()) -> None:
        """Take in an agent that runs elsewhere. Raises Misconfigured."""
        if not 0.1 <= lease <= 86400:
            raise Misconfigured(f"The lease of a remote agent must be 0.1 to 86400 seconds, not {lease!r}.")
        if isinstance(spawns, str):
            raise Misconfigured("`spawns` is a list of names, not one str.")
        self._add(Named(name, None, lease=float(lease), spawns=frozenset(spawns)))

    def _add(self, agent: Named) -> None:
        try:
            check_id(agent.name, "agent's name")
        except InvalidId as error:
            raise Misconfigured(f"{error} Write @chat.agent(name=...).") from None
        if agent.name in self._known:
            raise Misconfigured(f"There is an agent called {agent.name} already: give this one another name.")
        self._known[agent.name] = agent

    def __bool__(self) -> bool:
        return bool(self._known)

    def __iter__(self) -> Iterator[Named]:
        return iter(self._known.values())

    def elsewhere(self, name: str) -> bool:
        """Whether the agent of this name runs in another process."""
        agent = self._known.get(name)
        return agent is not None and agent.function is None

    def get(self, name: str) -> Named | None:
        """The agent of this name, or None: a later version of the application may not have it any more."""
        return self._known.get(name)

    def recovery(self, name: str) -> Recovery | None:
        """How the agent of this name is recovered."""
        known = self._known.get(name)
        return known.recovery if known is not None else None

    def spawned_by(self, parent: str, name: str) -> Named:
        """The agent that one which runs elsewhere wants to spawn. Raises Unprocessable (``unknown-agent``)."""
        known, found = self._known.get(parent), self._known.get(name)
        if known is None or found is None or name not in known.spawns:
            detail = f"{parent} may spawn no agent called {name[:60]!r}: chat.remote_agent(…, spawns=[…]) names them."
            raise Unprocessable(detail, code="unknown-agent")
        return found

    def name_of(self, function: Agent) -> str | None:
        """The name that a function is an agent by, or None."""
        return next((named.name for named in self._known.values() if named.function is function), None)

    def choose(self, name: str | None) -> str:
        """The name of the agent that a request means. Raises Unprocessable (``unknown-agent``)."""
        if name is None:
            return next(iter(self._known))
        if name not in self._known:
            raise Unprocessable(f"There is no agent called {name[:60]!r}.", code="unknown-agent")
        return name
