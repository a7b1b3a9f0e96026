"""The way to a running server: where it is, who is asking, and what its refusals mean for the exit code."""

from __future__ import annotations

import os
from argparse import Namespace
from importlib.metadata import version
from typing import Any

import httpx
import orjson

from strandline.cli import terminal
from strandline.cli.exits import NEGATIVE, OK, REFUSED, UNREACHABLE, USAGE, Failure
from strandline.core.ids import check_id
from strandline.http.loopback import is_loopback

TOKEN_VARIABLE = "STRANDLINE_TOKEN"

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 60.0
"""Four heartbeats of a stream at the default setting; a stop waits for its commit (``commit_patience``)."""

_PROBLEM = "application/problem+json"
_NOW_IN_VAIN = frozenset({429, 500, 502, 503, 504})


class TryAgain(Failure):
    """The server is there but cannot answer just now."""


def connect(args: Namespace) -> httpx.Client:
    """A client for the API at ``args.url``, with the token of ``--token`` or of the environment."""
    url = address_of(args)
    return httpx.Client(
        base_url=str(url).rstrip("/") + "/",
        headers=headers_of(args),
        timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
        trust_env=trusts_environment(url),
        verify=httpx.create_ssl_context(),  # which heeds SSL_CERT_FILE, also for this machine
    )


def trusts_environment(url: httpx.URL) -> bool:
    """A proxy of the environment is not meant for this machine, and the open mode refuses what comes through one."""
    return not is_loopback(url.host)


def address_of(args: Namespace) -> httpx.URL:
    """The URL of the API. Raises Failure."""
    try:
        url = httpx.URL(args.url)
    except httpx.InvalidURL as error:
        raise Failure(f"{args.url!r} is not a URL: {error}", USAGE) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Failure(f"The URL of the API must look like http://127.0.0.1:8000/api, not {args.url!r}", USAGE)
    return url


def headers_of(args: Namespace) -> dict[str, str]:
    """Who is asking: the token of ``--token`` or of the environment. Raises Failure."""
    headers = {"Strandline-Client": f"cli/{version('strandline')}; ai=7"}
    token = args.token or os.environ.get(TOKEN_VARIABLE)
    if token:
        if not token.isascii() or not token.isprintable():
            raise Failure("The token has characters that a header cannot carry.", USAGE)
        headers["Authorization"] = f"Bearer {token}"
    return headers


def stop(args: Namespace) -> int:
    """``strandline stop``: end the active run of a session, or the one that is named."""
    session = check_id(args.session, "SESSION")
    asked: dict[str, Any] = {}
    if args.run is not None:
        asked["run"] = check_id(args.run, "--run")
    if args.reason is not None:
        asked["reason"] = args.reason
    with connect(args) as client:
        try:
            response = client.post(f"chat/{session}/stop", json=asked)
        except httpx.TransportError as error:
            raise unreachable(args.url, error) from error
    if response.status_code != 200:
        raise refusal(response, args.url)
    answer = _answer(response, args.url)
    if args.json:
        terminal.say(terminal.json_text(answer))
    else:
        terminal.say(terminal.line(_outcome(session, answer)))
    return NEGATIVE if answer.get("run") is None else OK


def unreachable(url: str, error: httpx.TransportError) -> Failure:
    """Nobody answers there."""
    return Failure(
        f"No server can be reached at {url} ({cause(error)}). Is it running? --url names another one.", UNREACHABLE
    )


def cause(error: httpx.TransportError) -> str:
    """Why nobody answers, in words, and what helps where that is known."""
    said = str(error) or type(error).__name__
    return f"{said}; SSL_CERT_FILE names a certificate to trust" if "CERTIFICATE_VERIFY_FAILED" in said else said


def refusal(response: httpx.Response, url: str) -> Failure:
    """What an answer other than 200 means. The response must have been read."""
    status = response.status_code
    problem = _problem(response)
    if problem is None:
        if status in _NOW_IN_VAIN:
            return TryAgain(f"{url} answers {status}: the server, or a proxy before it, is not ready.", UNREACHABLE)
        return Failure(
            f"{url} answers {status}, and not as Strandline does. --url must end with the prefix of the API, as in"
            " http://127.0.0.1:8000/api.",
            UNREACHABLE,
        )
    said = f"{problem.get('detail') or problem.get('title')} ({problem.get('code')})"
    if status in _NOW_IN_VAIN:
        return TryAgain(said, UNREACHABLE)
    if status == 401:
        return Failure(f"{said} Give --token, or set {TOKEN_VARIABLE}.", REFUSED)
    return Failure(said, {403: REFUSED, 404: NEGATIVE, 409: NEGATIVE}.get(status, USAGE))


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    if response.headers.get("content-type", "").partition(";")[0].strip() != _PROBLEM:
        return None
    try:
        found = orjson.loads(response.content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _answer(response: httpx.Response, url: str) -> dict[str, Any]:
    try:
        found = orjson.loads(response.content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "stopped" not in found:
        raise Failure(
            f"{url} answered, but not as Strandline does. Does --url end with the prefix of the API?", UNREACHABLE
        )
    return found


def _outcome(session: str, answer: dict[str, Any]) -> str:
    if answer.get("run") is None:
        return f"Nothing is running in session {session}."
    if answer["stopped"]:
        return f"Stopped run {answer['run']} ({answer.get('reason')})."
    return f"Run {answer['run']} had ended already: {answer.get('status')} ({answer.get('reason')})."
