"""The server of the TanStack AI example: the API, and the page that `npm run build` made.

npm run build && strandline serve main:app     and open http://127.0.0.1:8000
"""

from pathlib import Path

from fastapi.staticfiles import StaticFiles

from strandline import Strandline, open_on_loopback
from strandline.demo.agent import demo_agent

chat = Strandline("chat.db", auth=open_on_loopback("you"))
chat.agent(demo_agent)  # Needs no key. Your model goes here: docs/agents.md

app = chat.app(title="Strandline, TanStack AI example")
app.mount("/", StaticFiles(directory=Path(__file__).with_name("dist"), html=True, check_dir=False))
