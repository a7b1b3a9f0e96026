"""Is this request from this very machine? The open development mode asks, for every request.

Listening on 127.0.0.1 is not enough to be alone: a page of the public web can make the browser send requests here
(Origin), make its own host name resolve to 127.0.0.1 and read the answers (DNS rebinding: Host), and a proxy or tunnel
on this machine can pass strangers on (Forwarded, Referer). Each is checked, and what is in doubt is refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from strandline.errors import Forbidden

_HOST_HEADER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::[0-9]{1,5})?", re.ASCII)
_FORWARDED_PAIR = re.compile(r"(?:^|[;,])\s*(for|by|host)\s*=\s*(\"[^\"]*\"|[^;,\s]*)", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """True for ``localhost``, 127.0.0.0/8 and ::1 (with or without brackets), and for nothing else.

    Names such as ``foo.localhost`` and short forms such as ``127.1`` are left to resolvers, so they do not count.
    """
    if host.lower() == "localhost":
        return True
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1: what dual-stack sockets and Node report
    return (mapped or address).is_loopback


def check_loopback(connection: HTTPConnection) -> None:
    """Raise Forbidden (``open-beyond-loopback``) unless everything about the request says loopback."""
    for doubt in _doubts(connection):
        raise Forbidden(
            f"This server runs with open_on_loopback(), the development mode without sign-in, and {doubt}. It answers"
            " only requests made on this machine to localhost, 127.0.0.1 or [::1]. To serve anyone else, give"
            " Strandline an auth: jwt_bearer(...) or your own FastAPI dependency.",
            code="open-beyond-loopback",
        )


def _doubts(connection: HTTPConnection) -> Iterator[str]:
    headers = connection.headers
    server, client = connection.scope.get("server"), connection.scope.get("client")
    # ASGI: a Unix socket is given as None, or as (path, None); it has no client address.
    unix_socket = server is None or server[1] is None
    if server is not None and server[1] is not None and not is_loopback(str(server[0])):
        yield f"the request came in at {_quoted(server[0])}, which is not a loopback address"
    if client is None and not unix_socket:
        yield "the address of the client is not known"
    if client is not None and not (unix_socket and not client[0]) and not is_loopback(str(client[0])):
        yield f"the request came from {_quoted(client[0])}, which is not a loopback address"
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _loopback_authority(hosts[0]):
        yield f"the request is for the host {_quoted(', '.join(hosts))}, which is not a loopback host"
    for name in ("origin", "referer"):
        for value in headers.getlist(name):
            if not _loopback_url(value):
                yield f"the {name.title()} of the request is {_quoted(value)}, which is not a loopback origin"
    for name, value in _forwarded(headers):
        if not _loopback_authority(value) and not is_loopback(value):
            yield f"{name} names {_quoted(value)}, so a proxy passes on what comes from elsewhere"


def _forwarded(headers: Headers) -> Iterator[tuple[str, str]]:
    """(header, address or host) for everyone that a proxy says it speaks for. An empty element counts, as unknown."""
    for name in ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"):
        for line in headers.getlist(name):
            for value in line.split(","):
                yield name, value.strip().strip('"')
    for line in headers.getlist("Forwarded"):
        pairs = _FORWARDED_PAIR.findall(line)
        if not pairs:
            yield "Forwarded", line
        for _, value in pairs:
            yield "Forwarded", value.strip('"')


def _loopback_authority(text: str) -> bool:
    """``host`` or ``host:port``, as in a Host header."""
    match = _HOST_HEADER.fullmatch(text)
    return match is not None and is_loopback(match.group(1))


def _loopback_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _loopback_authority(parts.netloc)


def _quoted(text: object) -> str:
    return repr(str(text)[:100])
