"""The demo as an application: the chat, and the page that was built into ``static/``."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from strandline.demo.agent import demo_agent
from strandline.http.app import Strandline
from strandline.http.auth import open_on_loopback

STATIC = Path(__file__).parent / "static"

_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Strandline demo</title>
<style>body{font:16px/1.6 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem}
code{background:#8883;padding:.1em .3em}
</style><h1>The server runs. The page is not built.</h1>
<p>This is a source install without the demo page. To build it you need Node.js 20 or newer:</p>
<p><code>npm ci &amp;&amp; npm run build -w js-adapter &amp;&amp; npm run build -w demo</code></p>
<p>Then reload this page. The API is at <code>/api/chat</code> and <code>/api/sessions</code> all the same.</p></html>
"""


def demo_app(database: str) -> FastAPI:
    """The demo over a database file (or ``memory:``), for this machine only."""
    chat = Strandline(database, auth=open_on_loopback("you"))
    chat.agent(demo_agent)
    app = chat.app(title="Strandline demo")
    index = STATIC / "index.html"

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        if not index.is_file():
            return HTMLResponse(_NOT_BUILT)
        return FileResponse(index, headers={"Cache-Control": "no-cache"})

    if index.is_file():
        app.mount("/", StaticFiles(directory=STATIC), name="static")
    return app
