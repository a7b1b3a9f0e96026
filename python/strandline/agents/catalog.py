"""Which agents there are: by name, the first one being the one that answers where nobody is named (PROTOCOL §7.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from strandline.core.ids import InvalidId, check_id
from strandline.errors import Misconfigured, Unprocessable

Agent = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Named:
    """An agent under its name."""

    name: str
    function: Agent


class Agents:
    """The agents of one application. Filled before it serves."""

    def __init__(self) -> None:
        self._known: dict[str, Named] = {}

    def add(self, function: Agent, name: str | None = None) -> None:
        """Take an agent in; without a name it has that of its function. Raises Misconfigured."""
        named = name if name is not None else getattr(function, "__name__", type(function).__name__)
        try:
            check_id(named, "agent's name")
        except InvalidId as error:
            raise Misconfigured(f"{error} Write @chat.agent(name=...).") from None
        if named in self._known:
            raise Misconfigured(f"There is an agent called {named} already: give this one another name.")
        self._known[named] = Named(named, function)

    def __bool__(self) -> bool:
        return bool(self._known)

    def get(self, name: str) -> Named | None:
        """The agent of this name, or None: a later version of the application may not have it any more."""
        return self._known.get(name)

    def choose(self, name: str | None) -> str:
        """The name of the agent that a request means. Raises Unprocessable (``unknown-agent``)."""
        if name is None:
            return next(iter(self._known))
        if name not in self._known:
            raise Unprocessable(f"There is no agent called {name[:60]!r}.", code="unknown-agent")
        return name
