"""What can be done with sessions: submit, stop, end, create, change, delete, history, import. Each is one decision
inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from strandline.codecs import native
from strandline.core import intake
from strandline.core.chunks import has_lone_surrogate
from strandline.core.events import MessageReset
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import AnnotationRecord, MessageRecord, RunRecord, SessionRecord
from strandline.core.replay import Plan
from strandline.core.run import Status
from strandline.core.unfold import revive
from strandline.errors import NotFound, Unprocessable
from strandline.runtime import annotating, managing, promises
from strandline.runtime.deciding import Decisions
from strandline.runtime.ending import Ending, end_events
from strandline.runtime.history import History, history
from strandline.runtime.live import Caller, Decided, LiveRun, LiveSession, SessionGone
from strandline.runtime.memory import stop_names
from strandline.runtime.registry import ALL_SEQS
from strandline.runtime.stopping import IDLE, REMEMBERED, named_run, stop_run
from strandline.runtime.submitting import May, no_such_session


class Sessions(Decisions):
    """The use cases. One per store."""

    kinds: annotating.Kinds

    async def _decide_in(self, session_id: str, may: May, decide: Callable[[LiveSession], Decided]) -> Any:
        """Have something decided in a session that exists. ``may`` is asked inside the decision. Raises NotFound."""

        def permitted(session: LiveSession) -> Decided:
            if not may(session.state.record):
                raise no_such_session()
            return decide(session)

        session = await self.find(session_id)
        if session is None:
            raise no_such_session()
        try:
            return await self.journal.decide(session, permitted)
        except SessionGone:
            raise no_such_session() from None

    # ------------------------------------------------------------------ stop and end

    async def stop(
        self,
        session_id: str,
        caller: Caller,
        may: May,
        *,
        run: str | None,
        message_id: str | None,
        key: str | None,
        reason: str,
    ) -> dict[str, Any]:
        """End a run (PROTOCOL §6.4); the answer is the body of the response."""
        self.tally.stops += 1
        began = self._clock.monotonic()
        names = (run, message_id, key)
        session = await self.find(session_id)
        if session is None or not may(session.state.record):
            return self._remember(session_id, caller, *names, reason)
        try:
            answer: dict[str, Any] = await self.journal.decide(
                session, lambda session: self._stop(session, caller, *names, reason)
            )
        except SessionGone:
            return self._remember(session_id, caller, *names, reason)
        if answer["stopped"]:
            self.tally.stop_seconds.add(self._clock.monotonic() - began)
        return answer

    def _stop(
        self,
        session: LiveSession,
        caller: Caller,
        run_id: str | None,
        message_id: str | None,
        key: str | None,
        reason: str,
    ) -> Decided:
        if run_id is None and message_id is None and key is None:
            active = session.state.active()
            if not active:
                return Decided((), lambda: IDLE)
            run: RunRecord | None = active[-1]
        else:
            run = named_run(session.state, run_id, message_id, key)
        if run is not None:
            return stop_run(session, run, caller.by, reason, self._clock.now())
        answer = self._remember(session.id, caller, run_id, message_id, key, reason)
        return Decided((), lambda: answer)

    def _remember(
        self, session_id: str, caller: Caller, run: str | None, message_id: str | None, key: str | None, reason: str
    ) -> dict[str, Any]:
        if run is not None or (message_id is None and key is None):
            raise NotFound("There is no such session or run.")
        names = stop_names(key, message_id)
        self._stops.remember(caller.user, session_id, names, reason, self._clock.monotonic())
        return REMEMBERED

    async def end(self, session: LiveSession, live: LiveRun, ending: Ending, by: str) -> RunRecord:
        """End a run: whoever is first decides how; the others get the recorded end.

        A run that ends by itself is ended after everything that it still has pending.
        """
        await asyncio.shield(self.enqueue_end(session, live, ending, by))
        return session.state.runs[live.id]

    def enqueue_end(self, session: LiveSession, live: LiveRun, ending: Ending, by: str) -> asyncio.Future[Any]:
        """Like ``end``, without waiting; it is carried out even if the store is failing just now."""

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending and ending.after_pending:
                return None
            events, contents = end_events(session, live, ending, by, self._clock.now())
            return Decided(events, lambda: None, contents)

        return self.journal.enqueue(session, decide)

    def reset(self, session: LiveSession, live: LiveRun, by: str, done: Callable[[], None]) -> asyncio.Future[None]:
        """Start a run's message over (R15): a logged event; what it said before no longer counts. ``done`` is called in
        the step that publishes it, whether or not anybody still waits."""
        message_id = session.state.runs[live.id].message_id

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending:
                return None
            event = MessageReset(self._clock.now(), by, live.id, live.message, message_id)
            return Decided((event,), done)

        return self.journal.enqueue(session, decide)

    # ------------------------------------------------------------------ the session as a whole

    async def create(
        self, session_id: str | None, title: str | None, caller: Caller, may: May
    ) -> tuple[LiveSession, bool]:
        """Create a session (PROTOCOL §8.2), or find it: True when it is new. Raises NotFound for a foreign one."""

        def decide(session: LiveSession) -> Decided:
            if not may(session.state.record if session.stored else None):
                raise no_such_session()
            if session.stored:
                return Decided((), lambda: False)
            return managing.create(session, caller.user, caller.by, title, self._clock.now())

        named = session_id if session_id is not None else self._clock.mint("session")
        return await self.decide_anew(named, caller.user, decide)

    async def change(self, session_id: str, changes: managing.Changes, caller: Caller, may: May) -> LiveSession:
        """Rename or archive a session (PROTOCOL §8.3). Raises NotFound."""
        session: LiveSession = await self._decide_in(
            session_id, may, lambda session: managing.change(session, changes, caller.by, self._clock.now())
        )
        return session

    async def delete(self, session_id: str, caller: Caller, may: May) -> None:
        """Delete a session and all that it holds (PROTOCOL §8.4). Raises NotFound."""
        await self._decide_in(session_id, may, lambda session: managing.delete(session, caller.by, self._clock.now()))

    # ------------------------------------------------------------------ annotations

    async def annotate(
        self, session_id: str, message_id: str, said: tuple[Any, Any, Any], named: str | None, by: str, may: May
    ) -> tuple[AnnotationRecord, Cursor]:
        """Add an annotation (PROTOCOL §19.2): ``said`` is its kind, data and range. Returns it, and the offset after
        it. Raises NotFound, Unprocessable, Conflict and TooMany."""
        added = annotating.Added(named or self._clock.mint("note"), message_id, *self.kinds.read(*said))

        def decide(session: LiveSession) -> Decided:
            decided = annotating.add(session, added, by, self._clock.now(), self._settings.max_annotations)
            return replace(decided, answer=lambda: (decided.answer(), session.feed.cursor(session.state.record.epoch)))

        found: tuple[AnnotationRecord, Cursor] = await self._decide_in(session_id, may, decide)
        return found

    async def unannotate(self, session_id: str, annotation_id: str, by: str, may: May, manages: May) -> None:
        """Take an annotation back (PROTOCOL §19.4). Raises NotFound and Forbidden."""
        await self._decide_in(
            session_id,
            may,
            lambda session: annotating.remove(
                session, annotation_id, by, self._clock.now(), manages=manages(session.state.record)
            ),
        )

    # ------------------------------------------------------------------ history and import

    async def history(self, session: LiveSession, user: str) -> History:
        """The finished messages of the active path, and what is being written (PROTOCOL §6.6), from one snapshot."""
        for run in session.state.active()[-1:]:
            self.owe(session, user, run.id)
        return await history(session, self.store)

    def resume(self, session: LiveSession, user: str, key: str | None) -> Plan:
        """What a resume without cursor is given (PROTOCOL §6.2, §6.6)."""
        return promises.resume(session, user, key, self._clock.monotonic(), self._settings.owed_for)

    def owe(self, session: LiveSession, user: str, run: str) -> None:
        """Promise a replay: to who was given a history without it, or was told to read it anew."""
        promises.owe(session, user, run, None, self._clock.monotonic() + self._settings.owed_for)

    async def context(self, session: LiveSession, run: RunRecord) -> list[MessageRecord]:
        """The path up to what the run answers, with content: what an agent is shown. To a continuation also the message
        that it goes on with, as it is now."""
        leaf = run.message if session.state.continues(run) else run.parent
        versions = [message.version for message in session.state.path(leaf)] if leaf is not None else []
        return await self.store.messages(session.id, versions)

    async def import_messages(
        self, session_id: str, owner: str, messages: Sequence[intake.Incoming], title: str | None
    ) -> SessionRecord:
        """Create a session from history that exists elsewhere (R33). Raises Conflict if it has messages already."""
        if len({message.id for message in messages}) < len(messages):
            raise Unprocessable("Two of the messages have the same id.", code="invalid-message")
        if has_lone_surrogate(owner + (title or "")):
            raise Unprocessable("The user or the title has half of a surrogate pair.", code="invalid-request")
        record: SessionRecord
        _, record = await self.decide_anew(
            session_id,
            owner,
            lambda session: managing.bring_in(session, owner, messages, title, self._clock.now(), self._clock.mint),
        )
        return record

    # ------------------------------------------------------------------ after a restart

    async def recover(self) -> int:
        """End every run that an earlier process left unfinished as ``lost``, with the words that it said."""
        lost = await self.store.unfinished()
        waiting = []
        for run in lost:
            session = await self.find(run.session)
            if session is None:
                continue
            live = await self._revive(session, run)
            waiting.append(self.enqueue_end(session, live, Ending(Status.LOST, "process-lost"), "server"))
        await asyncio.gather(*waiting)
        return len(lost)

    async def _revive(self, session: LiveSession, run: RunRecord) -> LiveRun:
        epoch = session.state.record.epoch
        base = await self._base(session, run)
        place = Cursor(epoch, run.first_seq, 0)
        live = LiveRun(run.id, run.message, run.message_id, Caller("server"), place, base)
        session.live[run.id] = live
        for seq, line in await self.store.events(session.id, run.first_seq, ALL_SEQS, run.id):
            live.replay(seq, native.decode(line))
        return live

    async def _base(self, session: LiveSession, run: RunRecord) -> FoldState | None:
        """What the message said when a continuation began: the row of a message that is being written is left alone."""
        if not session.state.continues(run):
            return None
        stored = await self.store.messages(session.id, [run.message])
        return revive(run.message_id, stored[0].parts or (), stored[0].metadata) if stored else None
