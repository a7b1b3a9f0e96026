"""Clients of the load trials: one HTTP request on one socket, read as fast, as slowly or as little as a trial says."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from replies import Sent, asking
from server_process import APP, ServerProcess
from strandline.testing import Frame, FrameReader

LOAD_APP = APP.with_name("load_app.py")

LINE = 8_000
"""Bytes of one line of a flood."""
_ATTACH_FILTER = 26
"""Linux's SO_ATTACH_FILTER, which Python does not name."""
_RETURN = 6
"""The one instruction of that filter: let 0 bytes through."""


def flood(lines: int) -> str:
    """What ``flood`` says (apps/load_app.py)."""
    return "0\n" + "".join(f"{number} ".ljust(LINE - 1, "x") + "\n" for number in range(1, lines + 1))


def resident(server: ServerProcess) -> int:
    """The memory of the server's process, in bytes."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


def descriptors(server: ServerProcess) -> int:
    """How many files and sockets the server has open."""
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def held(server: ServerProcess, wire: Wire) -> bool:
    """Whether the server still has its end of this connection open."""
    port = wire.sock.getsockname()[1]
    ends = [f"0100007F:{server.port:04X}", f"0100007F:{port:04X}"]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[1:3] == ends and row[9] != "0" for row in rows)  # inode 0: nobody's any more


class Wire(Sent):
    """A request and its response. Nothing is read but by ``take``, ``end`` and ``follow``.

    ``over``: the response has come to its proper end. ``cut``: the connection has ended without.
    """

    def __init__(self, sock: socket.socket, chat: str) -> None:
        self.sock = sock
        self.chat = chat
        self.status = 0
        self.headers: dict[str, str] = {}
        self.over = self.cut = False
        self.plain = bytearray()
        self._reader = FrameReader()
        self._raw = bytearray()
        self._due = 0
        self._task: asyncio.Task[Wire] | None = None

    @classmethod
    async def connect(cls, server: ServerProcess, chat: str = "", *, room: int = 0) -> Wire:
        """``room``: the size of its own buffer, in bytes; with next to none what is not read piles up at the server."""
        sock = socket.socket()
        sock.setblocking(False)
        if room:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        except BaseException:
            sock.close()
            raise
        return cls(sock, chat)

    async def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Wire:
        """Send it whole."""
        return await self.send(head(method, path, body, headers))

    async def send(self, data: bytes) -> Wire:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)
        return self

    async def take(self, size: int = 262_144) -> bool:
        """Read once, at most ``size`` bytes; False when there is nothing more to come, and the socket
        is closed."""
        data = await self._receive(size)
        if not data:
            self.cut = not self.over
            self.sock.close()
            return False
        self._raw += data
        self._parse()
        if self.over:
            self.sock.close()
        return not self.over

    async def begin(self) -> Wire:
        """Read until there is something to resume from."""
        while self.cursor is None:
            assert await self.take(), (self.status, self.plain)
        return self

    async def end(self, timeout: float = 60.0) -> Wire:
        """Read to the end. What ``follow`` has begun is waited for."""
        async with asyncio.timeout(timeout):
            if self._task is not None:
                await self._task
            while not (self.over or self.cut) and await self.take():
                pass
        return self

    def follow(self) -> Wire:
        """Read in the background."""
        self._task = asyncio.create_task(self._follow())
        return self

    async def _follow(self) -> None:
        while await self.take():
            pass

    async def slowly(self, size: int, pause: float) -> None:
        """Read ``size`` bytes at a time, with a pause in between, to the end. They are looked at only then, for a long
        frame is not put together from small pieces."""
        try:
            while True:
                data = await self._receive(size)
                if not data:
                    break
                self._raw += data
                await asyncio.sleep(pause)
        finally:
            self._parse()
        self.cut = not self.over
        self.sock.close()

    async def _receive(self, size: int) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(self.sock, size)
        except OSError:
            return b""

    def vanish(self) -> None:
        """From now on the kernel drops every packet that comes for this socket, unanswered: the host is gone. What it
        sends does not arrive either, because it sends nothing."""
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
        program = struct.pack("HL", 1, ctypes.addressof(nothing))
        self.sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST, as a process that dies does."""
        if self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.close()

    # ------------------------------------------------------------------ what has come

    @property
    def frames(self) -> list[Frame]:
        return self._reader.frames

    @property
    def comments(self) -> list[str]:
        return self._reader.comments

    @property
    def json(self) -> Any:
        return json.loads(self.plain)

    def _parse(self) -> None:
        if not self.status:
            before, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            first, *lines = before.decode("latin-1").split("\r\n")
            self.status = int(first.split()[1])
            self.headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            self._raw = rest
            if "transfer-encoding" not in self.headers:
                self._due = int(self.headers.get("content-length", "0"))
        if "transfer-encoding" not in self.headers:
            self.plain += self._raw
            self._raw.clear()
            self.over = len(self.plain) >= self._due
            return
        body = bytearray()
        at = 0
        while not self.over:
            line_end = self._raw.find(b"\r\n", at)
            if line_end < 0:
                break
            size = int(self._raw[at:line_end], 16)
            if len(self._raw) < line_end + 4 + size:
                break
            body += self._raw[line_end + 2 : line_end + 2 + size]
            at = line_end + 4 + size
            self.over = size == 0
        del self._raw[:at]
        if self.status == 200:
            self._reader.feed(bytes(body))
        self.plain += b"" if self.status == 200 else body


def head(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request, as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def ask(server: ServerProcess, chat: str, text: str, id: str = "u1", *, room: int = 0, **headers: str) -> Wire:
    """Submit a message; nothing of the answer is read yet."""
    wire = await Wire.connect(server, chat, room=room)
    return await wire.request("POST", "/api/chat", asking(chat, text, id), headers)


async def resume(
    server: ServerProcess,
    chat: str,
    cursor: str | None = None,
    *,
    run: str | None = None,
    room: int = 0,
    headers: Mapping[str, str] | None = None,
) -> Wire:
    """Attach to the active run, or to ``run``, or go on after ``cursor``; nothing is read yet."""
    wire = await Wire.connect(server, chat, room=room)
    named = {"Last-Event-ID": cursor} if cursor is not None else {}
    query = f"?run={run}" if run is not None else ""
    return await wire.request("GET", f"/api/chat/{chat}/stream{query}", None, {**(headers or {}), **named})


async def get(server: ServerProcess, path: str) -> Any:
    """A JSON answer."""
    wire = await (await (await Wire.connect(server)).request("GET", path)).end()
    assert wire.status == 200, (wire.status, wire.plain)
    return wire.json


async def history(server: ServerProcess, chat: str) -> Any:
    return await get(server, f"/api/chat/{chat}/messages")


async def inside(server: ServerProcess) -> dict[str, int]:
    """What the process says about itself (apps/load_app.py)."""
    found: dict[str, int] = await get(server, "/inside")
    return found
