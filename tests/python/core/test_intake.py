"""Which request is this? Every row of PROTOCOL §7 and DESIGN §14.1."""

from __future__ import annotations

from typing import Any

import pytest
from session_samples import HELLO, OTHER, answered, created, empty, ended, play, queued

from strandline.core.intake import (
    REGENERATE,
    SUBMIT,
    Attach,
    Decision,
    Incoming,
    Refuse,
    Request,
    Start,
    compared,
    decide,
)
from strandline.core.run import Status
from strandline.core.session import SessionState

U1 = Incoming("u1", "user", HELLO)
U1_EDITED = Incoming("u1", "user", OTHER)
U2 = Incoming("u2", "user", HELLO)
A1 = Incoming("a-r1", "assistant", ())
SYSTEM = Incoming("s1", "system", ())


def failed() -> SessionState:
    return play(answered(active=True), ended("r1", Status.FAILED, "agent-error"))


def regenerated() -> SessionState:
    return play(answered(), queued("r2", "v-u1"), ended("r2", Status.STOPPED))


def edited_away() -> SessionState:
    """The path is now u9; u1 and its reply are on another branch."""
    return play(answered(), created("u9"), queued("r9", "v-u9"), ended("r9", Status.STOPPED))


def imported() -> SessionState:
    return play(empty(), created("u1"))


def asked(
    last: Incoming | None, *, trigger: str = SUBMIT, message_id: str | None = None, key: str | None = None
) -> Request:
    return Request(trigger, message_id, last, key)


SUBMITS: list[tuple[str, Any, Request, Decision | str]] = [
    ("a first message", empty, asked(U1), Start(None, create=U1)),
    ("a new message", answered, asked(U2), Start("v-r1", create=U2)),
    ("a new message while active", lambda: answered(active=True), asked(U2), Start("v-r1", create=U2)),
    ("the same again while active", lambda: answered(active=True), asked(U1), Attach("r1")),
    ("the same again after the end", answered, asked(U1), Attach("r1")),
    ("the same again after a failure", failed, asked(U1), Attach("r1")),
    ("the same again, two answers", regenerated, asked(U1), Attach("r2")),
    ("the same again, never answered", imported, asked(U1), Start("v-u1")),
    ("a known id, other parts", answered, asked(U1_EDITED), "message-exists"),
    ("the id of a reply", answered, asked(Incoming("a-r1", "user", HELLO)), "message-exists"),
    ("no message", answered, asked(None), "invalid-message"),
    ("a reply as the last message", answered, asked(A1), "invalid-message"),
    ("a system message as the last", answered, asked(SYSTEM), "invalid-message"),
    ("a known one on another branch", edited_away, asked(U1), Attach("r1")),
]
NAMED: list[tuple[str, Any, Request, Decision | str]] = [
    ("an edit", answered, asked(U1_EDITED, message_id="u1"), Start(None, create=U1_EDITED)),
    ("an edit while active", lambda: answered(active=True), asked(U1_EDITED, message_id="u1"), Start(None, U1_EDITED)),
    ("an equal edit while active", lambda: answered(active=True), asked(U1, message_id="u1"), Attach("r1")),
    ("an equal edit after the end", answered, asked(U1, message_id="u1"), Start("v-u1")),
    ("an equal edit after a failure", failed, asked(U1, message_id="u1"), Start("v-u1")),
    ("an equal edit, never answered", imported, asked(U1, message_id="u1"), Start("v-u1")),
    ("a continuation", answered, asked(A1, message_id="a-r1"), "invalid-message"),
    ("a continuation, user message last", answered, asked(U1, message_id="a-r1"), "invalid-message"),
    ("an unknown messageId", answered, asked(U1, message_id="nobody"), "unknown-message"),
    ("an unknown messageId of its own", answered, asked(U2, message_id="u2"), "unknown-message"),
    ("another message than it names", answered, asked(U2, message_id="u1"), "invalid-message"),
    ("a name without a message", answered, asked(None, message_id="u1"), "invalid-message"),
]
REGENERATES: list[tuple[str, Any, Request, Decision | str]] = [
    ("by the user message", answered, asked(U1, trigger=REGENERATE), Start("v-u1")),
    ("by the reply", answered, asked(U1, trigger=REGENERATE, message_id="a-r1"), Start("v-u1")),
    ("by messageId of the user", answered, asked(U1, trigger=REGENERATE, message_id="u1"), Start("v-u1")),
    ("with nothing named", answered, asked(None, trigger=REGENERATE), Start("v-u1")),
    ("while active", lambda: answered(active=True), asked(U1, trigger=REGENERATE), Start("v-u1")),
    ("an unknown reply", answered, asked(U1, trigger=REGENERATE, message_id="lost"), Start("v-u1")),
    ("an unknown message alone", answered, asked(None, trigger=REGENERATE, message_id="lost"), "unknown-message"),
    ("a message that never came", answered, asked(U2, trigger=REGENERATE), Start("v-r1", create=U2)),
    ("in an empty session", empty, asked(None, trigger=REGENERATE), "unknown-message"),
    ("an unknown reply, empty session", empty, asked(A1, trigger=REGENERATE), "unknown-message"),
]

FAMILIES = (("submit", SUBMITS), ("named", NAMED), ("again", REGENERATES))


@pytest.mark.parametrize(
    ("make", "request_", "expected"),
    [row[1:] for row in SUBMITS + NAMED + REGENERATES],
    ids=[f"{family}: {row[0]}" for family, rows in FAMILIES for row in rows],
)
def test_which_request_is_this(make: Any, request_: Request, expected: Decision | str) -> None:
    known = {"v-u1": HELLO, "v-u9": HELLO}
    decision = decide(request_, make(), known)
    if isinstance(expected, str):
        assert isinstance(decision, Refuse)
        assert decision.code == expected
        assert decision.detail.endswith(".")
    else:
        assert decision == expected


@pytest.mark.parametrize("trigger", [SUBMIT, REGENERATE])
@pytest.mark.parametrize("message_id", [None, "u1", "a-r1", "nobody"])
@pytest.mark.parametrize("last", [None, U1, U1_EDITED, U2, A1])
@pytest.mark.parametrize("active", [True, False])
def test_a_known_key_attaches_whatever_else_is_asked(
    trigger: str, message_id: str | None, last: Incoming | None, active: bool
) -> None:
    state = answered(active=active, key="k")
    assert decide(Request(trigger, message_id, last, "k"), state, {}) == Attach("r1")


def test_an_unknown_key_changes_nothing() -> None:
    assert decide(asked(U1, key="new"), answered(key="k"), {"v-u1": HELLO}) == Attach("r1")


def test_only_the_parts_of_the_message_in_question_are_compared() -> None:
    state = answered()
    assert compared(asked(U1), state) == "v-u1"
    assert compared(asked(U2, message_id="u1"), state) == "v-u1"
    assert compared(asked(U2), state) is None
    assert compared(asked(A1), state) is None
    assert compared(asked(None), state) is None
    assert compared(asked(U1, trigger=REGENERATE), state) is None
