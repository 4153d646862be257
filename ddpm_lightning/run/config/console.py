"""What is printed, drawn in a bar or logged to a console can neither end nor fail a run."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any


class Console:
    """A stream that drops what its reader does not take: a pipe or a terminal that has been closed,
    a full disk. Letters that its encoding does not have are escaped.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 - None: closed by >&-
        with suppress(AttributeError, OSError, ValueError):
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, do: Callable[[], object]) -> None:
        try:
            do()
        except (OSError, ValueError):  # of a stream that is closed
            with suppress(OSError, ValueError):  # what waits in a buffer goes there, too
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def lasting_console() -> Iterator[None]:
    """Put a Console in the place of standard output and error."""
    output: Any = Console(sys.stdout)
    errors: Any = Console(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            yield
        finally:
            output.flush()
            errors.flush()
