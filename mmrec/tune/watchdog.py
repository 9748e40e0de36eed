"""Ends a worker that hangs, with a traceback of where. No Ray here."""

import faulthandler
import sys
from contextlib import suppress
from typing import IO

from mmrec.study.store import Folder


def stuck_file(attempt: int) -> str:
    """What the file in a trial's folder is called that says where an attempt at it hung."""
    return f"stuck-{attempt}.txt"


class Watchdog:
    """Ends this process if it is not fed for `seconds`; it waits outside Python's lock.

    So it also ends a process that hangs in native code. The traceback goes to `file` in the run
    folder, or to the worker's log where that folder is not on a file system.
    """

    def __init__(self, seconds: float, folder: Folder, file: str) -> None:
        """`seconds` of 0 is no watchdog."""
        self.seconds, self.folder, self.file = seconds, folder, file
        self._stream: IO[str] | None = None

    def feed(self) -> None:
        """Begin to count anew."""
        if self.seconds > 0:
            faulthandler.dump_traceback_later(self.seconds, exit=True, file=self._opened())

    def rest(self) -> None:
        """Do not count until the next `feed`."""
        faulthandler.cancel_dump_traceback_later()

    def close(self) -> None:
        """Leave no empty file behind."""
        self.rest()
        if self._stream is not None:
            self._stream.close()
            with suppress(OSError):  # or it would hide why a trial on bad storage ends
                (self.folder.path / self.file).unlink(missing_ok=True)
            self._stream = None

    def _opened(self) -> IO[str]:
        if not self.folder.is_local:
            return sys.stderr
        if self._stream is None:
            path = self.folder.path / self.file
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w")
        return self._stream
