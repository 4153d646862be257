"""A fork server: starts commands as processes of their own without importing torch for each.

One server for each process of pytest imports what commands import, starts no thread, and forks a
child for every request. The child gets its own session, folder, environment, arguments and
standard streams, and runs its file as `python FILE` does: to Python's own end, with its exit code.
What differs from a new interpreter is what sys.modules holds, and what was read from the
environment while those modules were imported; tests.commands lists the tests that need a new one.
"""

import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
# What torch, Lightning and the commands import only when they need it.
LATE_IMPORTS = ("torch._dynamo", "torch.utils.data", "matplotlib.pyplot", "lightning.pytorch")
MAX_MESSAGE = 2**20
STATUS = struct.Struct("q")
BLANK = "TESTS_BLANK_FIGURES"  # set: figures are one pixel


def save_blank(figure: object, file: Path | io.BytesIO, **options: object) -> None:
    """Save a figure as one pixel: to draw it takes a third of a short run's time."""
    Image.new("RGB", (1, 1)).save(file, "PNG")


class Forked:
    """A process that the server has forked; its members are those of subprocess.Popen."""

    def __init__(self, words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        """Args: words: a Python file and its arguments."""
        self.returncode: int | None = None
        # Files, not pipes: nobody needs to read while the process writes.
        self._output, self._errors = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115
        self._status, status = os.pipe()
        request = {"words": words, "folder": str(folder), "environment": dict(environment)}
        descriptors = [self._output.fileno(), self._errors.fileno(), status]
        socket.send_fds(_server()[0], [json.dumps(request).encode()], descriptors)
        os.close(status)
        self.pid = self._read()

    def __del__(self) -> None:
        os.close(self._status)
        self._output.close()
        self._errors.close()

    def _read(self) -> int:
        data = os.read(self._status, STATUS.size)
        if not data:
            raise RuntimeError("the fork server has ended; its error is on stderr")
        return int(STATUS.unpack(data)[0])

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, -n for a process that signal n ended; else TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked command", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._read())
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end and return what it has written to stdout and stderr."""
        self.wait(timeout)
        self._output.seek(0)
        self._errors.seek(0)
        return self._output.read(), self._errors.read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server() -> "tuple[socket.socket, subprocess.Popen[bytes]]":
    """Return this process's server and the connection to it; it ends when that is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forkserver", str(theirs.fileno())],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends pytest, which ends the server
    )
    theirs.close()
    return ours, process


def end() -> None:
    """End this process's server, if it has one, so that what it has covered is counted."""
    if _server.cache_info().currsize:
        connection, process = _server()
        connection.close()
        process.wait()
        _server.cache_clear()


def import_all() -> None:
    """Import every module of the package and what is imported late, and start no thread."""
    gc.disable()
    # torch._dynamo imports pandas where it is installed, and that pyarrow, which starts a thread.
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    package = importlib.import_module("ddpm_lightning")
    for module in pkgutil.walk_packages(package.__path__, "ddpm_lightning."):
        importlib.import_module(module.name)
    del sys.modules["pyarrow"]
    gc.freeze()  # no child looks through what was imported
    gc.enable()
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"imports have started threads, which a fork loses: {threads}"


def serve(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for every request. Return it in the forked child, and None when pytest has ended.

    Between the server and each child is a process that waits for the child and reports its pid
    and, in the end, its exit status.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries those that wait
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE, 3)
        if not message:
            return None
        if os.fork() == 0:
            connection.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = os.fork()
            if child == 0:
                return json.loads(message), descriptors
            *streams, status = descriptors
            for descriptor in streams:
                os.close(descriptor)
            try:
                os.write(status, STATUS.pack(child))
                os.write(status, STATUS.pack(os.waitpid(child, 0)[1]))
            finally:
                os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)


def run(request: dict[str, Any], descriptors: list[int]) -> None:
    """Run the file that is asked for as `python FILE` does."""
    import numpy as np
    import torch

    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for stream, descriptor in enumerate(descriptors[:2], start=1):
        os.dup2(descriptor, stream)
    for descriptor in descriptors:
        os.close(descriptor)
    np.random.seed()  # these two would draw the same in every child
    torch.seed()
    atexit.register(gc.unfreeze)  # or libraries would speak of leaks
    sys.argv = request["words"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    if os.environ.pop(BLANK, ""):
        Figure = importlib.import_module("matplotlib.figure").Figure  # noqa: N806
        Figure.savefig = save_blank
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    import_all()
    forked = serve(socket.socket(fileno=int(sys.argv[1])))
    if forked is not None:
        run(*forked)
