"""Strandline: chat streams that survive refreshes, tabs, phones and crashes, for Python LLM back ends."""

from strandline.agents.run import Run
from strandline.agents.ui_stream import ui_stream
from strandline.errors import ChunkRefused, PublicError, RunOver, StrandlineError
from strandline.http.app import Ended, Strandline
from strandline.http.auth import Auth, Identity, jwt_bearer, open_on_loopback, owner_only
from strandline.http.cors import cors
from strandline.settings import Settings

__all__ = [
    "Auth",
    "ChunkRefused",
    "Ended",
    "Identity",
    "PublicError",
    "Run",
    "RunOver",
    "Settings",
    "Strandline",
    "StrandlineError",
    "cors",
    "jwt_bearer",
    "open_on_loopback",
    "owner_only",
    "ui_stream",
]
