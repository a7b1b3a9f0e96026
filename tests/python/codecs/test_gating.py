"""Which chunk reaches which client (DESIGN §14.7). That the real clients accept the result is tested by
``property/test_fold_differential.py``."""

from __future__ import annotations

from typing import Any

import pytest

from strandline.codecs.gating import DENIED, RESYNC, TABLE, gate
from strandline.core.chunks import DATA_PREFIX, VOCABULARY


def test_the_table_has_a_row_for_every_chunk_type() -> None:
    assert set(TABLE) == {*VOCABULARY, DATA_PREFIX}


@pytest.mark.parametrize("kind", [*VOCABULARY, "data-weather"])
def test_ai_7_gets_everything_as_it_is(kind: str) -> None:
    chunk = {"type": kind}
    assert gate(chunk, 7) is chunk


@pytest.mark.parametrize("major", [5, 6])
@pytest.mark.parametrize("kind", ["custom", "reasoning-file", "steering-message", "tool-approval-response"])
def test_what_only_ai_7_knows_is_dropped_below(kind: str, major: int) -> None:
    assert gate({"type": kind}, major) is None


@pytest.mark.parametrize("major", [5, 6])
def test_a_step_that_is_taken_back_makes_older_clients_begin_again(major: int) -> None:
    assert gate({"type": "reset-step"}, major) is RESYNC


@pytest.mark.parametrize("major", [5, 6])
def test_a_finish_reason_that_older_clients_refuse_becomes_other(major: int) -> None:
    chunk = {"type": "finish", "finishReason": "interrupted", "messageMetadata": {"a": 1}}
    assert gate(chunk, major) == {**chunk, "finishReason": "other"}
    for known in ({"type": "finish"}, {"type": "finish", "finishReason": "stop"}):
        assert gate(known, major) is known


def test_ai_5_knows_no_approvals() -> None:
    assert gate({"type": "tool-approval-request", "approvalId": "a", "toolCallId": "c"}, 5) is None


def test_ai_6_is_asked_for_approval_but_not_where_the_answer_comes_by_itself() -> None:
    request = {"type": "tool-approval-request", "approvalId": "a", "toolCallId": "c", "isAutomatic": False}
    assert gate(request, 6) is request
    assert gate({**request, "isAutomatic": True}, 6) is None


def test_a_denial_is_an_error_to_ai_5_that_keeps_the_mark_of_a_dynamic_call() -> None:
    chunk: dict[str, Any] = {"type": "tool-output-denied", "toolCallId": "c", "dynamic": True}
    assert gate(chunk, 5) == {"type": "tool-output-error", "toolCallId": "c", "dynamic": True, "errorText": DENIED}
    assert gate(chunk, 6) is chunk


@pytest.mark.parametrize("major", [5, 6])
def test_everything_else_passes_as_the_same_object(major: int) -> None:
    exceptions = {"reset-step", "custom", "reasoning-file", "steering-message", "tool-approval-response"}
    if major == 5:
        exceptions |= {"tool-approval-request", "tool-output-denied"}
    for kind in {*VOCABULARY, "data-weather"} - exceptions:
        chunk = {"type": kind}
        assert gate(chunk, major) is chunk


def test_versions_beyond_the_known_ones_are_treated_like_the_nearest() -> None:
    assert gate({"type": "reset-step"}, 4) is RESYNC
    assert gate({"type": "reset-step"}, 9) == {"type": "reset-step"}
