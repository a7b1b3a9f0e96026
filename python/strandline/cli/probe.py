"""How ``strandline doctor`` measures: requests to the diagnosis routes (PROTOCOL §12), and when what came of them came.

No judgement here; that is ``diagnosis.py``.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from strandline.codecs.sse import HEARTBEAT
from strandline.http.cors import REQUEST_HEADERS
from strandline.http.doctor import PROBED_HEADERS
from strandline.http.wire import CLIENT_HEADER, CURSOR_HEADER

PATH = "doctor"

_DECODABLE = "gzip, deflate"
_EVERYTHING = "gzip, deflate, br, zstd"


@dataclass(slots=True)
class Answer:
    """A whole response. ``http`` and ``tls`` are the versions spoken with whoever answered, ``tls`` None without."""

    status: int
    headers: httpx.Headers
    body: bytes
    seconds: float
    http: str
    tls: str | None

    def json(self) -> dict[str, Any]:
        """The object that was answered; empty when it was none."""
        try:
            found = orjson.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Stream:
    """A measured stream. Times are seconds since the request began; ``beats`` are those of the heartbeats.

    ``cut`` says what ended it before its last frame, None when nothing did.
    """

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    first_byte: float | None = None
    frames: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    over: float = 0.0
    cut: str | None = None

    @property
    def probes(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, frame) for at, frame in self.frames if frame.get("type") == "probe"]

    @property
    def last(self) -> float:
        """When anything last came; the end of the stream does not count."""
        return max([self.first_byte or 0.0, *self.beats, *(at for at, _ in self.probes)])


class Probe:
    """Asks the diagnosis routes through ``client``. ``patience``: seconds to wait for anything that is due."""

    def __init__(self, client: httpx.Client, patience: float) -> None:
        self._client = client
        self._patience = patience
        self.sent = dict.fromkeys(PROBED_HEADERS, "doctor")
        self.sent[CLIENT_HEADER] = client.headers[CLIENT_HEADER]
        self.sent[CURSOR_HEADER] = "probe.0"

    def echo(self, size: int = 0) -> Answer:
        """POST a body of ``size`` bytes (at least a few) with every header that clients use. Raises TransportError."""
        head, tail = b'{"padding":"', b'"}'
        body = head + b"x" * (size - len(head) - len(tail)) + tail
        headers = {**self.sent, "Content-Type": "application/json"}
        return self._ask("POST", PATH, content=body, headers=headers)

    def stream(self, *, seconds: float = 0.0, headers: Mapping[str, str] | None = None, **query: Any) -> Stream:
        """One measured stream, to its end. ``seconds``: how long it may be silent by what it was asked for."""
        found = Stream()
        asked = {"Accept": "text/event-stream", "Accept-Encoding": _DECODABLE, **(headers or {})}
        limits = httpx.Timeout(self._patience, read=seconds + self._patience)
        began = time.monotonic()
        try:
            with self._client.stream("GET", PATH, params=query, headers=asked, timeout=limits) as response:
                found.status, found.headers = response.status_code, response.headers
                if response.status_code == 200:
                    _listen(response, found, began)
        except (httpx.TransportError, httpx.DecodingError) as error:
            found.cut = str(error) or type(error).__name__
        found.over = time.monotonic() - began
        if found.cut is None and (not found.frames or found.frames[-1][1].get("type") == "probe"):
            found.cut = "it ended early, as if that were the end"
        return found

    def offered(self) -> Stream:
        """The head of a stream that a browser, which takes every compression, would get."""
        found = Stream()
        try:
            with self._client.stream(
                "GET", PATH, params={"frames": 1}, headers={"Accept-Encoding": _EVERYTHING}, timeout=self._patience
            ) as response:
                found.status, found.headers = response.status_code, response.headers
        except httpx.TransportError as error:
            found.cut = str(error) or type(error).__name__
        return found

    def preflight(self, origin: str, path: str) -> Answer:
        """What a browser asks before a page of ``origin`` may POST. Raises TransportError."""
        # A browser sends no credentials with it.
        names = ("authorization", "cookie")
        request = self._client.build_request(
            "OPTIONS",
            path,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": ", ".join(sorted(name.lower() for name in REQUEST_HEADERS)),
            },
            timeout=self._patience,
        )
        for name in names:
            request.headers.pop(name, None)
        return self._answer(request)

    def from_page(self, origin: str) -> Answer:
        """A small request as a page of ``origin`` sends it. Raises TransportError."""
        headers = {**self.sent, "Content-Type": "application/json", "Origin": origin}
        return self._ask("POST", PATH, content=b"{}", headers=headers)

    def _ask(self, method: str, path: str, **more: Any) -> Answer:
        return self._answer(self._client.build_request(method, path, timeout=self._patience, **more))

    def _answer(self, request: httpx.Request) -> Answer:
        began = time.monotonic()
        response = self._client.send(request)
        seconds = time.monotonic() - began
        stream = response.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream is not None else None
        return Answer(
            response.status_code,
            response.headers,
            response.content,
            seconds,
            response.http_version,
            tls.version() if tls is not None else None,
        )


def offers_http2(url: httpx.URL, patience: float) -> bool | None:
    """Whether whoever answers at an https URL would speak HTTP/2; None when that cannot be told."""
    context = ssl.create_default_context()
    # Nothing is sent; the requests themselves have verified whom they speak to.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((url.host, url.port or 443), timeout=patience) as plain,
            context.wrap_socket(plain, server_hostname=url.host) as secured,
        ):
            return secured.selected_alpn_protocol() == "h2"
    except OSError:
        return None


def _listen(response: httpx.Response, found: Stream, began: float) -> None:
    """Read lines as they come; what came in one piece came at one time."""
    unread = b""
    for piece in response.iter_bytes():
        at = time.monotonic() - began
        found.first_byte = found.first_byte if found.first_byte is not None else at
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            if line + b"\n" == HEARTBEAT:
                found.beats.append(at)
            elif line.startswith(b"data: "):
                try:
                    frame = orjson.loads(line[6:])
                except ValueError:
                    frame = None
                if isinstance(frame, dict):
                    found.frames.append((at, frame))
