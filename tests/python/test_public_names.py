"""The public surface is small and exactly what ``__all__`` says (STYLE §1.2.13)."""

from __future__ import annotations

import strandline


def test_every_public_name_exists_and_is_documented() -> None:
    assert sorted(strandline.__all__) == list(strandline.__all__)
    for name in strandline.__all__:
        thing = getattr(strandline, name)
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"


def test_the_surface_stays_small() -> None:
    assert len(strandline.__all__) <= 15
