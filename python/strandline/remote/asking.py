"""One question to the server, asked until it is answered. Every question of the agent wire may be asked again: it
carries the number, or the name, by which the server knows that it has answered it already."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from strandline.errors import StrandlineError

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_AGAIN = frozenset({408, 425, 429})

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

TIMEOUT = httpx.Timeout(10.0, read=30.0)


class Refused(StrandlineError):
    """The server will not have this, however often it is asked."""

    code, title = "refused", "The server has refused"


class Unreachable(StrandlineError):
    """The server was not there for as long as we had patience."""

    code, title = "unreachable", "The server cannot be reached"


class Pauses:
    """How long to wait between two tries: longer each time, and not as long as everybody else."""

    def __init__(self) -> None:
        self._tries = 0

    def reset(self) -> None:
        """It has worked."""
        self._tries = 0

    def next(self, asked: str | None = None) -> float:
        """Seconds; ``asked`` is what the server says (Retry-After)."""
        wait: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(self._tries, 10))
        self._tries += 1
        if asked is not None and asked.isdecimal():
            wait = max(wait, float(asked[:4]))
        return wait * random.uniform(0.5, 1.0)


class Server:
    """The agent wire of one server. ``patience``: seconds for which it may be unreachable."""

    def __init__(self, client: httpx.AsyncClient, url: str, headers: Headers, patience: float) -> None:
        self.client = client
        self.url = url.rstrip("/")
        self._headers = headers
        self._patience = patience

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the next request."""
        return self._headers() if callable(self._headers) else self._headers

    async def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a POST. Raises Refused or Unreachable."""
        began, pauses = time.monotonic(), Pauses()
        while True:
            asked: str | None = None
            try:
                response = await self.client.post(
                    f"{self.url}/{path}", json=body, headers=self.headers, timeout=TIMEOUT
                )
                refuse_unless_ok(response)
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                asked = response.headers.get("retry-after")
                what: object = f"HTTP {response.status_code}"
            except (httpx.TransportError, ValueError) as exc:  # ValueError: an answer that is no JSON
                what = exc
            wait = pauses.next(asked)
            if time.monotonic() + wait - began > self._patience:
                raise Unreachable(f"No answer for {self._patience:g} s: {what!r:.200}")
            await asyncio.sleep(wait)


def refuse_unless_ok(response: httpx.Response) -> None:
    """Raise Refused for an answer that another try cannot change. The response must have been read."""
    status = response.status_code
    if response.is_success or status in _AGAIN or status >= 500:
        return
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError):
        detail, code = response.text[:200], "refused"
        if status == 404:  # of Strandline it would have a code
            detail += " Is the prefix of the API missing from the URL, as /api in http://127.0.0.1:8000/api?"
    raise Refused(f"HTTP {status}: {detail}", code=code)
