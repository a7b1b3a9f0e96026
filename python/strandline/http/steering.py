"""A note for a running agent over HTTP (PROTOCOL §14.3)."""

from __future__ import annotations

from typing import Any

from strandline.core.offset import Cursor
from strandline.core.records import ReceiptRecord
from strandline.runtime.live import LiveSession


def steered(session: LiveSession, receipt: ReceiptRecord) -> dict[str, Any]:
    """The answer to one: the run that was told, its reply, and the id of the message."""
    run = session.state.runs[receipt.run]
    cursor = Cursor(session.state.record.epoch, receipt.seq, 1)
    return {"run": run.id, "messageId": run.message_id, "cursor": str(cursor), "steered": receipt.message_id}
