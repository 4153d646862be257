"""A lock file that one process at a time holds, until it releases it or ends, however it ends."""

import logging
import os
import socket
from pathlib import Path

from ddpm_lightning.files.bounded import read_small

_log = logging.getLogger(__name__)


class ProcessLock:
    """Held from construction to release().

    A forked worker does not go on holding it after its parent was killed: filelock closes the file
    there. It holds between machines where the file system has such locks.

    Args:
        wait: wait for another holder instead of raising ValueError, which names it.
    Raises OSError when the file cannot be written.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        from filelock import FileLock, Timeout  # 11,000 lines, which those who only read can spare

        self._lock = FileLock(
            path, thread_local=False, fallback_to_soft=False, on_acquired=_sign, poll_interval=0.2
        )
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            used = f"{path.parent} is in use by {read_small(path).decode() or 'another process'}"
            if not wait:
                raise ValueError(f"{used}; wait for its end, or stop it") from None
            _log.info("%s; waiting for its end", used)
            self._lock.acquire()

    def release(self) -> None:
        """Release the lock. The file stays: another process may be about to lock it."""
        self._lock.release()


def _sign(descriptor: int) -> None:
    """Write who holds the lock, for those who meet it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
