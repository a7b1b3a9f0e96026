"""What ``strandline doctor`` concludes from what it measured, without a server. Through real proxies:
``tests/python/proxies``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from strandline.cli import diagnosis
from strandline.cli.diagnosis import BAD, OK, WARN
from strandline.cli.probe import Answer, Stream
from strandline.cli.remedies import behind, remedy

HEAD = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "Strandline-Run": "probe",
    "Strandline-Message": "probe",
    "Strandline-Replay": "full",
    "X-Vercel-AI-UI-Message-Stream": "v1",
}
ORIGIN = "https://app.example"


def stream(times: Sequence[float], every: float = 0.1, *, beats: Sequence[float] = (), **more: Any) -> Stream:
    """Frames that were sent ``every`` seconds and came at these times. The server's clock is an hour ahead."""
    frames = [
        (at, {"type": "probe", "n": number + 1, "at": 3_600_000 + round(number * every * 1000)})
        for number, at in enumerate(times)
    ]
    end = max([*times, *beats], default=0.0)
    known = {"status": 200, "headers": httpx.Headers(HEAD), "first_byte": times[0] if times else None, "over": end}
    return Stream(frames=frames, beats=list(beats), **{**known, **more})


def answer(status: int = 200, headers: Any = None, *, tls: str | None = "TLSv1.3") -> Answer:
    return Answer(status, httpx.Headers(headers or {}), b"{}", 0.01, "HTTP/1.1", tls)


STEADY = [0.02 + 0.1 * number for number in range(20)]


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        (STEADY, OK),
        ([at + 0.05 * (number % 2) for number, at in enumerate(STEADY)], OK),
        ([2.0] * 20, BAD),
        ([1.0] * 10 + [2.0] * 10, BAD),
        ([*STEADY[:10], 1.9, 1.9, 1.9, 1.9, 1.9, 1.9, *STEADY[16:]], WARN),
        ([*STEADY[:19], 3.0], WARN),
        ([at + 2.0 for at in STEADY], WARN),
    ],
    ids=["steady", "jitter", "at the end", "in two bursts", "a hiccup", "one late", "a late begin"],
)
def test_frames_are_held_back_or_not(times: list[float], verdict: str) -> None:
    finding = diagnosis.buffering(stream(times), 0.01, "nginx")
    assert finding.verdict == verdict, finding
    assert bool(finding.change) == (verdict != OK)
    if verdict != OK:
        assert "proxy_buffering off" in finding.change


def test_a_stream_that_breaks_off_is_bad() -> None:
    finding = diagnosis.buffering(stream(STEADY[:3], cut="incomplete chunked read"), 0.01, "")
    assert (finding.verdict, finding.measured["frames"]) == (BAD, 3)
    assert "incomplete chunked read" in finding.said


def test_compression_is_worse_when_it_holds_back() -> None:
    zipped = stream(STEADY, headers=httpx.Headers({**HEAD, "Content-Encoding": "br"}))
    assert diagnosis.compression([stream(STEADY), stream(STEADY)], flowing=True, kind="").verdict == OK
    assert diagnosis.compression([stream(STEADY), zipped], flowing=True, kind="").verdict == WARN
    assert diagnosis.compression([stream(STEADY), zipped], flowing=False, kind="").verdict == BAD


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, []),
        ({"Cache-Control": "private, no-store, no-transform"}, []),
        ({"Cache-Control": "no-store"}, ["Cache-Control"]),
        ({"Cache-Control": "no-store, no-transform, max-age=9"}, ["Cache-Control"]),
        ({"Content-Type": "text/plain"}, ["Content-Type"]),
        ({"Strandline-Replay": ""}, ["Strandline-Replay"]),
        (
            {"Strandline-Run": "x", "X-Vercel-AI-UI-Message-Stream": ""},
            ["Strandline-Run", "X-Vercel-AI-UI-Message-Stream"],
        ),
        ({"Content-Length": "99"}, ["Content-Length"]),
    ],
)
def test_response_headers_must_come_as_they_were_sent(changes: dict[str, str], wrong: list[str]) -> None:
    finding = diagnosis.response_headers(stream(STEADY, headers=httpx.Headers({**HEAD, **changes})), "")
    assert finding.measured["wrong"] == wrong
    assert finding.verdict == (BAD if wrong else OK)
    for name in wrong:
        assert name in finding.change


def test_a_lost_request_header_is_bad_where_clients_depend_on_it() -> None:
    sent = {"Last-Event-ID": "1", "Idempotency-Key": "k", "Strandline-Client": "c", "Strandline-Device": "d"}
    assert diagnosis.request_headers(sent, dict(sent), "").verdict == OK
    for name in sent:
        for arrived in ({each: sent[each] for each in sent if each != name}, {**sent, name: "changed"}):
            finding = diagnosis.request_headers(sent, arrived, "caddy")
            assert finding.verdict == (WARN if name == "Strandline-Device" else BAD)
            assert f"header_up -{name}" in finding.change


