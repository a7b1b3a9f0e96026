"""A Strandline client in the terminal, with httpx and httpx-sse and nothing else.

python main.py list
python main.py send SESSION "count to 50 every 100 ms"
python main.py follow SESSION
python main.py approve SESSION
python main.py deny SESSION
python main.py stop SESSION
"""

import argparse
import contextlib
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import SSEError, connect_sse

Event = dict[str, Any]


def events(client: httpx.Client, session: str, cursor: str | None = None) -> Iterator[Event]:
    """Everything that happens in a session after the cursor, for ever: a cut is mended by asking again.

    Without a cursor the first event is a snapshot: the whole session at one offset.
    """
    url = f"/sessions/{session}/events"
    while True:
        headers = {"Last-Event-ID": cursor} if cursor else {}
        try:
            # The server says something every 15 s, so a minute of silence is a dead connection.
            with connect_sse(client, "GET", url, headers=headers, timeout=httpx.Timeout(10, read=60)) as source:
                refuse_unless_ok(source.response)
                for frame in source.iter_sse():
                    yield frame.json()
                    cursor = frame.id or cursor  # after it was dealt with, and not before
        except (httpx.TransportError, SSEError, NotNow) as error:
            print(f"[reconnecting: {error}]", file=sys.stderr)
        time.sleep(0.5)


class NotNow(Exception):
    """The server cannot answer now: 429 or 5xx."""


def refuse_unless_ok(response: httpx.Response) -> None:
    """What another try cannot mend ends the program, with what the server says about it (RFC 9457)."""
    if response.is_success:
        return
    response.read()
    if response.status_code == 429 or response.is_server_error:
        raise NotNow(f"HTTP {response.status_code}")
    raise SystemExit(response.text)


def call(client: httpx.Client, method: str, path: str, body: object = None) -> Any:
    """One request, repeated until it is answered. Every call here may be repeated: it has the ids in it."""
    while True:
        try:
            response = client.request(method, path, json=body)
            refuse_unless_ok(response)
            return response.json()
        except (httpx.TransportError, NotNow) as error:
            print(f"[trying again: {error}]", file=sys.stderr)
            time.sleep(0.5)


def show(client: httpx.Client, session: str, run: str | None = None, cursor: str | None = None) -> None:
    """Print what is said: of one run until it ends, or of the whole session until Ctrl-C. What other agents say beside
    a reply is left out."""
    beside: set[str] = set()
    for event in events(client, session, cursor):
        match event:
            case {"type": "snapshot", "messages": messages, "active": active, "spawned": spawned}:
                beside = {each["run"] for each in spawned}
                writing = {each["messageId"] for each in active}
                for message in messages:
                    text = "".join(part.get("text", "") for part in message["parts"] if part["type"] == "text")
                    print(f"{message['role']}: {text}", end="" if message["id"] in writing else "\n", flush=True)
                if run is not None and run not in {each["run"] for each in active}:
                    return  # the cursor was too old; the run has ended, and its text is above
            case {"type": "message-created", "role": role, "parts": parts} if run is None:
                print(f"{role}: {''.join(part.get('text', '') for part in parts)}", flush=True)
            case {"type": "run-queued", "spawned": True, "run": spawned}:
                beside.add(spawned)
            case {"type": "run-queued"} if run is None:
                print("assistant: ", end="", flush=True)
            case {"type": "appended", "run": writer, "chunks": chunks} if (
                run in (None, writer) and writer not in beside
            ):
                for chunk in chunks:
                    if chunk["type"] == "text-delta":
                        print(chunk["delta"], end="", flush=True)
            case {"type": "run-ended", "run": ended, "status": status} if run in (None, ended) and ended not in beside:
                print("" if status == "completed" else f"[{status}]", flush=True)
                if run is not None:
                    return
            case {"type": "session-deleted"}:
                raise SystemExit("The session was deleted.")


def decide(client: httpx.Client, session: str, approved: bool) -> None:
    """Answer whatever the last reply asks approval for, and print how it goes on when nothing is left."""
    cursor = call(client, "GET", f"/sessions/{session}/messages")["cursor"]
    for asked in call(client, "GET", f"/sessions/{session}/decisions")["decisions"]:
        if asked["kind"] == "approval":
            print(f"[{'approved' if approved else 'denied'}: {asked['tool']} {asked['input']}]", flush=True)
            body = {"approved": approved}
            decided = call(client, "POST", f"/sessions/{session}/decisions/{asked['id']}", body)
            if decided["run"] is not None:
                show(client, session, decided["run"], cursor)


def main() -> None:
    parser = argparse.ArgumentParser(description="Talk to a Strandline server.")
    parser.add_argument("--url", default="http://127.0.0.1:8000/api")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="your sessions, those changed last first")
    for name, what in (
        ("send", "say something, and print the reply"),
        ("follow", "print what happens"),
        ("approve", "say yes to what a reply waits for, and print how it goes on"),
        ("deny", "say no to it"),
        ("stop", "stop the reply that is being written"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("session")
        if name == "send":
            command.add_argument("text")
    args = parser.parse_args()

    with httpx.Client(base_url=args.url) as client:
        if args.command == "list":
            for session in call(client, "GET", "/sessions")["sessions"]:
                print(session["id"], "*" if session["activeRun"] else " ", session["title"] or "", sep="\t")
        elif args.command == "send":
            message = {"id": str(uuid.uuid4()), "role": "user", "parts": [{"type": "text", "text": args.text}]}
            call(client, "POST", "/sessions", {"id": args.session})
            sent = call(client, "POST", f"/sessions/{args.session}/messages", {"message": message})
            show(client, args.session, sent["run"], sent["cursor"])
        elif args.command == "follow":
            show(client, args.session)
        elif args.command in ("approve", "deny"):
            decide(client, args.session, args.command == "approve")
        else:
            print(call(client, "POST", f"/sessions/{args.session}/stop", {})["status"])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
