"""Replays that are owed (PROTOCOL §6.6, DESIGN §14.5).

A history answer leaves out the message that is being written; whoever got it will ask for that message next, and must
get it even if its run has ended in between. Kept per session, bounded, and only for a short while.
"""

from __future__ import annotations

from strandline.core.replay import Plan, Whole, plan_fresh, plan_named
from strandline.core.session import SessionState
from strandline.runtime.live import LiveSession, Promise

MAX_OWED = 100
"""Promised replays per session that are remembered."""


def resume(session: LiveSession, user: str, key: str | None, now: float, keep: float) -> Plan:
    """What a resume without cursor is given. ``key`` names it, however often it is repeated.

    Of several promises the newest counts, and only while nothing was asked after its run had ended: an older one was
    made to a page that has been loaded again since, or that has missed more than this. What waited in the queue behind
    the run is not more: the page has seen nothing of that either."""
    drop_expired(session, now)
    for promise in session.owed:
        if key is not None and (promise.user, promise.key) == (user, key):
            return plan_named(session.state, promise.run)
    mine = (each.run for each in reversed(session.owed) if (each.user, each.key) == (user, None))
    plan = plan_fresh(session.state, next((run for run in mine if _still_newest(session.state, run)), None))
    if key is not None and isinstance(plan, Whole):
        # An answer that is lost on its way is asked for again, and the run may have ended meanwhile.
        paid(session, user, plan.run)
        owe(session, user, plan.run, key, now + keep)
    return plan


def _still_newest(state: SessionState, run_id: str) -> bool:
    """Whether nothing was asked in the session since this run ended."""
    ended = state.runs[run_id].last_seq or state.last_seq
    return not any(run.first_seq > ended and not run.spawned for run in state.runs.values())


def paid(session: LiveSession, user: str, run: str) -> None:
    """The replay of ``run`` that this user was promised was sent: to its end, or under a key of its own."""
    for promise in reversed(session.owed):
        if (promise.user, promise.run, promise.key) == (user, run, None):
            session.owed.remove(promise)
            return


def owe(session: LiveSession, user: str, run: str, key: str | None, until: float) -> None:
    """Promise a replay until the monotonic time ``until``."""
    session.owed.append(Promise(user, run, key, until))
    del session.owed[:-MAX_OWED]


def drop_expired(session: LiveSession, now: float) -> None:
    """Forget promises that are too old."""
    session.owed = [promise for promise in session.owed if promise.until > now]
