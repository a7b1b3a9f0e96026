"""What becomes of decisions that are pending when the conversation goes another way (DESIGN §14.9)."""

from __future__ import annotations

from strandline.core import decisions
from strandline.core.decisions import Answer
from strandline.core.events import Event
from strandline.core.session import Content, SessionState
from strandline.runtime.contents import Contents


def superseded(state: SessionState, contents: Contents, by: str, at: int) -> tuple[list[Event], dict[str, Content]]:
    """A new message, or another answer to an old one, takes the place of what is pending on the active path (DESIGN
    §14.9). Raises NeedContents."""
    path = {message.version for message in state.path()}
    pending = [each for each in state.waiting() if each.message in path]
    folds = contents.folds(state, (each.message for each in pending))
    answer = Answer(decisions.SUPERSEDED)
    events: list[Event] = [decisions.made(each, answer, folds[each.message], by, at) for each in pending]
    return events, {version: (tuple(fold.parts()), fold.metadata) for version, fold in folds.items()}
