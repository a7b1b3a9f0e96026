"""A durable conversation around an agent on another server.

strandline serve main:app     while producer.py runs on port 9000
"""

import os
from typing import Any

from strandline import Run, Strandline, open_on_loopback
from strandline.agents.sources.sse import ag_ui_body, stream_from, ui_message_body

PRODUCER = os.environ.get("PRODUCER", "http://127.0.0.1:9000/")

chat = Strandline("chat.db", auth=open_on_loopback("you"))


@chat.agent
async def reply(run: Run) -> Any:
    return stream_from(PRODUCER, protocol="ag-ui", json=ag_ui_body(run), run=run)


@chat.agent(name="chat")
async def chat_back_end(run: Run) -> Any:
    return stream_from(f"{PRODUCER}chat", json=ui_message_body(run))


app = chat.app(title="Strandline, an agent on another server")
