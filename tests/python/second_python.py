"""Makes the environment for what needs a newer Python than the project does: ``python second_python.py FOLDER``.

The ``ai`` package needs Python 3.12. Where the project's own interpreter is as new, it is installed there with
everything else and nothing is made here. Otherwise its tests run what has it in a second environment, of the newest
Python that the machine has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-ai"
NEEDED = (3, 12)
MISSING = "The tests of the `ai` package need a Python >= 3.12 beside this one: install it, and run `make test` again."


def interpreter() -> str:
    """The one that has the ``ai`` package. Raises FileNotFoundError saying what to do."""
    if sys.version_info >= NEEDED:
        return sys.executable
    if not (ENVIRONMENT / ".ready").exists():
        raise FileNotFoundError(MISSING)
    return str(ENVIRONMENT / "bin" / "python")


def make(folder: Path) -> None:
    python = next((each for each in _candidates() if _works(each)), None)
    if python is None:
        sys.stderr.write(f"{MISSING}\n")
        return
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    package = next(each for each in dev if each.startswith("ai=="))
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    subprocess.run([folder / "bin" / "python", *pip, package, "--editable", ROOT], check=True)
    (folder / ".ready").touch()


def _candidates() -> Iterator[str]:
    """Newest first: those on the path, then those that pyenv keeps off it."""
    for minor in range(20, NEEDED[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found is not None:
            yield found
    pyenv = shutil.which("pyenv")
    if pyenv is not None:
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        versions = [path for path in Path(root, "versions").glob("3.*") if _version(path.name) >= NEEDED]
        for path in sorted(versions, key=lambda path: _version(path.name), reverse=True):
            yield str(path / "bin" / "python")


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdigit())


def _works(python: str) -> bool:
    """A shim may stand for a version that is not installed, and Debian ships interpreters without venv."""
    code = f"import ensurepip, sys; sys.exit(sys.version_info < {NEEDED})"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


if __name__ == "__main__":
    if sys.version_info < NEEDED:
        make(Path(sys.argv[1]))
