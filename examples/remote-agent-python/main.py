"""The server of a chat whose agent lives in another process (agent.py).

strandline serve main:app     and, beside it, python agent.py
"""

from strandline import Strandline, open_on_loopback

chat = Strandline("chat.db", auth=open_on_loopback("you"))
chat.remote_agent("counter", lease=15)  # seconds of silence after which its worker counts as gone

app = chat.app(title="Strandline, remote agent")
