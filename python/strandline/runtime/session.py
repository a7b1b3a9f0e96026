"""What can be done with sessions: submit, stop, end, create, change, delete, history, import. Each is one decision
inside the writer.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from strandline.codecs import native
from strandline.core import intake
from strandline.core.chunks import has_lone_surrogate
from strandline.core.events import Checkpointed, Chunk, Steered
from strandline.core.message import FoldState
from strandline.core.offset import Cursor
from strandline.core.records import AnnotationRecord, MessageRecord, RunRecord, SessionRecord
from strandline.core.replay import Plan
from strandline.core.run import Status
from strandline.core.unfold import revive
from strandline.errors import Conflict, NotFound, RunOver, ShuttingDown, Unprocessable
from strandline.runtime import annotating, editing, managing, promises, speaking
from strandline.runtime.deciding import Decisions
from strandline.runtime.ending import Ending, end_events
from strandline.runtime.history import History, history
from strandline.runtime.live import Caller, Decided, LiveRun, LiveSession, Receipt, SessionGone
from strandline.runtime.memory import stop_names
from strandline.runtime.recovering import recover_events, reset_events
from strandline.runtime.registry import ALL_SEQS
from strandline.runtime.spawning import spawn_events
from strandline.runtime.steering import answered, tell, told_already
from strandline.runtime.stopping import (
    IDLE,
    REMEMBERED,
    named_run,
    stop_all,
    stop_run,
    unnamed_run,
    with_spawned,
)
from strandline.runtime.submitting import May, no_such_session


class _Changed(Exception):
    """What a decision is about has changed since it was looked at."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of the runs that an earlier process left unfinished."""

    lost: int
    again: int


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
        agent: str | None = None,
        every: bool = False,
    ) -> dict[str, Any]:
        """End a run, those of an agent, or every one (PROTOCOL §6.4); the answer is the body of the response."""
        self.tally.stops += 1
        began = self._clock.monotonic()
        names = (run, message_id, key)
        session = await self.find(session_id)
        if session is None or not may(session.state.record):
            return self._remember(session_id, caller, *names, reason)

        def decide(session: LiveSession) -> Decided:
            if every or agent is not None:
                return stop_all(session, agent, caller.by, reason, self._clock.now(), self._clock.mint)
            return self._stop(session, caller, *names, reason)

        try:
            answer: dict[str, Any] = await self.journal.decide(session, decide)
        except SessionGone:
            return self._remember(session_id, caller, *names, reason)
        if answer.get("stopped") or answer.get("runs"):
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
            run = unnamed_run(session.state)
            if run is None:
                return Decided((), lambda: IDLE)
        else:
            run = named_run(session.state, run_id, message_id, key)
        if run is not None:
            return stop_run(session, run, caller.by, reason, self._clock.now(), self._clock.mint)
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
            at = self._clock.now()
            ends = end_events(session, live, ending, by, at)
            events, contents = with_spawned(session, live.id, ending.status, ends, at)
            left = answered(session, live, ending.status, at, self._clock.mint)
            return Decided((*events, *left.events), lambda: None, contents, left.caller)

        return self.journal.enqueue(session, decide)

    # ------------------------------------------------------------------ steering

    async def steer(
        self, session_id: str, message: intake.Incoming, run_id: str | None, caller: Caller, may: May, key: str | None
    ) -> tuple[LiveSession, Receipt]:
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
            told = tell(session, run, message, caller, key, self._clock.now(), self._settings.chunk_limit)
            return replace(told, answer=lambda: (session, told.answer()))

        found: tuple[LiveSession, Receipt] = await self._decide_in(session_id, may, decide)
        return found

    # ------------------------------------------------------------------ what a run does with its message as a whole

    def reset(
        self, session: LiveSession, live: LiveRun, by: str, chunks: tuple[Chunk, ...], done: Callable[[], None]
    ) -> asyncio.Future[None]:
        """Let a run's message say ``chunks`` and nothing else (R15): what it said before no longer counts. ``done`` is
        called in the step that publishes it, whether or not anybody still waits."""
        message_id = session.state.runs[live.id].message_id

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                return Decided((), lambda: None)
            if live.pending:
                return None
            return Decided(reset_events(live, message_id, by, chunks, self._clock.now()), done)

        return self.journal.enqueue(session, decide)

    def checkpoint(self, session: LiveSession, live: LiveRun, name: str | None) -> asyncio.Future[str]:
        """Settle what a run has said; the answer is the cursor of that. Raises RunOver."""

        def decide(session: LiveSession) -> Decided | None:
            if live.over:
                raise RunOver(f"The run {live.id} has ended.")
            if live.pending:
                return None
            place = Cursor(session.state.record.epoch, session.state.last_seq + 1, 1)
            return Decided((Checkpointed(self._clock.now(), live.id, live.message, name),), lambda: str(place))

        return self.journal.enqueue(session, decide)

    async def spawn(
        self, session: LiveSession, live: LiveRun, agent: str, body: Mapping[str, Any], begun: Callable[[str], None]
    ) -> LiveRun:
        """Start another agent beside a run (PROTOCOL §17.6); ``begun`` is told its id before it is called. Raises
        RunOver and TooMany."""
        run_id, message = self._clock.mint("run"), self._clock.mint("msg")

        def decide(session: LiveSession) -> Decided:
            self.admit_run()
            caller = replace(live.caller, body=body)
            events = spawn_events(session, live, agent, run_id, message, self._clock.now())

            def answer() -> LiveRun:
                begun(run_id)
                return session.live[run_id]

            return Decided(events, answer, caller=caller)

        spawned: LiveRun = await self.journal.decide(session, decide)
        return spawned

    async def stop_spawned(self, session: LiveSession, run_id: str, by: str) -> None:
        """The run that has spawned it wants it to end."""
        await self.journal.decide(
            session,
            lambda session: stop_run(
                session, session.state.runs[run_id], by, "parent", self._clock.now(), self._clock.mint
            ),
        )

    # ------------------------------------------------------------------ what nobody asked for

    async def speak(
        self, session_id: str, agent: str, may: May, *, holder: str, claim: str, answers: str | None
    ) -> tuple[LiveSession, str]:
        """Start a run of a remote agent that was not asked (PROTOCOL §18.7): its session, and the run, which is claimed
        already. The same ``claim`` again is the same run. Raises NotFound, Unprocessable, Conflict, TooMany."""

        def decide(session: LiveSession) -> Decided:
            known = session.state.keyed(claim)
            if known is None and not self.accepting:
                raise ShuttingDown("The server is shutting down; ask again in a moment.")
            if known is None:
                self.admit_run()
            return speaking.speak(session, agent, holder, claim, answers, self._clock.now(), self._clock.mint)

        run: tuple[LiveSession, str] = await self._decide_in(session_id, may, decide)
        return run

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
        self, session_id: str, message: str, new: Callable[[str], intake.Incoming], by: str, may: May, *, any_role: bool
    ) -> str:
        """Let a message say something else (PROTOCOL §16.4); answers with its id. ``new`` makes of its id what it is to
        say. Raises NotFound, Forbidden and Conflict."""

        def decide(session: LiveSession, target: MessageRecord | None, known: MessageRecord | None) -> Decided:
            if target is None:
                raise editing.no_such_message()
            to_say = new(target.message_id)
            return editing.replace(session, target, known, to_say, by, self._clock.now(), any_role=any_role)

        answer: str = await self._decide_on(session_id, message, may, decide)
        return answer

    async def delete_message(self, session_id: str, message: str, by: str, may: May) -> None:
        """Delete a message and what it said (PROTOCOL §16.5); one that is deleted stays so. Raises NotFound."""

        def decide(session: LiveSession, target: MessageRecord | None, known: MessageRecord | None) -> Decided:
            if target is not None:
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
        that it goes on with, as it is now. What others are writing just now is left out: it is not said yet."""
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

    # ------------------------------------------------------------------ after a restart

    async def recover(self) -> Recovered:
        """Have the agents that can be recovered called again, for what an earlier process left unfinished; those that
        live elsewhere go on, and those that had not begun keep their place in the queue until ``begin``; what else it
        left ends as ``lost``, with the words that it said."""
        waiting: list[asyncio.Future[Any]] = []
        lost: list[tuple[LiveSession, LiveRun]] = []
        again: list[tuple[LiveSession, LiveRun, RunRecord]] = []
        for run in await self.store.unfinished():
            session = await self.find(run.session)
            if session is None:
                continue
            live = session.live[run.id] = await self._replayed(session, run, ALL_SEQS)
            if run.status is Status.QUEUED or self.elsewhere(run.agent):
                continue
            if self.can_recover(run) and not live.broken:
                again.append((session, live, run))
            else:
                lost.append((session, live))
        # What was spawned first: it is as lost as the run beside which it was written.
        for session, live in reversed(lost):
            waiting.append(self.enqueue_end(session, live, Ending(Status.LOST, "process-lost"), "server"))
        for session, live, run in again:
            waiting.append(await self._call_again(session, live, run))
        await asyncio.gather(*waiting)
        return Recovered(len(lost), len(again))

    def can_recover(self, run: RunRecord) -> bool:
        """True when another process can carry on an unfinished run."""
        may = run.status is Status.RUNNING and run.attempt < self._settings.max_attempts
        return may and not run.spawned and self.recovery(run.agent) is not None

    async def _call_again(self, session: LiveSession, live: LiveRun, run: RunRecord) -> asyncio.Future[Any]:
        """Publishing that the run was recovered starts it (``Runner.published``)."""
        settled: FoldState | None = None
        if live.checkpoints.seq is not None:
            settled = (await self._replayed(session, run, live.checkpoints.seq)).fold
        recovery = self.recovery(run.agent)

        def decide(session: LiveSession) -> Decided:
            return Decided(recover_events(live, run, recovery, settled, self._clock.now()), lambda: None)

        return self.journal.enqueue(session, decide)

    async def _replayed(self, session: LiveSession, run: RunRecord, upto: int) -> LiveRun:
        """A run as its events up to number ``upto`` leave it."""
        place = Cursor(session.state.record.epoch, run.first_seq, 0)
        caller = Caller(run.author.removeprefix("user:"), body=run.body or {})
        base = await self._base(session, run)
        live = LiveRun(run.id, run.message, run.message_id, caller, place, base)
        for seq, line in await self.store.events(session.id, run.first_seq, upto, run.id):
            event = native.decode(line)
            live.replay(seq, event)
            if isinstance(event, Steered):
                session.keep_receipt(Receipt(event.run, event.message_id, event.parts, seq))
        return live

    async def _base(self, session: LiveSession, run: RunRecord) -> FoldState | None:
        """What the message said when a continuation began: the row of a message that is being written is left alone."""
        if not session.state.continues(run):
            return None
        stored = await self.store.messages(session.id, [run.message])
        return revive(run.message_id, stored[0].parts or (), stored[0].metadata) if stored else None
