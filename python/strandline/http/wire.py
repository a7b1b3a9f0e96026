"""Every header name and fixed value that this server and its clients must agree on (PROTOCOL §3, §5).

``js-adapter/src/protocol.ts`` has the same names; a test compares the two.
"""

from __future__ import annotations

AGENT_HEADER = "Strandline-Agent"
CLIENT_HEADER = "Strandline-Client"
CURSOR_HEADER = "Last-Event-ID"
DEVICE_HEADER = "Strandline-Device"
KEY_HEADER = "Idempotency-Key"
MESSAGE_HEADER = "Strandline-Message"
PREFER_HEADER = "Prefer"
READER_HEADER = "Strandline-Reader"
REPLAY_HEADER = "Strandline-Replay"
RUN_HEADER = "Strandline-Run"
SUBMIT_HEADER = "Strandline-Submit"

REPLAY_FULL = "full"
REPLAY_TAIL = "tail"
RESPOND_ASYNC = "respond-async"
SHIM = "shim"
