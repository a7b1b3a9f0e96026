"""``strandline doctor``: what stands between a client and the server, measured, and what to change about it."""

from __future__ import annotations

import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict

import httpx

from strandline.cli import diagnosis, terminal
from strandline.cli.diagnosis import Finding
from strandline.cli.exits import OK, REFUSED, UNFIT, UNREACHABLE, Failure
from strandline.cli.probe import Answer, Probe, offers_http2
from strandline.cli.remedies import behind
from strandline.cli.remote import TOKEN_VARIABLE, cause, connect
from strandline.http.cors import REQUEST_HEADERS
from strandline.http.loopback import is_loopback
from strandline.http.wire import CURSOR_HEADER

FRAMES = 20
INTERVAL_MS = 100
SIZES = (4 * 1024, 32 * 1024, 256 * 1024, diagnosis.MIB, 4 * diagnosis.MIB)

_RESUMED = 5
_AFTER = 3
BEYOND = 3.0
"""Seconds to wait beyond a heartbeat."""
_LONGEST_WAIT = 60.0
_CHECK_WIDTH = 18
_WIDEST = 110


def doctor(args: Namespace) -> int:
    """Measure, tell, and return ``UNFIT`` when something is bad. Raises Failure where nothing can be measured."""
    with connect(args) as client:
        client.headers.update(dict(args.header))
        findings: list[Finding] = []
        for finding in _examined(Probe(client, args.timeout), client, args):
            findings.append(finding)
            if not args.json:
                _show(finding)
    verdict = diagnosis.worst(findings)
    if args.json:
        report = {"url": args.url, "verdict": verdict, "findings": [asdict(each) for each in findings]}
        terminal.say(terminal.json_text(report))
    else:
        terminal.say(_sum(findings))
    return UNFIT if verdict == diagnosis.BAD else OK


def _examined(probe: Probe, client: httpx.Client, args: Namespace) -> Iterator[Finding]:
    """The findings, one by one, each as soon as it is known."""
    hello, url = _hello(probe, args), client.base_url
    said, kind = hello.json(), behind(hello.headers)
    every = float(said["heartbeat"])
    http2 = offers_http2(url, args.timeout) if url.scheme == "https" else None
    warm = probe.echo()
    yield diagnosis.connection(warm, local=is_loopback(url.host), http2=http2)
    yield diagnosis.last_hop(str(said.get("http")), kind)
    yield diagnosis.request_headers(probe.sent, said.get("headers", {}), kind)

    streamed = probe.stream(frames=FRAMES, interval=INTERVAL_MS, seconds=FRAMES * INTERVAL_MS / 1000)
    if streamed.status not in (0, 200):
        raise Failure(f"{args.url}/doctor answers a GET with {streamed.status}, though it answers a POST.", UNREACHABLE)
    flow = diagnosis.buffering(streamed, warm.seconds, kind)
    yield flow
    yield diagnosis.compression([streamed, probe.offered()], flowing=flow.verdict != diagnosis.BAD, kind=kind)
    yield diagnosis.response_headers(streamed, kind)

    cursor = f"probe.{_AFTER}"
    by_header = probe.stream(frames=_RESUMED, interval=10, headers={CURSOR_HEADER: cursor})
    by_query = probe.stream(frames=_RESUMED, interval=10, after=cursor)
    yield diagnosis.resuming(by_header, by_query, _AFTER, kind)
    yield diagnosis.caching(probe.stream(frames=1), probe.stream(frames=1), kind)
    yield _body_size(probe, int(said["maxBody"]), kind)
    if args.origin:
        page = args.origin
        yield diagnosis.cross_origin(page, probe.preflight(page, "chat"), probe.from_page(page), REQUEST_HEADERS, kind)

    wait = min(every + BEYOND, _LONGEST_WAIT)
    terminal.note(f"(waiting {wait:g} s for heartbeats)")
    yield diagnosis.heartbeats(probe.stream(frames=1, quiet=wait, heartbeats=True, seconds=wait), every, kind)
    if args.quiet_for:
        terminal.note(f"(silent for {args.quiet_for:g} s)")
        stream = probe.stream(frames=1, quiet=args.quiet_for, seconds=args.quiet_for)
        yield diagnosis.silence(stream, args.quiet_for, every, kind)


