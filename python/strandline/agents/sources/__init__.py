"""Adapters for other libraries' streams, one module each. Each needs its library; the extra of its name installs it.
AG-UI and agents by URL (``ag_ui.py``, ``sse.py``) need none."""
