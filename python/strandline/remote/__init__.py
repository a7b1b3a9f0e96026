"""Agents in a process of their own: a small client of the agent wire (PROTOCOL §18, docs/remote-agents.md).

``await serve_agent("https://host/api/agents", "critic", function)`` answers for the remote agent ``critic``.
"""

from strandline.remote.asking import Refused, Unreachable
from strandline.remote.run import RemoteRun
from strandline.remote.serving import serve_agent

__all__ = ["Refused", "RemoteRun", "Unreachable", "serve_agent"]