def _hello(probe: Probe, args: Namespace) -> Answer:
    """The first answer of the server. Raises Failure, saying why there is none."""
    try:
        answer = probe.echo()
    except httpx.TransportError as error:
        raise Failure(f"Nothing answers at {args.url}: {cause(error)}", UNREACHABLE) from error
    code = answer.json().get("code") if "problem+json" in answer.headers.get("content-type", "") else None
    if answer.status == 200 and {"bytes", "heartbeat", "maxBody"} <= answer.json().keys():
        return answer
    detail = f"{answer.json().get('detail')} ({code})" if code else ""
    if answer.status in (401, 403) and code not in (None, "open-beyond-loopback"):
        raise Failure(
            f"{detail} Give a token with --token or {TOKEN_VARIABLE}, or what your sign-in needs with"
            ' --header "Cookie: …".',
            REFUSED,
        )
    if code:
        raise Failure(detail, REFUSED if answer.status == 403 else UNREACHABLE)
    if answer.status in (401, 403, 407):
        who = behind(answer.headers) or "something before the server"
        raise Failure(f"{args.url} answers {answer.status}, and not as Strandline does: {who} refuses it.", REFUSED)
    if answer.status in (502, 503, 504):
        raise Failure(
            f"{args.url} answers {answer.status}: a proxy is there, but it does not reach the server behind it.",
            UNREACHABLE,
        )
    if 300 <= answer.status < 400:
        raise Failure(
            f"{args.url} redirects to {answer.headers.get('location')}. Give the address that it leads to, here and in"
            " your front end: a redirect can turn a POST into a GET.",
            UNREACHABLE,
        )
    raise Failure(
        f"{args.url}/doctor answers {answer.status}, and not as Strandline does. The URL must end with the prefix of"
        " the API, as in https://host/api; what stands before the server must pass everything below it on.",
        UNREACHABLE,
    )


def _body_size(probe: Probe, limit: int, kind: str) -> Finding:
    """The largest of SIZES that gets through, tried from the largest on; nothing above the server's own limit."""
    sizes = [size for size in SIZES if size <= limit] or [limit]
    refused = ""
    for size in reversed(sizes):
        try:
            answer = probe.echo(size)
        except httpx.TransportError as error:
            refused = str(error) or type(error).__name__
            continue
        if answer.status == 200 and answer.json().get("bytes") == size:
            return diagnosis.body_size(size, sizes[-1], refused, kind)
        refused = f"status {answer.status}"
    return diagnosis.body_size(0, sizes[-1], refused, kind)


def _show(finding: Finding) -> None:
    said = terminal.line(finding.said)
    _say(f"{finding.verdict:<5} {finding.check:<{_CHECK_WIDTH}} {said}", 6 + _CHECK_WIDTH + 1)
    if finding.change:
        _say(f"{'':6}→ {terminal.line(finding.change)}", 8)


def _say(text: str, indent: int) -> None:
    """One paragraph; on a terminal it is broken between words, in a pipe it stays one line."""
    if sys.stdout.isatty():
        wide = min(shutil.get_terminal_size().columns, _WIDEST)
        text = textwrap.fill(text, max(wide, indent + 20), subsequent_indent=" " * indent, break_on_hyphens=False)
    terminal.say(text)


def _sum(findings: list[Finding]) -> str:
    bad, warned = (sum(each.verdict == verdict for each in findings) for verdict in (diagnosis.BAD, diagnosis.WARN))
    if not bad and not warned:
        return f"All {len(findings)} checks are fine."
    counts = [f"{bad} bad"] * (bad > 0) + [f"{warned} to look at"] * (warned > 0)
    return f"{' and '.join(counts)}, of {len(findings)} checks."
