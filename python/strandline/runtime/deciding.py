"""Deciding: what becomes of an answer to a decision, and of decisions that nobody takes (PROTOCOL §15). Each is one
decision inside the writer; whoever is first decides, the others are told what was decided.

Knows nothing of HTTP: who may do what is passed in as a yes-or-no question that is asked again inside the decision.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from strandline.codecs import native
from strandline.core import decisions, intake
from strandline.core.chunks import ChunkInvalid
from strandline.core.decisions import Answer, Copy
from strandline.core.events import DecisionMade, Event, RunQueued, RunStarted
from strandline.core.message import FoldState
from strandline.core.records import DecisionRecord, RunRecord
from strandline.core.run import Status
from strandline.core.session import Content, SessionState
from strandline.errors import AlreadyDecided, BodyTooLarge, Conflict, Forbidden, NotFound, ShuttingDown, Unprocessable
from strandline.runtime import spawning
from strandline.runtime.contents import Contents, NeedContents
from strandline.runtime.ending import Ending, born_over
from strandline.runtime.live import Decided, LiveSession, SessionGone
from strandline.runtime.live_run import Caller
from strandline.runtime.memory import meant_by, stop_names
from strandline.runtime.submitting import May, Submissions, no_such_session


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer has led to. ``run`` goes on with the message; None while something else is still ``pending``, or
    when nothing is pending and nothing goes on. ``started``: by this answer."""

    session: LiveSession
    message_id: str
    run: RunRecord | None
    pending: tuple[str, ...] = ()
    started: bool = False


@dataclass(slots=True)
class _Making:
    """Answers to decisions of one message, on their way into the log."""

    state: SessionState
    version: str
    fold: FoldState
    at: int
    events: list[Event] = field(default_factory=list)

    def make(self, decision: DecisionRecord, answer: Answer, by: str) -> None:
        self.events.append(decisions.made(decision, answer, self.fold, by, self.at))

    @property
    def content(self) -> dict[str, Content]:
        return {self.version: (tuple(self.fold.parts()), self.fold.metadata)}

    def left(self) -> list[str]:
        """The decisions of the message that are still pending."""
        made = {event.decision for event in self.events if isinstance(event, DecisionMade)}
        return [each.id for each in self.state.waiting(self.version) if each.id not in made]


