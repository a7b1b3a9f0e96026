"""Record what the installed ai@5, 6 and 7 show for each golden reply. Run it after an upgrade, and read the diff.

``python tests/golden/record.py``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python" / "property"))

from test_fold_differential import fold_with_ai, gated  # noqa: E402

from strandline.core.message import fold  # noqa: E402
from strandline.core.unfold import unfold  # noqa: E402


def lines(values: list[dict[str, object]]) -> str:
    return ",".join("\n    " + json.dumps(value, ensure_ascii=False) for value in values)


for path in sorted(HERE.glob("*.json")):
    golden = json.loads(path.read_text())
    chunks = golden["chunks"]
    shown = {major: fold_with_ai(major, [gated(chunks, major)])[0]["message"]["parts"] for major in (5, 6, 7)}
    path.write_text(
        "{\n"
        f'  "about": {json.dumps(golden["about"], ensure_ascii=False)},\n'
        f'  "chunks": [{lines(chunks)}\n  ],\n'
        f'  "unfolded": [{lines(unfold(fold(chunks)))}\n  ],\n'
        '  "shown": {\n'
        + ",\n".join(f'    "{major}": [{lines(parts)}\n    ]' for major, parts in shown.items())
        + "\n  }\n}\n"
    )
