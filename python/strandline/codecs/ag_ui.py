"""The TanStack AI and AG-UI wire: events of the log as AG-UI events, framed as server-sent events.

Speaks AG-UI 1.0 (``@ag-ui/core@1.0.0``, ``ag-ui-protocol 1.0.0``) in the dialect of ``@tanstack/ai@0.58.0``
(``src/types.ts``): what the specification does not know travels in ``metadata.tanstack``. The parser of
``@tanstack/ai-client@0.33.2 src/connection-adapters.ts`` attaches an ``id:`` to the *next* ``data:`` line, so here the
id comes first, and every frame has its own.

What a chunk becomes depends on the chunks before it, so frames come from an ``Encoder`` that is given the events of one
run in order, from the first. It is a pure function of the log: the n-th frame of an event is the same wherever a reader
came in, which is what makes a cursor mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import orjson

from strandline.codecs.ag_ui_chunks import Events, Translator, recap
from strandline.codecs.ag_ui_names import call_id
from strandline.codecs.ai_sdk import LOST_TEXT
from strandline.core.decisions import APPROVAL
from strandline.core.events import (
    Annotated,
    AnnotationRemoved,
    Appended,
    DecisionMade,
    DecisionRequested,
    Event,
    MessageCreated,
    MessageReset,
    RunEnded,
    RunQueued,
)
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import DecisionRecord, MessageRecord, RunRecord
from strandline.core.run import Status

PROTOCOL_VERSION = "1.0"

WireId = Callable[[str], str]
"""The id that the wire knows a message version by: for ``parent``, which the log names by its version."""

CHANGED = "strandline.changed"
"""The name of the event after which a conversation has to be loaded again, unless it was loaded since."""

ANNOTATED = "strandline.annotated"
"""The name of the event that says what there is of one kind of annotations on a message."""

DECIDED = "decision-made"
"""The name of the event that says how something was decided."""

_USAGE = ("inputTokens", "outputTokens", "totalTokens", "reasoningTokens", "cachedInputTokens", "cacheWriteInputTokens")
_FINISH_REASONS = {"length": "length", "content-filter": "content_filter"}
"""``tool-calls`` is not among them: to the processor that is the end of a turn, not of a run, and it waits for more."""


def frame(data: Any, cursor: Cursor | None = None) -> bytes:
    """One event, the id first. orjson never emits a newline, so ``data`` is always one line."""
    if cursor is None:
        return b"data: %b\n\n" % orjson.dumps(data)
    return b"id: %b\ndata: %b\n\n" % (str(cursor).encode("ascii"), orjson.dumps(data))


def error_frame(code: str, text: str) -> bytes:
    """An error that is not in the log: it has no id (PROTOCOL §4.6)."""
    return frame({"type": "RUN_ERROR", "message": text, "code": code})


def told(thread: str, run: str, receipt: Mapping[str, str]) -> bytes:
    """The answer to a message that was told to an agent which is running (PROTOCOL §14.4): a run of no content, which
    is in no log. ``run`` is the id that the client gave the run it asked for."""
    about = {"threadId": thread, "runId": run}
    done = {"outcome": {"type": "success"}, "metadata": {"tanstack": {"finishReason": "stop"}}}
    events: Events = [
        {"type": "RUN_STARTED", **about, "protocolVersion": PROTOCOL_VERSION},
        {"type": "CUSTOM", "name": "strandline-steered", "value": receipt},
        {"type": "RUN_FINISHED", **about, **done},
    ]
    return b"".join(frame(event) for event in events)


RESYNC_FRAME = error_frame("resync", "This reply changed in a way that an open stream cannot show. Load it again.")


class Encoder:
    """The frames of one run of the session ``thread``. Give it every event of the run, in order, once.

    ``base``: what the message says that a continuation goes on with, and ``decided`` the ids of the tool calls of it
    that were decided. ``recap``: after the event that queues a continuation, and after one that ends open streams
    (``RESYNC_FRAME`` is its last frame), the events that say the whole message up to and including it; else None.
    """

    def __init__(
        self, thread: str, wire_id: WireId, base: FoldState | None = None, decided: Collection[str] = ()
    ) -> None:
        self._thread = thread
        self._wire_id = wire_id
        self._base = base
        self._decided = decided
        self._started: dict[str, Any] = {}
        self._translator = Translator("")
        self._asked: list[DecisionRequested] = []
        self.recap: Events | None = None

    def frames(self, epoch: str, seq: int, event: Event, known: tuple[bytes, ...] | None = None) -> tuple[bytes, ...]:
        """The frames of the next event. ``known``: the same, if another reader's encoder has made them already."""
        events, resync = self._events(event)
        if known is not None:
            return known
        made = [frame(each, Cursor(epoch, seq, number)) for number, each in enumerate(events, 1)]
        return (*made, RESYNC_FRAME) if resync else tuple(made)

    def _events(self, event: Event) -> tuple[Events, bool]:
        self.recap = None
        match event:
            case RunQueued():
                self._started = started(self._thread, event, self._wire_id)
                said = self._begin(event.message_id)
                if self._base is None:
                    return [self._started], False
                self.recap = [self._started, *said]
                wires = {self._translator.wire_call(tool_call) for tool_call in self._decided}
                results = [each for each in said if each["type"] == "TOOL_CALL_RESULT" and each["toolCallId"] in wires]
                return [self._started, *results], False
            case Appended(chunks=chunks):
                return self._appended(chunks)
            case MessageReset(message_id=message_id):
                self._translator = Translator(message_id)
                self._renew()
                return [], True
            case DecisionRequested():
                self._asked.append(event)
                return [], False
            case RunEnded():
                waiting = [interrupt(each, self._translator.wire_call(each.tool_call)) for each in self._asked]
                end = terminal(self._thread, event, waiting)
                return [*self._translator.finish(), end], False
            case _:
                return [], False

    def _begin(self, message_id: str) -> Events:
        """Whatever the message says before this run adds to it."""
        if self._base is None:
            self._translator = Translator(message_id)
            return []
        self._translator, said = recap(message_id, self._base)
        return said

    def _appended(self, chunks: tuple[Mapping[str, Any], ...]) -> tuple[Events, bool]:
        translator = self._translator
        events: Events = []
        for index, chunk in enumerate(chunks):
            more = translator.take(chunk)
            if more is None:
                # Whoever reads on after this event begins again, with all of it.
                for rest in chunks[index + 1 :]:
                    translator.fold.push(rest)
                self._renew()
                return events, True
            events += more
        return events, False

    def _renew(self) -> None:
        self._translator, said = self._translator.renewed()
        self.recap = [self._started, *said]


