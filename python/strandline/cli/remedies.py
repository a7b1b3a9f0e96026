"""What to change, by what stands before the server. ``docs/deploying.md`` has the whole configurations."""

from __future__ import annotations

from collections.abc import Mapping

_MARKS = (
    ("server", "nginx", "nginx"),
    ("server", "openresty", "nginx"),
    ("server", "caddy", "caddy"),
    ("via", "caddy", "caddy"),
    ("server", "cloudflare", "cloudflare"),
    ("server", "apache", "apache"),
)

_BUFFERING = {
    "nginx": "nginx: `proxy_buffering off;` in the location, and no `proxy_ignore_headers X-Accel-Buffering`. With two"
    " nginx in a row the inner one needs `proxy_pass_header X-Accel-Buffering;`",
    "caddy": "Caddy: `flush_interval -1` in reverse_proxy",
    "cloudflare": "Cloudflare: no Worker and no rule that reads or rewrites bodies for this path; then look at what"
    " stands behind it",
    "apache": "Apache: `flushpackets=on` at ProxyPass",
    "": "Turn off response buffering for this path in what stands before the server (nginx: `proxy_buffering off;`,"
    " Apache: `flushpackets=on`, Caddy: `flush_interval -1`)",
}

_COMPRESSION = {
    "nginx": "nginx: `gzip off;` in the location, or take text/event-stream (and `*`) out of `gzip_types`",
    "caddy": "Caddy: take text/event-stream out of what `encode` matches",
    "cloudflare": "Cloudflare: a compression rule that leaves text/event-stream alone",
    "apache": "Apache: `SetEnv no-gzip 1` in the location",
    "": "Leave text/event-stream out of what is compressed (proxy, CDN, or a middleware of the application)",
}

_IDLE = {
    "nginx": "nginx: `proxy_read_timeout 75s;` or longer in the location",
    "caddy": "Caddy: no `response_header_timeout`, `read_timeout` or `write_timeout` shorter than that",
    "apache": "Apache: `timeout=75` at ProxyPass",
    "": "Make the idle timeout of what stands before the server longer than two heartbeats (AWS ALB: `idle_timeout`,"
    " HAProxy: `timeout server`, nginx: `proxy_read_timeout`)",
}

_BODY = {
    "nginx": "nginx: `client_max_body_size 5m;` in the server or location",
    "caddy": "Caddy: raise `request_body max_size`",
    "cloudflare": "Cloudflare: a rule or a Worker refuses it (the limit of the plan is 100 MB or more)",
    "apache": "Apache: raise `LimitRequestBody`",
    "": "Raise the limit of request bodies in what stands before the server",
}

_REQUEST_HEADER = {
    "nginx": 'nginx: remove the `proxy_set_header {name} "";` (or the like), in included files as well',
    "caddy": "Caddy: remove the `header_up -{name}`",
    "": "Let the header {name} pass in what stands before the server (a CDN: name it in what goes to the origin)",
}

_RESPONSE_HEADER = {
    "nginx": "nginx: no `proxy_hide_header {name}`, `expires` or `add_header {name}` for this path",
    "caddy": "Caddy: no `header` or `header_down` that touches {name} for this path",
    "cloudflare": "Cloudflare: no cache or transform rule that touches {name} for this path (bypass the cache)",
    "": "Leave the response header {name} as it is in what stands before the server, and do not cache this path",
}

_TABLES: Mapping[str, Mapping[str, str]] = {
    "buffering": _BUFFERING,
    "compression": _COMPRESSION,
    "idle": _IDLE,
    "body": _BODY,
    "request header": _REQUEST_HEADER,
    "response header": _RESPONSE_HEADER,
}


def behind(headers: Mapping[str, str]) -> str:
    """What answered, as far as its headers tell: ``nginx``, ``caddy``, ``cloudflare``, ``apache`` or nothing."""
    return next((kind for name, mark, kind in _MARKS if mark in headers.get(name, "").lower()), "")


def remedy(what: str, kind: str, **names: str) -> str:
    """What to change about ``what`` (buffering, compression, idle, body, request header, response header)."""
    table = _TABLES[what]
    return table.get(kind, table[""]).format(**names) + "."
