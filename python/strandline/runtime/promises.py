"""Replays that are owed (PROTOCOL §6.6, DESIGN §14.5).

A history answer leaves out the message that is being written; whoever got it will ask for that message next, and must
get it even if its run has ended in between. Kept per session, bounded, and only for a short while.
"""

from __future__ import annotations

from strandline.core.replay import Plan, Whole, plan_fresh, plan_named
from strandline.runtime.live import LiveSession, Promise

MAX_OWED = 100
"""Promised replays per session that are remembered."""


def resume(session: LiveSession, user: str, key: str | None, now: float, keep: float) -> Plan:
    """What a resume without cursor is given. ``key`` names it, however often it is repeated.

    Of several promises the newest counts, and only while its run is the newest one: an older one was made to a page
    that has been loaded again since, or that has missed more than this."""
    drop_expired(session, now)
    for promise in session.owed:
        if key is not None and (promise.user, promise.key) == (user, key):
            return plan_named(session.state, promise.run)
    newest = next((run.id for run in reversed(session.state.runs.values()) if not run.spawned), None)
    promised = any((promise.user, promise.run, promise.key) == (user, newest, None) for promise in session.owed)
    plan = plan_fresh(session.state, newest if promised else None)
    if key is not None and isinstance(plan, Whole):
        # An answer that is lost on its way is asked for again, and the run may have ended meanwhile.
        paid(session, user, plan.run)
        owe(session, user, plan.run, key, now + keep)
    return plan


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
