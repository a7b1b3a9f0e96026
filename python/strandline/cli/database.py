"""``sessions``, ``show`` and ``new-epoch``: a database file, without a server or beside one that runs."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from strandline.cli import terminal, transcript
from strandline.cli.exits import NEGATIVE, OK, REFUSED, Failure
from strandline.codecs.native import decode
from strandline.core.events import Appended, MessageReset
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import MessageRecord, RunRecord, SessionRecord
from strandline.core.session import SessionState
from strandline.stores.inspect import Inspector, renew_epochs

_TRIES = 20


def sessions(args: Namespace) -> int:
    """``strandline sessions``: what is in the file, newest first."""
    with Inspector(args.db) as inspector:
        found = [_listed(inspector, record) for record in inspector.sessions(args.limit)]
    if args.json:
        terminal.say(terminal.json_text({"sessions": found}, pretty=True))
    elif not found:
        terminal.say(f"No sessions in {terminal.line(str(args.db))} yet.")
    else:
        head = ("ID", "TITLE", "OWNER", "UPDATED", "MESSAGES", "ACTIVE RUN", "ARCHIVED")
        rows = [
            (
                each["id"],
                each["title"] or "-",
                each["owner"],
                terminal.when(each["updatedAt"]),
                str(each["messages"]),
                each["activeRun"] or "-",
                "yes" if each["archived"] else "-",
            )
            for each in found
        ]
        terminal.say(terminal.table(head, rows, give=1))
    return OK


def show(args: Namespace) -> int:
    """``strandline show``: one session as it stands, what is being written included."""
    with Inspector(args.db) as inspector:
        picture = _picture(inspector, args.session)
    if picture is None:
        raise Failure(
            f"There is no session {terminal.line(args.session)!r} in {args.db}."
            f" `strandline sessions --db {args.db}` lists what there is.",
            NEGATIVE,
        )
    if args.events:
        _say_events(picture, as_json=args.json)
    elif args.json:
        terminal.say(terminal.json_text(_plain(picture), pretty=True))
    else:
        _say_session(picture)
    return OK


def new_epoch(args: Namespace) -> int:
    """``strandline new-epoch``: after a backup was restored."""
    count = renew_epochs(args.db)
    if args.json:
        terminal.say(terminal.json_text({"sessions": count}))
    else:
        terminal.say(
            f"{count} session{'' if count == 1 else 's'} in {terminal.line(str(args.db))}: every position that a client"
            " holds from before is stale now, and clients fetch their conversation anew."
        )
    return OK


@dataclass(frozen=True, slots=True)
class _Picture:
    """A session at one moment. ``contents``: what the messages of active runs say so far, by version."""

    session: SessionRecord
    path: Sequence[MessageRecord]
    versions: int
    runs: Sequence[RunRecord]
    events: Sequence[tuple[int, bytes]]
    contents: dict[str, FoldState]

    @property
    def cursor(self) -> str:
        """The position at the end of the log."""
        if self.events:
            seq, line = self.events[-1]
            return self.cursor_of(seq, orjson.loads(line))
        return str(Cursor(self.session.epoch, max(self.session.last_seq, 1), 1))

    def cursor_of(self, seq: int, plain: Mapping[str, Any]) -> str:
        """The position after an event: behind the last of its chunks (PROTOCOL §3.3)."""
        return str(Cursor(self.session.epoch, seq, len(plain.get("chunks", ())) or 1))

    def parts(self, message: MessageRecord) -> Sequence[Any]:
        fold = self.contents.get(message.version)
        return fold.parts() if fold is not None else message.parts or ()

    def metadata(self, message: MessageRecord) -> Any:
        fold = self.contents.get(message.version)
        return fold.metadata if fold is not None else message.metadata


def _picture(inspector: Inspector, session_id: str) -> _Picture | None:
    """The rows and the log are read one after the other beside a running server. Whatever changes a row changes the
    session's row, so they belong together when that has stayed the same; the log may only have grown."""
    for _ in range(_TRIES):
        session = inspector.session(session_id)
        runs = inspector.runs(session_id)
        messages = inspector.messages(session_id)
        events = inspector.events(session_id)
        if inspector.session(session_id) == session:
            break
    if session is None:
        return None
    state = SessionState(session, messages, runs)
    contents = {run.message: _written(events, run) for run in runs if run.active}
    versions = sum(not message.deleted for message in messages)
    return _Picture(session, state.path(), versions, runs, events, contents)


