"""What clients of a real server ask, what its agents answer, and what of that a client may go by."""

from __future__ import annotations

from typing import Any

from strandline.testing import Frame, fold_frames

SHIM = {"Strandline-Client": "shim/0.1.0; ai=7"}


def asking(chat: str, text: str, id: str = "u1") -> dict[str, Any]:
    """A message as the AI SDK posts it."""
    message = {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message"}


def numbers(upto: int) -> str:
    """What an agent says that counts."""
    return "".join(f"{number} " for number in range(1, upto + 1))


def counted(text: str) -> int:
    """How far a count has come; fails when a number is missing, doubled or out of order."""
    upto = len(text.split())
    assert text == numbers(upto), text[:200]
    return upto


def text_of(message: Any) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def text_in(frames: list[Frame]) -> str:
    return text_of({"parts": fold_frames(frames).parts()})


class Sent:
    """Somebody who is sent ``frames``."""

    @property
    def frames(self) -> list[Frame]:
        raise NotImplementedError

    @property
    def cursor(self) -> str | None:
        return next((frame.cursor for frame in reversed(self.frames) if frame.cursor), None)

    @property
    def shown(self) -> list[Frame]:
        """What a client may go by: a snapshot only counts with its last frame (PROTOCOL §3.6)."""
        whole = max((index for index, frame in enumerate(self.frames, 1) if frame.cursor), default=0)
        return self.frames[:whole]

    @property
    def text(self) -> str:
        return text_in(self.shown)
