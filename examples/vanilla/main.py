"""A chat with no front-end framework and no build: this file serves the API and one page.

strandline serve main:app     and open http://127.0.0.1:8000
"""

from pathlib import Path

from fastapi.responses import FileResponse

from strandline import Strandline, open_on_loopback
from strandline.demo.agent import demo_agent

chat = Strandline("chat.db", auth=open_on_loopback("you"))
chat.agent(demo_agent)  # Needs no key. Your model goes here: docs/agents.md

app = chat.app(title="Strandline, vanilla example")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("index.html"))
