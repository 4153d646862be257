"""A lock file that one process at a time holds, until it lets go or ends, however it ends."""

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

from ddpm_lightning.files.bounded import read_small

_POLL_S = 0.2

_log = logging.getLogger(__name__)
_held: set[tuple[int, Path]] = set()  # a record lock does not exclude the process that has it


class ProcessLock:
    """Held from construction to release().

    A record lock (fcntl), not flock: a forked worker would go on holding that one after its parent
    was killed. It holds between machines where the file system has such locks. A process must not
    open the lock file by other means: closing it would free the lock.

    Args:
        wait: wait for another holder instead of raising ValueError, which names it.
    Raises OSError when the file cannot be written.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self.path = path.resolve()
        self._me = (os.getpid(), self.path)
        waiting = False
        while (descriptor := self._taken()) is None:
            if not wait:
                raise ValueError(
                    f"{path.parent} is in use by {self._holder()}; wait for its end, or stop it"
                )
            if not waiting:
                _log.info("waiting for %s, which uses %s", self._holder(), path.parent)
            waiting = True
            time.sleep(_POLL_S)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go. The file stays: another process may be about to lock it."""
        _held.discard(self._me)
        os.close(self._descriptor)

    def _taken(self) -> int | None:
        if self._me in _held:
            return None
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):  # POSIX allows both
                return None
            raise OSError(error.errno, f"cannot lock {self.path}: {error.strerror}") from error
        _held.add(self._me)
        return descriptor

    def _holder(self) -> str:
        if self._me in _held:
            return f"this process ({os.getpid()})"
        return read_small(self.path).decode() or "another process"
