"""What becomes of a message that comes while a reply is being written (PROTOCOL §14.1).

One pure decision over the committed state of a session, taken inside the writer after ``intake.decide`` has said that
the request means a new run. Attaching to a run that exists never asks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from strandline.core.intake import Start
from strandline.core.records import RunRecord
from strandline.core.run import Status
from strandline.core.session import SessionState


class Policy(StrEnum):
    """The submit policies, as clients and settings name them."""

    INTERRUPT = "interrupt"
    QUEUE = "queue"
    REJECT = "reject"
    STEER = "steer"
    CONCURRENT = "concurrent"


POLICIES = tuple(policy.value for policy in Policy)


@dataclass(frozen=True, slots=True)
class Admission:
    """A new run may come. ``stops``: the runs that end for it, in the same commit; ``waits``: its turn has not come."""

    stops: tuple[RunRecord, ...] = ()
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """No new run: the message is told to ``run``, which is running."""

    run: RunRecord


@dataclass(frozen=True, slots=True)
class Occupied:
    """No new run: ``run`` is active."""

    run: RunRecord


def admit(policy: Policy, start: Start, state: SessionState) -> Admission | Told | Occupied:
    """Say what becomes of a message that would start a run.

    What is no longer on the active path afterwards (an edit or a regeneration has left it) ends under every policy but
    ``reject``: so the active runs are always those of one conversation.
    """
    roots = state.active()
    if policy is Policy.INTERRUPT:
        return Admission(tuple(roots))
    if policy is Policy.REJECT:
        return Occupied(roots[0]) if roots else Admission()
    path = {message.version for message in state.path(start.parent)} if start.parent is not None else set()
    left = tuple(run for run in roots if run.message not in path)
    stays = [run for run in roots if run.message in path]
    if policy is Policy.STEER and start.create is not None and not left:
        running = [run for run in stays if run.status is Status.RUNNING]
        if running:
            return Told(running[-1])
    return Admission(left, waits=bool(stays) and policy is not Policy.CONCURRENT)
