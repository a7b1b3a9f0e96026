"""What the fault suite has of seeds, lengths and fast servers is used here as well: see ``chaos/trials.py``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "chaos"))

from trials import nursery, scale, seed

__all__ = ["nursery", "scale", "seed"]
