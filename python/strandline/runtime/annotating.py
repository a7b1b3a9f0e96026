"""Annotations (PROTOCOL §19): which kinds there are, and the decisions to add one and to take one back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from strandline.core.annotation import kind_complaint, name_of, range_complaint, summary
from strandline.core.chunks import complaint
from strandline.core.erasing import TakenBack
from strandline.core.events import Annotated, AnnotationRemoved
from strandline.core.records import AnnotationRecord, MessageRecord
from strandline.core.session import SessionState
from strandline.errors import Conflict, Forbidden, Misconfigured, NotFound, TooMany, Unprocessable
from strandline.runtime.live import Decided, LiveSession

MAX_DATA = 4096
"""Bytes of JSON that an annotation may hold."""


class Citation(BaseModel):
    """``citation``: where something is said. Counted by the host of its URL."""

    model_config = ConfigDict(extra="allow")
    url: str = Field(pattern=r"^https?://[^\s/?#]+", max_length=2048)
    title: str | None = Field(default=None, max_length=500)


class Reaction(BaseModel):
    """``reaction``: counted by its name."""

    name: str = Field(min_length=1, max_length=100)


class Kinds:
    """The kinds whose data is checked; others may hold any JSON."""

    def __init__(self) -> None:
        self._types: dict[str, TypeAdapter[Any]] = {
            "citation": TypeAdapter(Citation),
            "reaction": TypeAdapter(Reaction),
        }

    def define(self, kind: str, model: Any) -> None:
        """Data of this kind is checked against ``model`` (anything that pydantic knows). Raises Misconfigured."""
        problem = kind_complaint(kind)
        if problem is not None:
            raise Misconfigured(f"chat.annotation_type({kind!r}, ...): {problem}")
        self._types[kind] = TypeAdapter(model)

    def read(self, kind: Any, data: Any, place: Any) -> tuple[str, Any, Mapping[str, Any] | None]:
        """Kind, data and range of an annotation that somebody wants to add. Raises Unprocessable."""
        problem = kind_complaint(kind) or (range_complaint(place) if place is not None else None)
        if problem is None and data is not None and (wrong := complaint(data)) is not None:
            problem = f"`data` cannot be taken: {wrong}"
        if problem is not None:
            raise Unprocessable(problem, code="invalid-annotation")
        adapter = self._types.get(kind)
        if adapter is not None:
            try:
                data = adapter.dump_python(adapter.validate_python(data), mode="json", exclude_none=True)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, ("data", *first["loc"])))
                raise Unprocessable(f"`{where}` of a {kind}: {first['msg']}.", code="invalid-annotation") from None
        if len(orjson.dumps(data)) > MAX_DATA:
            raise Unprocessable(f"`data` may have {MAX_DATA} bytes of JSON at most.", code="invalid-annotation")
        return kind, data, place


@dataclass(frozen=True, slots=True)
class Added:
    """An annotation to add; ``id`` names it in its session."""

    id: str
    message_id: str
    kind: str
    data: Any
    range: Mapping[str, Any] | None


def add(session: LiveSession, added: Added, by: str, at: int, limit: int) -> Decided:
    """Add an annotation, or replace one's own. Answers with its record. Raises NotFound, Conflict and TooMany."""
    state = session.state
    message = _message(state, added.message_id)
    known = state.annotations.get(added.id)
    if known is not None and (known.author, known.message) != (by, message.version):
        raise Conflict(f"There is another annotation with the id {added.id!r} here.", code="annotation-exists")
    beside = [each for each in state.annotations.values() if each.message == message.version and each.id != added.id]
    if len(beside) >= limit:
        raise TooMany(f"A message has {limit} annotations at most.", code="too-many-annotations")
    new = AnnotationRecord(
        state.record.id,
        added.id,
        message.version,
        message.message_id,
        added.kind,
        by,
        at,
        name_of(added.data),
        added.data,
        added.range,
    )
    left = summary([*(each for each in beside if each.kind == added.kind), new])
    event = Annotated(at, by, new.id, new.message, new.message_id, new.kind, left, data=added.data, range=added.range)
    if known is None:
        return Decided((event,), lambda: new)
    if known.kind == added.kind:
        return Decided((event,), lambda: new, erases=(_taken_back(state, known, left),))
    # The summary of the kind that it had changes as well.
    removed = _removal(state, known, by, at)
    return Decided((removed, event), lambda: new, erases=(_taken_back(state, known, removed.summary),))


def remove(session: LiveSession, annotation_id: str, by: str, at: int, *, manages: bool) -> Decided:
    """Take an annotation back: one's own, or anybody's who ``manages`` the session. Raises NotFound and Forbidden."""
    known = session.state.annotations.get(annotation_id)
    if known is None:
        raise NotFound("There is no such annotation.")
    if known.author != by and not manages:
        raise Forbidden("Only its author may take an annotation back.")
    removed = _removal(session.state, known, by, at)
    return Decided((removed,), lambda: None, erases=(_taken_back(session.state, known, removed.summary),))


def _removal(state: SessionState, known: AnnotationRecord, by: str, at: int) -> AnnotationRemoved:
    rest = (each for each in state.annotations.values() if each.id != known.id)
    left = summary(each for each in rest if (each.message, each.kind) == (known.message, known.kind))
    return AnnotationRemoved(at, by, known.id, known.message, known.message_id, known.kind, left)


def _taken_back(state: SessionState, known: AnnotationRecord, left: Mapping[str, Any]) -> TakenBack:
    """What an annotation has said until now is erased, by the commit that says so."""
    return TakenBack(state.record.id, known.message, known.id, known.kind, left, state.last_seq + 1)


def _message(state: SessionState, message_id: str) -> MessageRecord:
    found = state.find(message_id) or state.beside(message_id)
    if found is None:
        raise NotFound("There is no such message.")
    return found
