"""Adapters: other libraries' streams as chunks to yield, and the conversation as those libraries take it.

One module per library, which needs that library (an extra of the same name). ``strandline`` itself imports none. AG-UI
(``ag_ui.py``) and agents by URL (``sse.py``) need none.
"""
