"""Cross-origin access for browsers: exactly the headers and methods that the clients use (PROTOCOL §5).

Without ``Access-Control-Expose-Headers`` a browser hides Strandline-Run from the shim; without Last-Event-ID among the
allowed request headers the preflight of a resume fails. Both look like a broken stream, so one helper has the lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from strandline.errors import Misconfigured
from strandline.http.wire import (
    AGENT_HEADER,
    CLIENT_HEADER,
    CURSOR_HEADER,
    DEVICE_HEADER,
    KEY_HEADER,
    MESSAGE_HEADER,
    PREFER_HEADER,
    READER_HEADER,
    REPLAY_HEADER,
    RUN_HEADER,
    SUBMIT_HEADER,
)

METHODS = ("GET", "POST", "PATCH", "DELETE")
REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    KEY_HEADER,
    CURSOR_HEADER,
    CLIENT_HEADER,
    DEVICE_HEADER,
    READER_HEADER,
    PREFER_HEADER,
    SUBMIT_HEADER,
    AGENT_HEADER,
    "X-Run-Id",
)
EXPOSED_HEADERS = (
    "Retry-After",
    MESSAGE_HEADER,
    REPLAY_HEADER,
    RUN_HEADER,
    "X-Vercel-AI-UI-Message-Stream",
)


def cors(app: Starlette, origins: str | Iterable[str], **options: Any) -> None:
    """Let pages of these origins use the service. ``origins`` are like ``https://app.example``: no path, no slash.

    ``options`` go to Starlette's CORSMiddleware; its allow_methods, allow_headers and expose_headers are added to those
    that the clients need. Raises Misconfigured for an origin that no browser sends, and for "*" (or a pattern that
    matches everything) together with allow_credentials, which would let any page act as its visitor.
    """
    allowed = [origins] if isinstance(origins, str) else list(origins)
    pattern = options.get("allow_origin_regex")
    if not allowed and pattern is None:
        raise Misconfigured("cors: name at least one origin, like https://app.example")
    for origin in allowed:
        if origin != "*" and not _is_origin(origin):
            raise Misconfigured(f"cors: {origin!r} is not an origin; write scheme://host or scheme://host:port")
    anyone = "*" in allowed or (pattern is not None and re.fullmatch(pattern, "https://anyone.invalid") is not None)
    if anyone and options.get("allow_credentials"):
        raise Misconfigured(
            "cors: every origin together with allow_credentials lets any web page act as its visitor; name the origins"
        )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=allowed,
        allow_methods=_with(METHODS, options.pop("allow_methods", ())),
        allow_headers=_with(REQUEST_HEADERS, options.pop("allow_headers", ())),
        expose_headers=_with(EXPOSED_HEADERS, options.pop("expose_headers", ())),
        **options,
    )


def _is_origin(text: str) -> bool:
    """As browsers send it: lower case, no path, no default port (WHATWG URL, "serialization of an origin")."""
    try:
        parts = urlsplit(text)
        default = parts.port == {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    bare = f"{parts.scheme}://{parts.netloc}"
    return bool(parts.scheme and parts.hostname) and text == bare == text.lower() and "@" not in text and not default


def _with(needed: tuple[str, ...], more: Iterable[str]) -> list[str]:
    return list(dict.fromkeys((*needed, *more)))
