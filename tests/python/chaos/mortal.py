"""A server process that is made to be killed: see ``forking.py`` for how it starts, and where it may die."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from forking import Aim, Forked, Nursery

from server_process import ServerProcess


class MortalServer(ServerProcess):
    """A ``ServerProcess`` that a nursery forks. ``aim`` is that of the process that starts next, and of that one only;
    ``aimed`` that of the one that runs.

    kills: how many of its processes have died by SIGKILL.
    """

    process: Forked

    def __init__(self, folder: Path, nursery: Nursery, *, busy: float = 3.0, **options: Any) -> None:
        self._nursery = nursery
        self._busy = busy
        self.aim: Aim | None = None
        self.aimed: Aim | None = None
        self.kills = 0
        super().__init__(folder, **options)

    def launch(self) -> Forked:
        self.aimed, self.aim = self.aim, None
        return self._nursery.serve(self.app, self.port, self.env, self.log, self.aimed, self._busy)

    def arm(self) -> None:
        """The statements of an aim with ``armed=False`` count from now on; without such an aim nothing happens."""
        if self.aimed is not None and not self.aimed.armed:
            self.process.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            self.buried()

    def buried(self, timeout: float = 30.0) -> None:
        """Wait for the end of a process that dies by itself; it must have been SIGKILL."""
        code = self.process.wait(timeout)
        assert code == -signal.SIGKILL, f"ended with {code}: {self.said()}"
        self.kills += 1

    def dies_within(self, timeout: float) -> bool:
        """Whether the process meets its aim in this time."""
        try:
            self.buried(timeout)
        except TimeoutError:
            return False
        return True
