"""What ``strandline doctor`` concludes from what it measured. Pure: no I/O, no clock.

A verdict is ``bad`` where chats break or lose what streaming is for, ``warn`` where they work worse than they could.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from strandline.cli.probe import Answer, Stream
from strandline.cli.remedies import remedy
from strandline.codecs import ai_sdk
from strandline.http.wire import CLIENT_HEADER, CURSOR_HEADER, KEY_HEADER, MESSAGE_HEADER, REPLAY_HEADER, RUN_HEADER

OK, WARN, BAD = "ok", "warn", "bad"

ESSENTIAL_REQUEST_HEADERS = (CURSOR_HEADER, KEY_HEADER, CLIENT_HEADER)
LONGEST_HEARTBEAT = 45.0
"""Many proxies cut after 60 s; a heartbeat may be a little late."""
MIB = 1024 * 1024
SLOW = 0.5
LATE = 1.0
"""A heartbeat that is so many seconds late was held back; `doctor` listens for longer than that."""

TOGETHER = 0.25
"""A frame that comes within this part of the interval after the one before it was held back for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``change`` says what to do where the verdict is not ok; ``measured`` is for scripts."""

    check: str
    verdict: str
    said: str
    change: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)


def connection(answer: Answer, *, local: bool, http2: bool | None) -> Finding:
    """How the client is connected. ``http2``: whether it is offered, None when unknown."""
    spoken = "HTTP/2 offered" if http2 else answer.http
    said = f"answers in {answer.seconds * 1000:.0f} ms ({spoken}, {answer.tls or 'no TLS'})"
    measured = {"seconds": round(answer.seconds, 4), "http": answer.http, "tls": answer.tls, "http2": http2}
    if answer.tls is None and not local:
        return Finding(
            "connection",
            WARN,
            said,
            "Serve it over https: without TLS messages and tokens can be read on the way, and there is no HTTP/2.",
            measured,
        )
    if http2 is False:
        return Finding(
            "connection",
            WARN,
            f"{said}; a browser keeps only six HTTP/1.1 connections to one origin, and every open stream takes one",
            "Turn on HTTP/2 in what ends TLS (nginx: `listen 443 ssl http2;`).",
            measured,
        )
    return Finding("connection", OK, said, "", measured)


def last_hop(spoken: str, kind: str) -> Finding:
    """The version of HTTP that arrives at the server."""
    measured = {"http": spoken}
    if spoken == "1.0":
        fix = "nginx: `proxy_http_version 1.1;` in the location." if kind == "nginx" else "Let it speak HTTP/1.1."
        said = "the proxy speaks HTTP/1.0 with the server: a server that dies looks like the proper end of a reply"
        return Finding("last hop", WARN, said, fix, measured)
    return Finding("last hop", OK, f"HTTP/{spoken} arrives at the server", "", measured)


def request_headers(sent: Mapping[str, str], arrived: Mapping[str, Any], kind: str) -> Finding:
    """Whether the headers that clients send arrive as they were sent."""
    lost = [name for name, value in sent.items() if arrived.get(name) != value]
    measured = {"lost": lost}
    if not lost:
        return Finding("request headers", OK, f"all {len(sent)} that clients use arrive", "", measured)
    verdict = BAD if any(name in lost for name in ESSENTIAL_REQUEST_HEADERS) else WARN
    change = " ".join(remedy("request header", kind, name=name) for name in lost)
    return Finding("request headers", verdict, f"lost or changed on the way: {', '.join(lost)}", change, measured)


def buffering(stream: Stream, round_trip: float, kind: str) -> Finding:
    """Whether frames come when they are sent, or are held back and come in bursts."""
    probes = stream.probes
    if stream.cut is not None:
        return Finding(
            "streaming",
            BAD,
            f"the stream broke off after {stream.over:.1f} s and {len(probes)} frames: {stream.cut}",
            "Look into the logs of the server and of what stands before it.",
            {"cut": round(stream.over, 3), "frames": len(probes)},
        )
    first = stream.first_byte or 0.0
    together = held_together(probes)
    late = latest(probes)
    measured = {
        "frames": len(probes),
        "together": together,
        "firstByteSeconds": round(first, 4),
        "latestSeconds": round(late, 4),
    }
    share = together / max(1, len(probes) - 1)
    if share >= 0.5:
        said = (
            f"held back: {together} of {len(probes)} frames came together with the one before, up to {late:.1f} s late"
        )
        change = remedy("buffering", kind)
        if stream.headers.get("content-encoding"):
            change += f" It is compressed, too, which holds it back just the same. {remedy('compression', kind)}"
        return Finding("streaming", BAD, said, change, measured)
    if share >= 0.2 or late > SLOW:
        said = f"uneven: {together} of {len(probes)} frames came together with the one before, up to {late:.1f} s late"
        change = f"Measure again; a slow network does this. If it stays: {remedy('buffering', kind)}"
        return Finding("streaming", WARN, said, change, measured)
    if first > round_trip + SLOW:
        said = f"the first bytes took {first:.1f} s, though a request takes {round_trip * 1000:.0f} ms"
        return Finding("streaming", WARN, said, remedy("buffering", kind), measured)
    said = f"{len(probes)} frames came one by one, the first bytes after {first * 1000:.0f} ms"
    return Finding("streaming", OK, said, "", measured)


def held_together(probes: Sequence[tuple[float, Mapping[str, Any]]]) -> int:
    """How many frames came (nearly) at once with the one before, though they were not sent so."""
    gaps = [(at - earlier, (frame["at"] - before["at"]) / 1000) for (earlier, before), (at, frame) in pairwise(probes)]
    return sum(sent > 0 and came < sent * TOGETHER for came, sent in gaps)


def latest(probes: Sequence[tuple[float, Mapping[str, Any]]]) -> float:
    """By how many seconds the slowest frame took longer than the quickest. The two clocks need not agree."""
    took = [at - frame["at"] / 1000 for at, frame in probes]
    return max(took) - min(took) if took else 0.0


def compression(streams: Sequence[Stream], *, flowing: bool, kind: str) -> Finding:
    """Whether event streams are compressed on the way."""
    found = next((each.headers["content-encoding"] for each in streams if "content-encoding" in each.headers), None)
    measured = {"encoding": found}
    if found is None:
        return Finding("compression", OK, "event streams are not compressed", "", measured)
    said = f"event streams come with Content-Encoding: {found}"
    if flowing:
        said += "; they are not held back by it, but every token is compressed for nothing"
    return Finding("compression", WARN if flowing else BAD, said, remedy("compression", kind), measured)


def response_headers(stream: Stream, kind: str) -> Finding:
    """Whether the headers of a stream come as the server sends them."""
    headers = stream.headers
    wrong: list[str] = []
    if headers.get("content-type", "").partition(";")[0].strip() != "text/event-stream":
        wrong.append("Content-Type")
    directives = {each.strip().lower() for each in headers.get("cache-control", "").split(",")}
    if not {"no-store", "no-transform"} <= directives or directives - {
        "no-store",
        "no-transform",
        "no-cache",
        "private",
    }:
        wrong.append("Cache-Control")
    wrong += [name for name in (RUN_HEADER, MESSAGE_HEADER) if headers.get(name) != "probe"]
    wrong += [name for name in (REPLAY_HEADER,) if headers.get(name) != "full"]
    wrong += [name for name, value in ai_sdk.HEADERS.items() if headers.get(name) != value]
    wrong += [name for name in ("Content-Length",) if name in headers]
    measured = {"wrong": wrong, "cacheControl": headers.get("cache-control")}
    if not wrong:
        return Finding("response headers", OK, "come as the server sends them", "", measured)
    values = [f"{name}: {headers.get(name, '(missing)')}" for name in wrong]
    change = " ".join(remedy("response header", kind, name=name) for name in wrong)
    return Finding("response headers", BAD, f"not as the server sends them: {'; '.join(values)}", change, measured)


def caching(first: Stream, second: Stream, kind: str) -> Finding:
    """Whether a second request gets a new answer."""
    times = [each.probes[0][1]["at"] if each.probes else None for each in (first, second)]
    if None not in times and times[0] == times[1]:
        change = remedy("response header", kind, name="Cache-Control")
        return Finding("caching", BAD, "a second request got the first one's answer, from a cache", change)
    return Finding("caching", OK, "streams are not answered from a cache")


def resuming(by_header: Stream, by_query: Stream, after: int, kind: str) -> Finding:
    """Whether a cursor arrives: the first frame must be the one after it."""
    header, query = (bool(each.probes) and each.probes[0][1].get("n") == after + 1 for each in (by_header, by_query))
    measured = {"header": header, "query": query}
    if header and query:
        return Finding("resume", OK, f"a cursor arrives, as {CURSOR_HEADER} and as `after`", "", measured)
    lost = " and ".join([f"the header {CURSOR_HEADER}"] * (not header) + ["the query parameter `after`"] * (not query))
    said = f"{lost} of a resume did not arrive: clients would be told everything again"
    changes = [remedy("request header", kind, name=CURSOR_HEADER)] * (not header)
    changes += ["Let query strings pass to the server unchanged."] * (not query)
    return Finding("resume", BAD, said, " ".join(changes), measured)


def heartbeats(stream: Stream, every: float, kind: str) -> Finding:
    """Whether heartbeats come through in time and keep a stream up. ``every``: the server's setting, in seconds."""
    measured = {
        "every": every,
        "count": len(stream.beats),
        "cut": None if stream.cut is None else round(stream.over, 3),
    }
    own = "or send heartbeats more often (STRANDLINE_HEARTBEAT)."
    if stream.cut is not None:
        silent = stream.over - stream.last
        said = f"cut after {silent:.1f} s of silence, with a heartbeat every {every:g} s: {stream.cut}"
        return Finding("heartbeats", BAD, said, f"{remedy('idle', kind)[:-1]}; {own}", measured)
    if not stream.beats:
        return Finding("heartbeats", BAD, f"none came in {stream.over:.1f} s", remedy("buffering", kind), measured)
    if stream.beats[0] - every > LATE:
        said = f"held back: the first came after {stream.beats[0]:.1f} s, though one is sent every {every:g} s"
        return Finding("heartbeats", BAD, said, remedy("buffering", kind), measured)
    if every > LONGEST_HEARTBEAT:
        said = f"come through, but only every {every:g} s; many proxies cut a stream that is silent for 60 s"
        return Finding("heartbeats", WARN, said, "Set STRANDLINE_HEARTBEAT=15.", measured)
    said = f"one every {every:g} s comes through; {stream.over:.0f} s without a word did not end the stream"
    return Finding("heartbeats", OK, said, "", measured)


