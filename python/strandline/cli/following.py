"""``strandline tail``: a session as it happens, over drops and restarts of the server (PROTOCOL §8.8)."""

from __future__ import annotations

import random
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson
from httpx_sse import EventSource

from strandline.cli import terminal, transcript
from strandline.cli.exits import NEGATIVE, UNREACHABLE, Failure
from strandline.cli.remote import TryAgain, connect, refusal, unreachable
from strandline.core.ids import check_id

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_STEADY = 5.0
"""Seconds after which a connection counts as good, also when nothing happened on it."""


def tail(args: Namespace) -> int:
    """Follow a session until Ctrl-C. Raises Failure when it is deleted, and when the server refuses, or stays away for
    ``--give-up``."""
    path = f"sessions/{check_id(args.session, 'SESSION')}/events"
    show: Callable[[str, dict[str, Any]], None] = _as_json if args.json else _Page(resumed=args.after is not None).show
    with connect(args) as client:
        line = _Line(client, path, args.url, args.after)
        while True:
            before = time.monotonic()
            try:
                line.follow(show)
                trouble: Failure = Failure("the server ended the stream", UNREACHABLE)
            except httpx.TransportError as error:
                trouble = unreachable(args.url, error)
            except TryAgain as error:
                trouble = error
            if not line.reached:
                raise trouble
            if line.moved or time.monotonic() - before > _STEADY:
                line.back_to_work()
            line.wait(args.give_up, trouble)


