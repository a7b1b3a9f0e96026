"""The environment for the ``ai`` package is made of a Python that works, or its absence is said and is a failure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import second_python


def test_without_a_newer_python_setup_says_so_in_a_line_and_the_tests_fail_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(second_python, "NEEDED", (3, 99))
    monkeypatch.setattr(second_python, "ENVIRONMENT", tmp_path / "none")
    # A shim for a version that is not installed, one that cannot be run, and a Python that is too old.
    for minor, script in (
        (20, "#!/bin/sh\nexit 127\n"),
        (19, "nothing"),
        (18, f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
    ):
        shim = tmp_path / f"python3.{minor}"
        shim.write_text(script)
        shim.chmod(0o755)
    monkeypatch.setattr(second_python, "_candidates", lambda: [str(path) for path in tmp_path.glob("python3.*")])
    second_python.make(tmp_path / "none")
    assert capsys.readouterr().err == f"{second_python.MISSING}\n"
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileNotFoundError, match="run `make setup` again"):
        second_python.interpreter()


def test_a_python_that_is_new_enough_needs_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_python, "NEEDED", (3, 11))
    assert second_python.interpreter() == sys.executable


def test_the_newest_python_is_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("3.11.9", "3.12.1", "3.13.0", "3.9.1", "3.13.0rc1"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    (tmp_path / "python3.14").write_text("#!/bin/sh\n")
    (tmp_path / "pyenv").write_text(f"#!/bin/sh\necho {tmp_path}\n")
    for tool in ("python3.14", "pyenv"):
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = [path.removeprefix(f"{tmp_path}/") for path in second_python._candidates()]
    assert found[0] == "python3.14"
    assert [path for path in found if "rc" not in path][1:] == [
        f"versions/{v}/bin/python" for v in ("3.13.0", "3.12.1")
    ]