def silence(stream: Stream, asked: float, every: float, kind: str) -> Finding:
    """After how many seconds without a single byte the connection is cut."""
    silent = round(stream.over - stream.last, 3)
    if stream.cut is None:
        return Finding("silence", OK, f"{asked:g} s without a byte did not end the stream", "", {"cutAfter": None})
    measured = {"cutAfter": silent}
    said = f"cut after {silent:.1f} s without a byte ({stream.cut})"
    if silent > 2 * every:
        return Finding("silence", OK, f"{said}; a heartbeat comes every {every:g} s", "", measured)
    verdict = WARN if silent > every else BAD
    return Finding("silence", verdict, f"{said}, with a heartbeat every {every:g} s", remedy("idle", kind), measured)


def body_size(largest: int, asked: int, refused: str, kind: str) -> Finding:
    """How large a body gets through; ``refused`` says what happened to the next larger one that was tried."""
    measured = {"largest": largest, "asked": asked}
    if largest >= asked:
        return Finding("body size", OK, f"{_size(asked)} get through", "", measured)
    said = f"{_size(largest)} get through, more does not ({refused}): messages with files are larger"
    return Finding("body size", WARN if largest >= MIB else BAD, said, remedy("body", kind), measured)


def cross_origin(origin: str, preflight: Answer, answer: Answer, needed: Sequence[str], kind: str) -> Finding:
    """Whether a page of ``origin`` may send every header in ``needed`` and read the answers."""
    setting = f'Allow it in the application: `chat.app(origins=["{origin}"])`, or `cors(app, ["{origin}"])`.'
    for each, what in ((preflight, "the preflight"), (answer, "an answer")):
        allowed = each.headers.get_list("access-control-allow-origin")
        if len(allowed) > 1 or "," in (allowed or [""])[0]:
            said = f"{what} carries Access-Control-Allow-Origin twice: the server and something before it both add it"
            return Finding("cross-origin", BAD, said, "Let only one of them do CORS, best the server.")
        if allowed not in ([origin], ["*"]):
            said = f"{what} does not allow {origin} (status {each.status})"
            return Finding("cross-origin", BAD, said, setting)
    allowed_names = _names(preflight.headers.get("access-control-allow-headers", ""))
    missing = [name for name in needed if name.lower() not in allowed_names and "*" not in allowed_names]
    if missing:
        said = f"the preflight does not allow the headers {', '.join(missing)}"
        return Finding("cross-origin", BAD, said, setting)
    hidden = [
        name
        for name in (RUN_HEADER, MESSAGE_HEADER, REPLAY_HEADER)
        if name.lower() not in _names(answer.headers.get("access-control-expose-headers", ""))
    ]
    if hidden:
        said = f"pages cannot read the response headers {', '.join(hidden)} (Access-Control-Expose-Headers)"
        return Finding("cross-origin", BAD, said, setting)
    return Finding("cross-origin", OK, f"pages of {origin} may use everything that clients need")


def worst(findings: Sequence[Finding]) -> str:
    """The verdict of the whole report."""
    return max((each.verdict for each in findings), key=(OK, WARN, BAD).index, default=OK)


def _names(listed: str) -> set[str]:
    return {name.strip().lower() for name in listed.split(",")}


def _size(count: int) -> str:
    return f"{count / MIB:g} MiB" if count >= MIB else f"{count / 1024:g} KiB"
