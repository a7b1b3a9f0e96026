"""The AI SDK wire: events as UIMessageChunk frames.

Speaks ai@5.0.277, ai@6.0.326 and ai@7.0.173 (``src/ui-message-stream/ui-message-chunks.ts``). Which chunk a client of
which major version may see is decided by ``gating.py`` alone. Frame numbers do not depend on the version: a chunk that
is dropped for a client still counts, as an empty frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from strandline.codecs.gating import RESYNC, exceptions, gate
from strandline.codecs.sse import DONE, frame
from strandline.core.events import Appended, Erased, Event, MessageReset, RunEnded, RunStarted
from strandline.core.offset import Cursor, written
from strandline.core.records import RunRecord
from strandline.core.run import Status

HEADERS = {"X-Vercel-AI-UI-Message-Stream": "v1"}

LOST_TEXT = "The server stopped before this reply was finished. What it said so far is kept."


def error_frame(code: str, text: str) -> bytes:
    """An error that is not in the log: it has no id (PROTOCOL §4.6)."""
    return frame({"type": "error", "errorText": text, "code": code})


def told_frame(receipt: Mapping[str, str]) -> bytes:
    """The answer to a message that was told to an agent which is running (PROTOCOL §14.4). It is in no log and no
    message: what clients of ai do not know they leave alone."""
    return frame({"type": "data-strandline", "data": {"steered": receipt}, "transient": True})


RESYNC_FRAME = error_frame("resync", "This reply changed in a way that an open stream cannot show. Load it again.")


def terminal_chunk(status: Status, reason: str | None, error: str | None, finish_reason: str | None) -> dict[str, Any]:
    """The chunk that ends a stream (PROTOCOL §9)."""
    match status:
        case Status.COMPLETED:
            return {"type": "finish", "finishReason": finish_reason or "stop"}
        case Status.SUSPENDED:
            return {"type": "finish", "finishReason": "tool-calls"}
        case Status.STOPPED:
            return {"type": "abort", "reason": reason or "stopped"}
        case Status.LOST:
            return {"type": "error", "errorText": LOST_TEXT, "code": "lost"}
        case _:
            return {"type": "error", "errorText": error or "The reply failed.", "code": reason or "failed"}


def frames(major: int, epoch: str, seq: int, event: Event) -> tuple[bytes, ...]:
    """The frames of an event for one major version. An empty frame is a chunk that this version does not see;
    ``RESYNC_FRAME`` is one that it cannot be told, after which the stream ends."""
    match event:
        case Appended(chunks=chunks):
            return _numbered(major, epoch, seq, chunks)
        case RunStarted(message_id=message_id):
            return _numbered(major, epoch, seq, ({"type": "start", "messageId": message_id},))
        case RunEnded():
            chunk = terminal_chunk(event.status, event.reason, event.error, event.finish_reason)
            return _numbered(major, epoch, seq, (chunk,))
        case MessageReset() | Erased():
            return (RESYNC_FRAME,)
        case _:
            return ()


def _numbered(major: int, epoch: str, seq: int, chunks: Sequence[Mapping[str, Any]]) -> tuple[bytes, ...]:
    found = []
    rules = exceptions(major)
    for index, chunk in enumerate(chunks, 1):
        rule = rules.get(chunk["type"])
        gated = chunk if rule is None else rule(chunk)
        if gated is RESYNC:
            found.append(RESYNC_FRAME)
        elif gated is None:
            found.append(b"")
        else:
            found.append(frame(gated, written(epoch, seq, index)))
    return tuple(found)


def snapshot(major: int, chunks: Iterable[Mapping[str, Any]], cursor: Cursor | None) -> bytes:
    """A folded message as frames of which only the last carries an id (PROTOCOL §3.6); without ``cursor`` none does."""
    gated = [chunk for chunk in (gate(each, major) for each in chunks) if chunk is not None and chunk is not RESYNC]
    last = len(gated) - 1
    return b"".join(
        frame(chunk, str(cursor) if cursor is not None and index == last else None) for index, chunk in enumerate(gated)
    )


def waiting(message_id: str, pending: Sequence[str]) -> bytes:
    """The whole answer to who has decided something while something else is pending, or has posted a reply of which
    nothing is (PROTOCOL §15.5): it is not in the log, so it has no ids."""
    told = {"type": "data-strandline", "data": {"pending": list(pending)}, "transient": True}
    # A chat whose last step has nothing but answered tools would post it again, for ever. `start` makes it take note.
    settled = b"" if pending else frame({"type": "start-step"})
    return settled + frame({"type": "start", "messageId": message_id}) + frame(told) + DONE


def terminal_of(major: int, run: RunRecord, epoch: str) -> bytes:
    """The terminal frame of an ended run, from its record."""
    chunk = terminal_chunk(run.status, run.reason, run.error, run.finish_reason)
    gated = gate(chunk, major)
    return frame(gated if isinstance(gated, Mapping) else chunk, str(Cursor(epoch, run.last_seq or 1, 1)))