def started(thread: str, run: RunQueued | RunRecord, wire_id: WireId) -> dict[str, Any]:
    """The first event of every run: with the message that it answers and the one that it writes (PROTOCOL §11.10)."""
    event = {"type": "RUN_STARTED", "threadId": thread, "runId": run.run if isinstance(run, RunQueued) else run.id}
    if run.parent_run is not None:
        event["parentRunId"] = run.parent_run
    place = {"parent": _named(run.parent, wire_id), "message": run.message_id}
    return {**event, "protocolVersion": PROTOCOL_VERSION, "metadata": {"strandline": place}}


def message_frames(epoch: str, seq: int, event: MessageCreated, wire_id: WireId) -> tuple[bytes, ...]:
    """A whole message on the live thread (PROTOCOL §11.10): its text, and its parts where the text is not all of it."""
    place: dict[str, Any] = {"parent": _named(event.parent, wire_id)}
    texts = [str(part.get("text", "")) for part in event.parts if part["type"] == "text"]
    if len(texts) != 1 or len(event.parts) != 1 or event.metadata is not None:
        place["parts"] = event.parts
    start = {"type": "TEXT_MESSAGE_START", "messageId": event.message_id, "role": event.role}
    said: Events = [{**start, "metadata": {"strandline": place}}]
    if any(texts):
        said.append({"type": "TEXT_MESSAGE_CONTENT", "messageId": event.message_id, "delta": "".join(texts)})
    said.append({"type": "TEXT_MESSAGE_END", "messageId": event.message_id})
    return tuple(frame(each, Cursor(epoch, seq, number)) for number, each in enumerate(said, 1))


def changed_frames(epoch: str, seq: int) -> tuple[bytes, ...]:
    """What is told on the live thread when the conversation has changed otherwise than by going on (PROTOCOL §16.6)."""
    return (frame({"type": "CUSTOM", "name": CHANGED, "value": {"seq": seq}}, Cursor(epoch, seq, 1)),)


def annotation_frames(epoch: str, seq: int, event: Annotated | AnnotationRemoved) -> tuple[bytes, ...]:
    """What is told on the live thread of an annotation (PROTOCOL §19.5): the summary of its kind after it."""
    value = {"message": event.message_id, "type": event.kind, "summary": event.summary, "seq": seq}
    return (frame({"type": "CUSTOM", "name": ANNOTATED, "value": value}, Cursor(epoch, seq, 1)),)


def decision_frames(epoch: str, seq: int, event: DecisionMade) -> tuple[bytes, ...]:
    """A decision on the live thread (PROTOCOL §11.13), where it may be all that happens."""
    value = {"id": event.decision, "outcome": event.outcome, "runId": event.asked_by, "messageId": event.message_id}
    return (frame({"type": "CUSTOM", "name": DECIDED, "value": value}, Cursor(epoch, seq, 1)),)


