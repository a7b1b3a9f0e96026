"""The server of the Next.js example. Run it beside `npm start`:

strandline serve main:app
"""

import os

from strandline import Strandline, open_on_loopback
from strandline.demo.agent import demo_agent

chat = Strandline("chat.db", auth=open_on_loopback("you"))
chat.agent(demo_agent)  # Needs no key. Your model goes here: docs/agents.md

# The browser comes straight here, from the page's origin. Streams need no detour through Node.
origins = os.environ.get("ORIGINS", "http://localhost:3000,http://127.0.0.1:3000").split(",")
app = chat.app(origins=origins, title="Strandline, Next.js example")