@pytest.mark.parametrize(("header", "query"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_cursor_must_arrive_both_ways(header: bool, query: bool) -> None:
    tail, full = stream([0.1]), stream([0.1])
    tail.frames[0][1]["n"] = 4
    finding = diagnosis.resuming(tail if header else full, tail if query else full, 3, "")
    assert finding.verdict == (OK if header and query else BAD)
    assert finding.measured == {"header": header, "query": query}
    assert ("the header Last-Event-ID" in finding.said) == (not header)
    assert ("`after` of" in finding.said) == (not query)


def test_an_answer_from_a_cache_is_recognised_by_its_time() -> None:
    first, second = stream([0.1]), stream([0.1])
    assert diagnosis.caching(first, second, "").verdict == BAD
    second.frames[0][1]["at"] += 1
    assert diagnosis.caching(first, second, "").verdict == OK
    assert diagnosis.caching(stream([], cut="x"), stream([], cut="x"), "").verdict == OK


@pytest.mark.parametrize(
    ("found", "every", "verdict", "said"),
    [
        (stream([0.1], beats=[15.1], over=18.1), 15.0, OK, "one every 15 s"),
        (stream([0.1], over=10.1, cut="closed"), 15.0, BAD, "cut after 10.0 s of silence"),
        (stream([0.1], beats=[15.1], over=18.1, cut="closed"), 15.0, BAD, "cut after 3.0 s of silence"),
        (stream([0.1], over=18.1), 15.0, BAD, "none came"),
        (stream([18.0], beats=[18.0], over=18.1), 15.0, BAD, "held back"),
        (stream([0.1], beats=[50.1], over=53.1), 50.0, WARN, "only every 50 s"),
    ],
)
def test_heartbeats_must_come_in_time(found: Stream, every: float, verdict: str, said: str) -> None:
    finding = diagnosis.heartbeats(found, every, "nginx")
    assert (finding.verdict, said in finding.said) == (verdict, True), finding
    assert bool(finding.change) == (verdict != OK)


@pytest.mark.parametrize(("cut", "verdict"), [(None, OK), (10.0, BAD), (20.0, WARN), (40.0, OK)])
def test_silence_is_measured_against_the_heartbeat(cut: float | None, verdict: str) -> None:
    found = stream([0.5], over=60.5 if cut is None else cut + 0.5, cut=None if cut is None else "closed")
    finding = diagnosis.silence(found, 60, 15.0, "")
    assert (finding.verdict, finding.measured["cutAfter"]) == (verdict, cut)


@pytest.mark.parametrize(
    ("largest", "asked", "verdict"),
    [(4 << 20, 4 << 20, OK), (1 << 20, 4 << 20, WARN), (4096, 4 << 20, BAD), (0, 4 << 20, BAD), (1000, 1000, OK)],
)
def test_small_bodies_are_bad(largest: int, asked: int, verdict: str) -> None:
    assert diagnosis.body_size(largest, asked, "status 413", "").verdict == verdict


def test_how_one_is_connected() -> None:
    plain = answer(tls=None)
    assert diagnosis.connection(plain, local=True, http2=None).verdict == OK
    assert "https" in diagnosis.connection(plain, local=False, http2=None).change
    assert diagnosis.connection(answer(), local=False, http2=True).verdict == OK
    assert diagnosis.connection(answer(), local=False, http2=None).verdict == OK
    assert "six" in diagnosis.connection(answer(), local=False, http2=False).said


ALLOWED = {"Access-Control-Allow-Origin": ORIGIN, "Access-Control-Allow-Headers": "A, last-event-id"}
EXPOSED = {
    "Access-Control-Allow-Origin": ORIGIN,
    "Access-Control-Expose-Headers": "Strandline-Run, Strandline-Message, Strandline-Replay",
}


@pytest.mark.parametrize(
    ("preflight", "answered", "said"),
    [
        (ALLOWED, EXPOSED, ""),
        ({**ALLOWED, "Access-Control-Allow-Origin": "*"}, EXPOSED, ""),
        ({}, EXPOSED, "the preflight does not allow"),
        (ALLOWED, {}, "an answer does not allow"),
        ({**ALLOWED, "Access-Control-Allow-Headers": "A"}, EXPOSED, "headers Last-Event-ID"),
        (ALLOWED, {"Access-Control-Allow-Origin": ORIGIN}, "cannot read the response headers Strandline-Run"),
        (ALLOWED, [*EXPOSED.items(), ("Access-Control-Allow-Origin", "*")], "twice"),
    ],
)
def test_what_a_page_of_another_origin_may_do(preflight: Any, answered: Any, said: str) -> None:
    needed = ("A", "Last-Event-ID")
    finding = diagnosis.cross_origin(ORIGIN, answer(headers=preflight), answer(headers=answered), needed, "")
    assert finding.verdict == (BAD if said else OK)
    assert said in finding.said


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"server": "nginx/1.27"}, "nginx"),
        ({"via": "2.0 Caddy"}, "caddy"),
        ({"server": "cloudflare"}, "cloudflare"),
        ({"server": "Apache/2.4"}, "apache"),
        ({"server": "uvicorn"}, ""),
        ({}, ""),
    ],
)
def test_what_stands_before_the_server_gets_its_own_advice(headers: dict[str, str], kind: str) -> None:
    assert behind(headers) == kind
    for what in ("buffering", "compression", "idle", "body", "request header", "response header"):
        assert remedy(what, kind, name="X-Name").endswith(".")
        assert "{" not in remedy(what, kind, name="X-Name")
