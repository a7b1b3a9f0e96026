"""One page of a session's active path (PROTOCOL §8.6). Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from strandline.core.records import MessageRecord
from strandline.core.session import SessionState


@dataclass(frozen=True, slots=True)
class Page:
    """Messages, oldest first, and the ids to ask for the page before and after with; None where there is none."""

    messages: list[MessageRecord]
    before: str | None
    after: str | None


def page_of(
    path: Sequence[MessageRecord],
    hidden: Collection[str],
    limit: int,
    *,
    before: str | None = None,
    after: str | None = None,
) -> Page | None:
    """The newest ``limit`` messages of ``path``, or those next to the message with the id ``before`` or ``after``.

    ``hidden``: versions that are left out. None when the path does not have the named message.
    """
    named = before if before is not None else after
    at = len(path)
    if named is not None:
        at = next((index for index, message in enumerate(path) if message.message_id == named), -1)
        if at < 0:
            return None
    shown = [message for message in path if message.version not in hidden]
    if named is not None and after is not None:
        begin = sum(message.version not in hidden for message in path[: at + 1])
        end = begin + limit
    else:
        end = sum(message.version not in hidden for message in path[:at])
        begin = max(0, end - limit)
    page = shown[begin:end]
    return Page(
        page,
        page[0].message_id if page and begin > 0 else None,
        page[-1].message_id if page and end < len(shown) else None,
    )


def beside(state: SessionState, versions: Collection[str] | None, limit: int) -> list[MessageRecord]:
    """The messages of spawned runs, oldest first, at most the newest ``limit``: of all, or of those that were written
    beside one of ``versions``, or beside one that was. What stands beside a deleted message is hidden with it."""
    found: list[MessageRecord] = []
    family = {*versions} if versions is not None else set()
    for message in state.messages.values():
        if message.deleted:
            continue
        if not message.spawned:
            if versions is None:
                family.add(message.version)
        elif message.parent in family:
            found.append(message)
            family.add(message.version)
    return found[-limit:]
