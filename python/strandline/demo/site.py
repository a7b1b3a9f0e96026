"""The demo as an application: the chat, and the page that was built into ``static/``."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from strandline.demo.agent import demo_agent
from strandline.http.app import Strandline
from strandline.http.auth import open_on_loopback
from strandline.settings import Settings
from strandline.stores.port import Store

STATIC = Path(__file__).parent / "static"

COMMANDS = (
    ("count to N every M ms", "streams 1 2 3 … N, one number and one space per step"),
    ("fail after N", "raises after N numbers"),
    ("think N", "reasons in N steps, then answers"),
    ("call weather CITY", "streams a tool's input, gives its output, answers"),
    ("say nothing", "finishes without any text"),
    ("delete FILE", "asks for approval, and goes on when somebody has decided"),
    ("send mail to NAME", "asks for approval, and goes on when somebody has decided"),
    ("plan N days in CITY", "writes day by day, and takes what it is told meanwhile into account"),
    ("research TOPIC", "two more agents look something up beside it, and say how far they are"),
)
"""What the demo agent understands, for whoever is about to type."""

_FOR_EVER = "public, max-age=31536000, immutable"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}

_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Strandline demo</title>
<style>body{font:16px/1.6 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem}
code{background:#8883;padding:.1em .3em}
</style><h1>The server runs. The page is not built.</h1>
<p>This is a source install without the demo page. To build it you need Node.js 20 or newer:</p>
<p><code>npm install &amp;&amp; npm run build -w js-adapter &amp;&amp; npm run build -w demo</code></p>
<p>Then reload this page. The API is at <code>/api/chat</code> and <code>/api/sessions</code> all the same.</p></html>
"""


def demo_app(database: str | Path | Store, *, settings: Settings | None = None) -> FastAPI:
    """The demo over a database file (or ``memory:``), for this machine only."""
    chat = Strandline(database, auth=open_on_loopback("you"), settings=settings)
    chat.agent(demo_agent)
    app = chat.app(title="Strandline demo")

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> Response:
        # Asked every time: the page may be built while the server runs.
        if not page_is_built():
            return HTMLResponse(_NOT_BUILT, headers={"Cache-Control": "no-store"})
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/", _Built(directory=STATIC, check_dir=False), name="static")
    return app


def page_is_built() -> bool:
    """False for a source install where nobody ran the build."""
    return (STATIC / "index.html").is_file()


class _Built(StaticFiles):
    """The files of the build. Assets have their hash in their name, so they never change."""

    async def check_config(self) -> None:
        """The directory may be missing, and may come later."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        asset = Path(path).parts[:1] == ("assets",)
        response.headers["Cache-Control"] = _FOR_EVER if asset else "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        kind = _TYPES.get(Path(path).suffix)
        if kind is not None and "content-type" in response.headers:
            # By our own table: the one of the operating system lacks some, and on some machines .js is plain text.
            response.headers["Content-Type"] = kind
        return response
