"""What people do with sessions: tell an agent something, create, change, delete, read, annotate, import. Each is one
decision inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from strandline.core import intake
from strandline.core.chunks import has_lone_surrogate
from strandline.core.offset import Cursor
from strandline.core.policy import Policy
from strandline.core.records import AnnotationRecord, MessageRecord, ReceiptRecord, RunRecord, SessionRecord
from strandline.core.replay import Plan
from strandline.core.run import Status
from strandline.errors import Conflict, NotFound, ShuttingDown, Unprocessable
from strandline.runtime import annotating, editing, managing, promises, spawning, speaking
from strandline.runtime.contents import Contents
from strandline.runtime.history import History, history
from strandline.runtime.live import Decided, LiveSession, SessionGone
from strandline.runtime.live_run import Caller
from strandline.runtime.runs import Runs
from strandline.runtime.steering import tell, told_already
from strandline.runtime.submitting import May, no_such_session


class _Changed(Exception):
    """What a decision is about has changed since it was looked at."""


class Sessions(Runs):
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

    # ------------------------------------------------------------------ steering

    async def steer(
        self, session_id: str, message: intake.Incoming, run_id: str | None, caller: Caller, may: May, key: str | None
    ) -> tuple[LiveSession, ReceiptRecord]:
        """Tell a running agent something (PROTOCOL §14.3): the named run, else the newest that is running."""

        def decide(session: LiveSession) -> Decided:
            state = session.state
            receipt = told_already(session, message.id, message.parts)
            if receipt is not None:
                return Decided((), lambda: (session, receipt))
            if state.find(message.id) is not None:
                raise Conflict(
                    f"A message with the id {message.id!r} is already part of this session.", code="message-exists"
                )
            if run_id is not None and run_id not in state.runs:
                raise NotFound("There is no such session or run.")
            run = state.running() if run_id is None else state.runs[run_id]
            if run is None or run.status is not Status.RUNNING:
                raise Conflict("No agent is running that could be told; send a message instead.", code="not-running")
            told = tell(session, run, message, caller, key, self._clock.now(), self._settings)
            return replace(told, answer=lambda: (session, told.answer()))

        found: tuple[LiveSession, ReceiptRecord] = await self._decide_in(session_id, may, decide)
        return found

    # ------------------------------------------------------------------ what nobody asked for

    async def speak(self, session_id: str, wanted: speaking.Unasked, may: May) -> tuple[LiveSession, str]:
        """Start a run that nobody asked for, or let it wait for its turn (PROTOCOL §18.7): its session, and the run.
        Raises NotFound, Unprocessable, Conflict, TooMany."""

        def decide(session: LiveSession, stored: Contents) -> Decided:
            state = session.state
            known = speaking.known(state, wanted)
            if known is not None:
                return Decided((), lambda: (session, known))
            if not self.accepting:
                raise ShuttingDown("The server is shutting down; ask again in a moment.")
            policy = Policy(wanted.submit or state.record.submit or self._settings.submit)
            parent, admitted = speaking.room(state, wanted, policy)
            self._check_room(session, admitted)
            body = self.kept(wanted.agent, wanted.caller, waits=admitted.waits)
            at, mint = self._clock.now(), self._clock.mint
            return self.placed(speaking.speak(session, stored, wanted, parent, body, at, mint, waits=admitted.waits))

        begun: tuple[LiveSession, str] = await self._decided(session_id, decide, may)
        return begun

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

    # ------------------------------------------------------------------ messages that are there

    async def select_branch(
        self, session_id: str, message: str, index: int | None, caller: Caller, may: May
    ) -> tuple[str | None, str]:
        """Show the branch of a message, or of one of its siblings (PROTOCOL §16.2); answers with the version that the
        path ends at, and the cursor. Raises NotFound, and Conflict where there is no such branch."""
        answer: tuple[str | None, str] = await self._decide_in(
            session_id,
            may,
            lambda session: editing.select_branch(session, message, index, caller.by, self._clock.now()),
        )
        return answer

    async def replace_message(
        self,
        session_id: str,
        message: str,
        new: Callable[[str], intake.Incoming],
        by: str,
        may: May,
        moderates: May,
        *,
        any_role: bool,
    ) -> str:
        """Let a message say something else (PROTOCOL §16.4); answers with its id. ``new`` makes of its id what it is to
        say. Raises NotFound, Forbidden and Conflict."""

        def decide(session: LiveSession, target: MessageRecord | None, known: MessageRecord | None) -> Decided:
            if target is None:
                raise editing.no_such_message()
            editing.check_author(session, target, by, moderates)
            to_say = new(target.message_id)
            return editing.replace(session, target, known, to_say, by, self._clock.now(), any_role=any_role)

        answer: str = await self._decide_on(session_id, message, may, decide)
        return answer

    async def delete_message(self, session_id: str, message: str, by: str, may: May, moderates: May) -> None:
        """Delete a message and what it said (PROTOCOL §16.5); one that is deleted stays so. Raises NotFound and
        Forbidden."""

        def decide(session: LiveSession, target: MessageRecord | None, known: MessageRecord | None) -> Decided:
            if target is not None:
                editing.check_author(session, target, by, moderates)
                return editing.delete(session, target, known, by, self._clock.now(), self._clock.mint)
            if not editing.was_deleted(session.state, message):
                raise editing.no_such_message()
            return Decided((), lambda: None)

        await self._decide_on(session_id, message, may, decide)

    async def _decide_on(
        self,
        session_id: str,
        message: str,
        may: May,
        decide: Callable[[LiveSession, MessageRecord | None, MessageRecord | None], Decided],
    ) -> Any:
        """Have something decided about a message, which is given as the outline and as the store have it."""
        while True:
            session = await self.find(session_id)
            target = editing.named(session.state, message) if session is not None else None
            stored = await self.store.messages(session_id, [target.version]) if target is not None else []

            def same(
                session: LiveSession,
                target: MessageRecord | None = target,
                known: MessageRecord | None = stored[0] if stored else None,
            ) -> Decided:
                # A record is replaced whenever its content changes.
                if editing.named(session.state, message) is not target:
                    raise _Changed
                return decide(session, target, known)

            try:
                return await self._decide_in(session_id, may, same)
            except _Changed:
                continue

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
        current = session.state.current()
        if current is not None:
            self.owe(session, user, current.id)
        return await history(session, self.store)

    def resume(self, session: LiveSession, user: str, key: str | None) -> Plan:
        """What a resume without cursor is given (PROTOCOL §6.2, §6.6)."""
        return promises.resume(session, user, key, self._clock.monotonic(), self._settings.owed_for)

    def owe(self, session: LiveSession, user: str, run: str) -> None:
        """Promise a replay: to who was given a history without it, or was told to read it anew."""
        promises.owe(session, user, run, None, self._clock.monotonic() + self._settings.owed_for)

    async def context(self, session: LiveSession, run: RunRecord) -> list[MessageRecord]:
        """The path up to what the run answers, with content: what an agent is shown. To a continuation also the message
        that it goes on with, as it is now. What others are writing just now is left out: it is not said yet. A spawned
        run has been asked something else."""
        if run.spawned:
            return await spawning.context(session, self.store, run, self.context)
        state = session.state
        leaf = run.message if state.continues(run) else run.parent
        writing = {each.message for each in state.active() if each.message != run.message}
        path = state.path(leaf) if leaf is not None else []
        versions = [each.version for each in path if each.version not in writing]
        # One may have been deleted since the path was looked at.
        return [message for message in await self.store.messages(session.id, versions) if not message.deleted]

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
