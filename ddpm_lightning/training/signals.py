"""Signals that end a run: noted when they come, obeyed where training can be left.

Lightning's own handlers would end the process with exit code 0, or in the middle of a validation.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType


class Stopped(BaseException):
    """A signal ended a run, after its checkpoint was written."""

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(message)
        self.signal_number = signal_number


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call a handler for what ends a run, for a while."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread do it
        return
    before = {number: signal.signal(number, handler) for number in watched_signals()}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def stopped_by_signals(message: str) -> AbstractContextManager[None]:
    """What ends a run raises Stopped at once, with this message: nothing need be saved here."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, message)

    return handled(stop)


def watched_signals() -> list[signal.Signals]:
    """SIGINT, SIGTERM, and SIGUSR1 in a SLURM job, which gets it before its time is up. SIGHUP of a
    terminal that closes, and SIGXCPU of a limit, unless they are ignored, as nohup makes them.
    """
    also = [signal.SIGUSR1] if "SLURM_JOB_ID" in os.environ else []
    also += [n for n in (signal.SIGHUP, signal.SIGXCPU) if signal.getsignal(n) != signal.SIG_IGN]
    return [signal.SIGINT, signal.SIGTERM, *also]


class SignalWatch:
    """From install() to restore(), `received` is the number of the first signal that came.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers = ExitStack()

    def install(self) -> None:
        self._handlers.enter_context(handled(self._note))

    def restore(self) -> None:
        self._handlers.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or number