def _written(events: Sequence[tuple[int, bytes]], run: RunRecord) -> FoldState:
    """What an active run has written: its committed chunks since it last started over."""
    fold = FoldState(run.message_id)
    for seq, line in events:
        if seq < run.first_seq:
            continue
        try:
            event = decode(line)
            if isinstance(event, Appended) and event.run == run.id:
                for chunk in event.chunks:
                    fold.push(chunk)
            elif isinstance(event, MessageReset) and event.run == run.id:
                fold = FoldState(run.message_id)
        except (ValueError, KeyError, TypeError) as error:
            raise Failure(
                f"Event {seq} of session {run.session} cannot be read ({error}). `show --events` shows the raw log.",
                REFUSED,
            ) from error
    return fold


def _listed(inspector: Inspector, record: SessionRecord) -> dict[str, Any]:
    runs, messages = inspector.runs(record.id), inspector.messages(record.id)
    current = inspector.session(record.id) or record
    # The leaf may be newer than the messages that were read: then the count is that of a moment ago.
    leaf = current if any(each.version == current.leaf for each in messages) else record
    return {**_session(record, runs), "messages": len(SessionState(leaf, messages).path())}


def _session(record: SessionRecord, runs: Sequence[RunRecord]) -> dict[str, Any]:
    active = [run.id for run in runs if run.active]
    return {
        "id": record.id,
        "title": record.title,
        "owner": record.owner,
        "archived": record.archived,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "activeRun": active[-1] if active else None,
    }


def _plain(picture: _Picture) -> dict[str, Any]:
    return {
        "session": _session(picture.session, picture.runs),
        "cursor": picture.cursor,
        "messages": [
            {
                "id": message.message_id,
                "version": message.version,
                "role": message.role,
                "author": message.author,
                "createdAt": message.created_at,
                "run": message.run,
                "parts": list(picture.parts(message)),
                "metadata": picture.metadata(message),
            }
            for message in picture.path
        ],
        "runs": [
            {
                "id": run.id,
                "messageId": run.message_id,
                "version": run.message,
                "agent": run.agent,
                "author": run.author,
                "status": run.status.value,
                "reason": run.reason,
                "error": run.error,
                "finishReason": run.finish_reason,
                "usage": run.usage,
                "createdAt": run.created_at,
                "endedAt": run.ended_at,
            }
            for run in picture.runs
        ],
    }


def _say_session(picture: _Picture) -> None:
    session = picture.session
    runs = {run.id: run for run in picture.runs}
    terminal.say(f"{terminal.line(session.id)}  {terminal.line(session.title or '(no title)')}")
    terminal.say(
        f"owner {terminal.line(session.owner)}, created {terminal.when(session.created_at)},"
        f" updated {terminal.when(session.updated_at)}{', archived' if session.archived else ''}"
    )
    for message in picture.path:
        run = runs.get(message.run) if message.run is not None else None
        ended = "" if run is None else f"  run {run.id} {transcript.outcome(run.status, run.reason, run.error)}"
        terminal.say(
            "\n" + terminal.line(f"{message.role}  {message.author}  {terminal.when(message.created_at)}{ended}")
        )
        text = transcript.message_text(picture.parts(message)) or "(nothing)"
        terminal.say(terminal.indented(f"{text.rstrip()} …" if run is not None and run.active else text))
    hidden = picture.versions - len(picture.path)
    if hidden:
        terminal.say(
            f"\n{hidden} more message version{'' if hidden == 1 else 's'} on other branches (regenerated, edited)"
        )
    counts = Counter(run.status.value for run in picture.runs)
    ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none"
    terminal.say(f"\nruns: {ended}; cursor {picture.cursor}")


def _say_events(picture: _Picture, *, as_json: bool) -> None:
    for seq, line in picture.events:
        plain = orjson.loads(line)
        cursor = picture.cursor_of(seq, plain)
        if as_json:
            terminal.say(terminal.json_text({"cursor": cursor, "seq": seq, **plain}))
        else:
            terminal.say(transcript.event_line(cursor, plain))
    if not picture.events and not as_json:
        terminal.say("The log of this session is no longer retained; `show` without --events has the messages.")
