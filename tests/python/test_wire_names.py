"""The names on the wire are the same on both sides (STYLE §1.2.5)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strandline.codecs import ag_ui, sse
from strandline.http import wire
from strandline.settings import Settings

SOURCE = (Path(__file__).parents[2] / "js-adapter" / "src" / "protocol.ts").read_text()
THEIRS = {name: value.strip('"') for name, value in re.findall(r"export const (\w+) = ([^;]+);", SOURCE)}


@pytest.mark.parametrize("name", sorted(name for name in vars(wire) if name.isupper() and name in THEIRS))
def test_a_name_that_both_sides_have_is_the_same(name: str) -> None:
    assert THEIRS[name] == getattr(wire, name)


def test_every_header_that_the_shim_names_is_named_here() -> None:
    assert {name for name in THEIRS if name.endswith("_HEADER")} <= set(vars(wire))


def test_what_is_not_a_name_agrees_as_well() -> None:
    assert THEIRS["CHANGED"] == ag_ui.CHANGED
    assert THEIRS["ANNOTATED"] == ag_ui.ANNOTATED
    assert THEIRS["DECIDED"] == ag_ui.DECIDED
    assert f"data: {THEIRS['DONE']}\n\n".encode() == sse.DONE
    assert int(THEIRS["HEARTBEAT_MS"].replace("_", "")) == Settings().heartbeat * 1000
    assert int(THEIRS["STOP_MEMORY_MS"].replace("_", "")) == Settings().stop_memory * 1000