def _named(version: str | None, wire_id: WireId) -> str | None:
    return None if version is None else wire_id(version)


def terminal(thread: str, end: RunEnded | RunRecord, interrupts: Events) -> dict[str, Any]:
    """The last event of a run (PROTOCOL §11.4); ``interrupts`` is what a suspended one waits for."""
    run = end.run if isinstance(end, RunEnded) else end.id
    usage = _usage(end.usage)
    ended = {"status": end.status.value, **({"reason": end.reason} if end.reason is not None else {})}
    more: dict[str, Any] = {} if usage is None else {"usage": [usage]}
    if end.status in (Status.FAILED, Status.LOST):
        lost = end.status is Status.LOST
        text = LOST_TEXT if lost else end.error or "The reply failed."
        error: dict[str, Any] = {
            "type": "RUN_ERROR",
            "message": text,
            "code": "lost" if lost else end.reason or "failed",
        }
        # The specification's RUN_ERROR does not say whose error it is; without this the processor ends every run.
        return {**error, **more, "metadata": {"tanstack": {"runId": run, "threadId": thread}, "strandline": ended}}
    finished = {"type": "RUN_FINISHED", "threadId": thread, "runId": run}
    reason = _FINISH_REASONS.get(end.finish_reason or "", "stop")
    match end.status:
        case Status.STOPPED:
            outcome: dict[str, Any] = {"type": "cancelled"}
        case Status.SUSPENDED:
            outcome = {"type": "interrupt", "interrupts": interrupts or [{"id": run, "reason": "suspended"}]}
        case _:
            outcome = {"type": "success"}
    metadata = {"tanstack": {"finishReason": reason}, "strandline": ended}
    return {**finished, "outcome": outcome, **more, "metadata": metadata}


def waiting(thread: str, run_id: str, interrupts: Events) -> bytes:
    """The whole answer to who has decided something while something else is pending: nothing has begun."""
    outcome = {"type": "interrupt", "interrupts": interrupts}
    finished = {"type": "RUN_FINISHED", "threadId": thread, "runId": run_id, "outcome": outcome}
    begun = {"type": "RUN_STARTED", "threadId": thread, "runId": run_id, "protocolVersion": PROTOCOL_VERSION}
    return frame(begun) + frame(finished)


def recapped(events: Events, cursor: Cursor | None) -> bytes:
    """Events of which only the last one carries an id (PROTOCOL §11.5)."""
    last = len(events) - 1
    return b"".join(frame(each, cursor if index == last else None) for index, each in enumerate(events))


def finished(
    thread: str, run: RunRecord, fold: FoldState, pending: Iterable[DecisionRecord], epoch: str, wire_id: WireId
) -> bytes:
    """An ended run whose events are no longer in the log, from what is stored: the whole message, then its end with
    what it still waits for."""
    translator, said = recap(run.message_id, fold)
    said += translator.finish()
    waiting = [interrupt(each, translator.wire_call(each.tool_call)) for each in pending]
    events = [started(thread, run, wire_id), *said, terminal(thread, run, waiting)]
    return recapped(events, Cursor(epoch, run.last_seq or run.first_seq, 1))


def _usage(recorded: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What AG-UI has a name for; it refuses counts that are not whole and positive."""
    found = {name: recorded[name] for name in _USAGE if _is_count(recorded.get(name))} if recorded is not None else {}
    return found or None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def interrupt(asked: DecisionRequested | DecisionRecord, wire_call: str) -> dict[str, Any]:
    """What a suspended run waits for, in the form that ``@tanstack/ai-client src/interrupt-manager.ts`` can resume
    without a binding (``isLegacyInterruptMetadata``)."""
    is_approval = asked.kind == APPROVAL
    expires = {} if asked.expires_at is None else {"expiresAt": asked.expires_at}
    return {
        "id": asked.decision if isinstance(asked, DecisionRequested) else asked.id,
        "reason": "approval_required" if is_approval else "client_tool_input",
        "toolCallId": wire_call,
        "metadata": {
            "kind": "approval" if is_approval else "client_tool",
            "toolName": asked.tool,
            "input": asked.input,
            **expires,
        },
    }


def pending_interrupts(message: MessageRecord, pending: Iterable[DecisionRecord]) -> Events:
    """The same for a message that is stored."""
    calls = [part.get("toolCallId") for part in message.parts or ()]
    return [
        interrupt(each, call_id(message.message_id, each.tool_call, max(1, calls.count(each.tool_call))))
        for each in pending
    ]