class Decisions(Submissions):
    """The sessions of one store, and what is decided in them."""

    async def answer_one(
        self, session_id: str, decision_id: str, answer: Answer, caller: Caller, may: May
    ) -> tuple[Answered, DecisionRecord]:
        """Take one decision (PROTOCOL §15.3). Raises NotFound, Forbidden, AlreadyDecided, Conflict, Unprocessable."""

        def decide(session: LiveSession, contents: Contents) -> Decided:
            decision = session.state.decisions.get(decision_id)
            if decision is None:
                raise NotFound("There is no such decision in this session.")
            decided = self._answer(session, [(decision, answer)], caller, contents, None, None)
            # In the step that publishes it: a moment later it may be deleted.
            return replace(decided, answer=lambda: (decided.answer(), session.state.decisions[decision_id]))

        answered: tuple[Answered, DecisionRecord] = await self._decided(session_id, decide, may)
        return answered

    async def answer(
        self,
        session_id: str,
        pick: Callable[[LiveSession], Sequence[tuple[DecisionRecord, Answer]]],
        caller: Caller,
        may: May,
        *,
        run: str | None = None,
        key: str | None = None,
    ) -> Answered:
        """Take the decisions that ``pick`` finds, all of one message and all or none. ``run`` and ``key`` name the run
        that goes on, where this starts it."""

        def decide(session: LiveSession, contents: Contents) -> Decided:
            return self._answer(session, list(pick(session)), caller, contents, run, key)

        answered: Answered = await self._decided(session_id, decide, may)
        return answered

    async def answer_posted(
        self, session_id: str, request: intake.Request, posted: Copy, caller: Caller, may: May
    ) -> Answered:
        """Take what the copy of a reply answers that a chat of the AI SDK has posted (PROTOCOL §7.5). Of what the store
        has, nothing is changed by it but that."""

        def decide(session: LiveSession, contents: Contents) -> Decided:
            state = session.state
            keyed = state.keyed(request.key) if request.key is not None else None
            if keyed is not None:
                return _attach(session, keyed)
            message = state.find(request.message_id or "")
            if message is None:
                raise Conflict(f"There is no message {request.message_id!r} in this session.", code="unknown-message")
            newest = state.runs.get(message.run or "")
            if newest is None:
                raise _not_pending()
            # A reply that is being written again was answered before: so said who answered first.
            asked_by = newest.parent_run if state.continues(newest) else newest.id
            asked = [each for each in state.decisions.values() if each.message == message.version]
            rounds = {newest.id, asked_by}
            fold = contents.folds(state, [message.version])[message.version]
            reading = decisions.read(posted, [each for each in asked if each.run in rounds], fold)
            if reading.changed is not None:
                raise Conflict(
                    f"The tool call {reading.changed.tool_call!r} is not the one that was asked about: its name or its "
                    "input differs from the stored one. Load the conversation again.",
                    code="input-changed",
                )
            if reading.other is not None:
                raise _already(reading.other)
            ahead = None if newest.active or reading.new else reading.ahead
            if ahead == 0:
                # All of the reply, and no answer in it: a chat that sends when every tool has its output does not mind
                # who gave it.
                return Decided((), lambda: Answered(session, message.message_id, None))
            # One that is longer was answered like that before: so much for a chat that would send for ever.
            if (not reading.new and not reading.known) or (ahead or 0) > 0:
                raise _not_pending()
            known = sorted(reading.known, key=lambda each: each.run != newest.id)
            answers = [*reading.new, *((each, decisions.recorded(each)) for each in known)]
            return self._answer(session, answers, caller, contents, None, request.key)

        answered: Answered = await self._decided(session_id, decide, may)
        return answered

    async def expire(self, decision: DecisionRecord) -> None:
        """Nobody has decided in time. Where others have decided the rest of a message, it goes on."""

        def decide(session: LiveSession, contents: Contents) -> Decided:
            known = session.state.decisions.get(decision.id)
            due = known is not None and known.pending and (known.expires_at or 0) <= self._clock.now()
            if known is None or not due or not self.accepting:
                return Decided((), lambda: None)
            making = self._making(session, known.message, contents)
            making.make(known, Answer(decisions.EXPIRED), "server")
            given = next((each for each in _round(session.state, known) if each.outcome in _GIVEN), None)
            if making.left() or given is None:
                return Decided(tuple(making.events), lambda: None, making.content)
            caller = Caller((given.decided_by or "").removeprefix("user:"))
            return self._go_on(session, making, known.run, caller, None, None)

        with contextlib.suppress(NotFound):  # it went with its session
            await self._decided(decision.session, decide, lambda record: True)

    async def _decided(self, session_id: str, decide: Callable[[LiveSession, Contents], Decided], may: May) -> Any:
        contents = Contents()

        def permitted(session: LiveSession) -> Decided:
            if not may(session.state.record):
                raise no_such_session()
            return decide(session, contents)

        while True:
            session = await self.find(session_id)
            if session is None:
                raise no_such_session()
            try:
                return await self.journal.decide(session, permitted)
            except NeedContents as need:
                await contents.fetch(session, self.store, need)
            except SessionGone:
                raise no_such_session() from None

    # ------------------------------------------------------------------ inside the writer

    def _answer(
        self,
        session: LiveSession,
        answers: list[tuple[DecisionRecord, Answer]],
        caller: Caller,
        contents: Contents,
        run: str | None,
        key: str | None,
    ) -> Decided:
        new: dict[str, tuple[DecisionRecord, Answer]] = {}
        for decision, answer in answers:
            if decision.pending and decision.roles is not None and caller.roles.isdisjoint(decision.roles):
                raise Forbidden("This is for somebody else to decide.", code="not-yours-to-decide")
            if not decision.pending and not decisions.same(decision, answer):
                raise _already(decision)
            if answer.outcome not in decisions.GIVEN[decision.kind]:
                wanted = "`approved`" if decision.kind == decisions.APPROVAL else "`output` or `errorText`"
                raise Unprocessable(f"The decision {decision.id!r} needs {wanted}.", code="invalid-request")
            if decision.pending and new.setdefault(decision.id, (decision, answer))[1] != answer:
                raise Unprocessable(f"The decision {decision.id!r} is given two answers.", code="invalid-request")
        # What was decided before may be of an earlier round, which was gone on from.
        first = next(iter(new.values()), answers[0])[0]
        if not new:
            return _attached(session, first)
        making = self._making(session, first.message, contents)
        for decision, answer in new.values():
            if decision.message != first.message:
                raise Unprocessable("Answer the decisions of one message at a time.", code="invalid-request")
            if decisions.awaiting(decision, making.fold) is None:
                raise _not_pending()
            try:
                making.make(decision, answer, caller.by)
            except ChunkInvalid as exc:
                raise Unprocessable(f"The answer cannot be taken: {exc}", code="invalid-request") from None
            limit = self._settings.chunk_limit
            if len(native.encode(making.events[-1])) > limit:
                raise BodyTooLarge(
                    f"An answer is at most {limit} bytes. Store large content elsewhere, and send its URL."
                )
        left = making.left()
        if left:
            pending = Answered(session, first.message_id, None, tuple(left))
            return Decided(tuple(making.events), lambda: pending, making.content)
        if not self.accepting:
            raise ShuttingDown("The server is shutting down; decide again in a moment.")
        self._check_beside(sum(each.status is Status.RUNNING for each in session.state.roots()))
        self.admit_run()
        return self._go_on(session, making, first.run, caller, run, key)

    def _making(self, session: LiveSession, version: str, contents: Contents) -> _Making:
        fold = contents.folds(session.state, [version])[version]
        return _Making(session.state, version, fold, self._clock.now())

    def _go_on(
        self, session: LiveSession, making: _Making, asked_by: str, caller: Caller, run: str | None, key: str | None
    ) -> Decided:
        """Everything is decided: the run that goes on begins in the same commit."""
        state, at = session.state, making.at
        before = state.runs[asked_by]
        if run in state.runs or (key is not None and (state.keyed(key) or state.receipts.keyed(key))):
            # A repeat would have answered nothing new: this is a request of its own, with the id of another.
            raise Conflict(f"The run id {run or key!r} is taken. A new run needs a new id.", code="run-exists")
        run_id = run or self._clock.mint("run")
        place = run_id, before.message, before.message_id
        # The agent goes on for who has asked it, whoever has decided: it may act in their name.
        asked = state.asker(before)
        asker = caller if caller.by == asked else Caller(asked.removeprefix("user:"))
        if before.spawned:
            asker = replace(asker, body=spawning.body_of(state.beginner(before)))
        queued = RunQueued(
            at,
            before.author,
            *place,
            before.parent,
            before.agent,
            asked_by,
            key,
            spawned=before.spawned or None,
            body=None if before.spawned else self.kept(before.agent, asker),
        )
        events: list[Event] = [*making.events, queued]
        content, folds = making.content, {run_id: making.fold}
        reason = self._stops.find(caller.user, session.id, meant_by(key, None), self._clock.monotonic())
        if reason is not None:
            ended, content = born_over(queued, making.fold, Ending(Status.STOPPED, reason), caller.by)
            events += ended
        else:
            events.append(RunStarted(at, *place))

        def taken() -> None:
            if reason is None:
                self._starting[run_id] = session

        def dropped() -> None:
            self._starting.pop(run_id, None)

        def answer() -> Answered:
            dropped()
            if reason is not None:
                self._stops.use_up(caller.user, session.id, stop_names(key, None))
            return Answered(session, before.message_id, state.runs[run_id], started=True)

        return Decided(tuple(events), answer, content, asker, folds=folds, taken=taken, dropped=dropped)


_GIVEN = frozenset().union(*decisions.GIVEN.values())


def _round(state: SessionState, decision: DecisionRecord) -> Iterable[DecisionRecord]:
    """The decisions that were asked for together."""
    return (each for each in state.decisions.values() if each.run == decision.run)


def _attach(session: LiveSession, run: RunRecord) -> Decided:
    return Decided((), lambda: Answered(session, run.message_id, session.state.runs[run.id]))


def _attached(session: LiveSession, decision: DecisionRecord) -> Decided:
    """What was decided already has led to this."""
    run = session.state.continuation(decision.run)
    if run is not None:
        return _attach(session, run)
    pending = tuple(each.id for each in session.state.waiting(decision.message))
    return Decided((), lambda: Answered(session, decision.message_id, None, pending))


def _already(decision: DecisionRecord) -> AlreadyDecided:
    detail = f"The decision {decision.id!r} was taken already: {decision.outcome}."
    return AlreadyDecided(detail, decision=decisions.plain(decision))


def _not_pending() -> Conflict:
    return Conflict(
        "This reply does not wait for what the message answers. Load the conversation again.", code="not-pending"
    )