class _Line:
    """The connection that is kept up, and the cursor that it goes on from."""

    def __init__(self, client: httpx.Client, path: str, url: str, cursor: str | None) -> None:
        self._client = client
        self._path = path
        self._url = url
        self._cursor = cursor
        self._lost_at: float | None = None
        self._attempt = 0
        self.reached = False
        """The server has answered at least once: from now on an absence is a drop, not a wrong address."""
        self.moved = False

    def follow(self, show: Callable[[str, dict[str, Any]], None]) -> None:
        """One connection, to its end. Raises TransportError when it breaks, Failure when it is refused."""
        self.moved = False
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._cursor is not None:
            headers["Last-Event-ID"] = self._cursor
        with self._client.stream("GET", self._path, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                raise refusal(response, self._url)
            if self._lost_at is not None:
                terminal.note("(connected again)")
            if response.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
                raise self._foreign()
            self.reached = True
            for event in EventSource(response).iter_sse():
                if not event.data:
                    continue
                try:
                    frame = orjson.loads(event.data)
                except ValueError:
                    raise self._foreign() from None
                if frame.get("type") != "readers" and event.id:
                    self._cursor, self.moved = event.id, True
                show(self._cursor or "", frame)
                if frame.get("type") == "session-deleted":
                    raise Failure("The session was deleted.", NEGATIVE)

    def back_to_work(self) -> None:
        """The last connection was a good one: count from here."""
        self._lost_at, self._attempt = None, 0

    def wait(self, give_up: float, trouble: Failure) -> None:
        """Pause before the next attempt. Raises Failure once ``give_up`` seconds have passed in vain."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            terminal.note(f"(connection lost: {trouble}; trying again)")
        left = self._lost_at + give_up - now
        if left <= 0:
            where = "" if self._cursor is None else f" Go on later with --after {self._cursor}."
            raise Failure(f"Gave up after {give_up:g} s: {trouble}{where}", UNREACHABLE)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._attempt) * random.uniform(0.5, 1.0)
        self._attempt = min(self._attempt + 1, 10)
        time.sleep(min(pause, left))

    def _foreign(self) -> Failure:
        return Failure(
            f"{self._url} answers, but not with a stream of events. Does --url end with the prefix of the API?",
            UNREACHABLE,
        )


def _as_json(cursor: str, frame: dict[str, Any]) -> None:
    terminal.say(terminal.json_text({**frame, "cursor": cursor}))


class _Page:
    """What a person sees: messages as they are written, deltas as they come, ends as they are recorded."""

    def __init__(self, *, resumed: bool) -> None:
        self._resumed = resumed
        self._begun = False
        self._kind: str | None = None
        self._tools: dict[str, str] = {}
        self._agents: dict[str, str] = {}
        self._speaks = ""

    def show(self, cursor: str, frame: dict[str, Any]) -> None:
        if frame.get("type") == "snapshot":
            self._snapshot(frame)
        elif (take := _SHOWN.get(str(frame.get("type")))) is not None:
            take(self, frame)
        self._begun = True

    def _snapshot(self, frame: Mapping[str, Any]) -> None:
        """The newest question and its answer; a whole history would bury what is going on."""
        if self._begun or self._resumed:
            terminal.note("(the log cannot be continued from there; this is how the session stands)")
        messages = frame.get("messages", [])
        session = frame.get("session", {})
        self._headline(f"session {session.get('id')}: {session.get('title') or '(no title)'}")
        if len(messages) > 2:
            terminal.say(f"({len(messages) - 2} earlier messages; `strandline show` has them)")
        for message in messages[-2:]:
            self._headline(str(message.get("role")))
            terminal.write(transcript.message_text(message.get("parts", ())))
        open_parts = [part for part in messages[-1].get("parts", ()) if part] if messages else []
        if session.get("activeRun") and open_parts and open_parts[-1].get("state") == "streaming":
            self._kind = str(open_parts[-1].get("type"))
        else:
            terminal.fresh_line()

    def _message(self, frame: Mapping[str, Any]) -> None:
        self._headline(f"{frame.get('role')}  {frame.get('by')}")
        terminal.say(transcript.message_text(frame.get("parts", ())))

    def _queued(self, frame: Mapping[str, Any]) -> None:
        run, agent = str(frame.get("run")), str(frame.get("agent"))
        self._agents[run] = agent
        self._speaks = run
        self._headline(f"assistant  {agent}  run {run}")

    def _turn_of(self, run: str) -> None:
        """Several agents may write at once: say whose words come next."""
        if self._speaks not in ("", run) and run in self._agents:
            self._headline(f"assistant  {self._agents[run]}  run {run} goes on")
        self._speaks = run

    def _appended(self, frame: Mapping[str, Any]) -> None:
        self._turn_of(str(frame.get("run")))
        for chunk in frame.get("chunks", ()):
            self._chunk(chunk, str(chunk.get("type")))

    def _chunk(self, chunk: Mapping[str, Any], kind: str) -> None:
        if kind in ("text-delta", "reasoning-delta"):
            self._delta(kind.removesuffix("-delta"), str(chunk.get("delta", "")))
        elif kind in ("text-start", "reasoning-start"):
            self._kind = None
        elif kind == "tool-input-available":
            name = self._tools[str(chunk.get("toolCallId"))] = str(chunk.get("toolName"))
            self._aside(transcript.call(name, "", chunk.get("input")))
        elif kind == "tool-output-available":
            self._aside(transcript.call(self._tool(chunk), "→ ", chunk.get("output")))
        elif kind in ("tool-output-error", "tool-input-error"):
            self._aside(transcript.call(self._tool(chunk), "failed: ", chunk.get("errorText")))
        elif kind in ("file", "reasoning-file", "source-url", "source-document", "custom") or kind.startswith("data-"):
            self._aside(transcript.bracketed(chunk))

    def _delta(self, kind: str, delta: str) -> None:
        if kind != self._kind:
            terminal.fresh_line()
            terminal.write(transcript.THINKING if kind == "reasoning" else "")
            self._kind = kind
        terminal.write(terminal.safe(delta))

    def _tool(self, chunk: Mapping[str, Any]) -> str:
        return self._tools.get(str(chunk.get("toolCallId")), str(chunk.get("toolCallId")))

    def _reset(self, frame: Mapping[str, Any]) -> None:
        self._aside("(the reply starts over)")

    def _ended(self, frame: Mapping[str, Any]) -> None:
        self._turn_of(str(frame.get("run")))
        self._aside(f"── {transcript.outcome(frame.get('status'), frame.get('reason'), frame.get('error'))}")

    def _changed(self, frame: Mapping[str, Any]) -> None:
        name = terminal.line(str(frame.get("message_id")))
        self._aside(_CHANGED[str(frame["type"])].format(name))

    def _aside(self, text: str) -> None:
        terminal.fresh_line()
        terminal.say(text)
        self._kind = None

    def _headline(self, text: str) -> None:
        terminal.fresh_line()
        if self._begun:
            terminal.say()
        terminal.say(f"── {terminal.line(text)}")
        self._kind = None
        self._begun = True


_CHANGED = {
    "branch-selected": "(another branch is shown, up to message {})",
    "message-replaced": "(message {} says something else now; `strandline show` has it)",
    "message-deleted": "(message {} was deleted)",
}

_SHOWN: dict[str, Callable[[_Page, Mapping[str, Any]], None]] = {
    "message-created": _Page._message,
    "run-queued": _Page._queued,
    "appended": _Page._appended,
    "message-reset": _Page._reset,
    "run-ended": _Page._ended,
    **dict.fromkeys(_CHANGED, _Page._changed),
}
