"""Ranks that watch each other: when one dies or stands still, all end, and one says which it was.

A collective operation waits for a rank that is gone until its own limit, and that must be long, for
ranks wait for each other in good runs too. Here every rank has a connection to rank 0, over which
both give a sign of life each second, from a thread: it shows that a process runs. With it comes
where its main thread is in a training step, by which rank 0 finds a hang (see training.steps).
"""

import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ddpm_lightning.training.steps import Position, Steps, hang

LOOPBACK = "127.0.0.1"
BEAT_SECONDS = 1.0
_MAX_BYTES = 2**16  # of a message
MAX_SILENCE = 30.0  # seconds, after which a rank counts as stopped
_ECHO_SECONDS = 2.0  # an error here may come of another rank's end, which is found meanwhile

# {"rank", "pid", "machine"} is the first of each side, of the other ranks with {"token"}: who does
# not know it is not heard. {"at": position} is a sign of life; {"end": null} that a rank
# has ended well, {"end": cause} that it has not; rank 0 adds to it the {"stopped"} rank, if any.
Message = dict[str, Any]
OnFailure = Callable[[str, bool], None]
Children = Callable[[], list["subprocess.Popen[bytes]"]]


class Line:
    """A connection to another rank.

    Args:
        first: what this rank says of itself.
        token: that the other side must know; None: rank 0's, which need not.

    peer: its first message.   is_open: until the other side has closed it.
    at: where its main thread is in a training step; None: outside.
    """

    def __init__(self, connection: socket.socket, first: Message, token: str | None) -> None:
        connection.settimeout(BEAT_SECONDS)
        # A socket closed with something unread is reset, and drops what it still holds back.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.peer: Message = {}
        self.is_open = True
        self.at: Position | None = None
        self.heard_at = time.monotonic()
        self._received = b""
        self._token = token
        self.send({"pid": os.getpid(), "machine": _machine(), **first})

    def __str__(self) -> str:
        return f"rank {self.peer['rank']} (process {self.peer['pid']})"

    def send(self, message: Message) -> None:
        with suppress(OSError):  # if it is gone, that will be heard
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message]:
        """What has come."""
        try:
            received = self.socket.recv(2**16)
            self.is_open = bool(received)
            *lines, self._received = (self._received + received).split(b"\n")
            if len(self._received) > _MAX_BYTES:
                raise ValueError
            messages = [dict(json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError):  # reset, or not a rank
            self.is_open = False
            return []
        self.heard_at = time.monotonic()
        self.peer = next((m for m in [self.peer, *messages] if self._is_first(m)), {})
        for message in messages if self.peer else []:
            if "at" in message:
                self.at = message["at"] and Position(*message["at"])
        return messages

    def _is_first(self, message: Message) -> bool:
        return "rank" in message and (self._token is None or message.get("token") == self._token)

    @property
    def is_silent(self) -> bool:
        return time.monotonic() - self.heard_at > MAX_SILENCE


class Watch(ABC):
    """One rank's part, in a thread.

    Args:
        rank: its number.
        on_failure: called in that thread, once, with the cause when another rank has failed, and
            with whether a third one tells it. The main thread may wait for the failed rank for
            ever, so this is to end the process.

    steps: those of this process, once there are any.
    """

    def __init__(self, rank: int, on_failure: OnFailure) -> None:
        self._rank = rank
        self._on_failure = on_failure
        self.steps: Steps | None = None
        self._lines: list[Line] = []
        self._selector = selectors.DefaultSelector()
        self._ended = Event()
        self._thread = Thread(target=self._run, name="rank-watch", daemon=True)

    def end(self, cause: str | None = None) -> None:
        """This rank has ended: well, or of a cause, which the others are told."""
        if cause is not None:
            time.sleep(_ECHO_SECONDS)
        self._ended.set()
        self._thread.join()
        for line in self._lines:
            line.send({"end": cause})
            line.socket.close()

    @abstractmethod
    def _look(self, ready: set[Any]) -> None:
        """Hears the sockets that have something to say, and finds out who is silent."""

    def _add(self, connection: socket.socket, first: Message, token: str | None) -> None:
        self._lines.append(Line(connection, {"rank": self._rank, **first}, token))
        self._selector.register(connection, selectors.EVENT_READ)

    def _fail(self, cause: str, is_told: bool, stopped: Message | None) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        if stopped and stopped["machine"] == _machine():
            with suppress(OSError):
                os.kill(stopped["pid"], signal.SIGKILL)  # it takes no other signal
        self._on_failure(cause, is_told)

    def _run(self) -> None:
        beat_at = time.monotonic()
        while not self._ended.is_set():
            ready = {key.fileobj for key, _ in self._selector.select(BEAT_SECONDS / 2)}
            now = time.monotonic()
            if now - beat_at > MAX_SILENCE / 3:  # it was this process that stood still
                for line in self._lines:
                    line.heard_at = now
                if self.steps is not None:
                    self.steps.forgive()
            self._look(ready)
            if now - beat_at >= BEAT_SECONDS:
                beat_at = now
                for line in self._lines:
                    line.send({"at": self.steps and self.steps.position()})


class FirstRankWatch(Watch):
    """Rank 0 listens at `port`, hears all others, and tells them what has become of one.

    Args:
        on_failure: see Watch.
        children: finds the processes of other ranks that this one has started.
        is_local: all ranks are on this machine.

    port, token: where it listens, and what it wants to hear from other ranks.
    """

    def __init__(self, on_failure: OnFailure, children: Children, is_local: bool) -> None:
        super().__init__(0, on_failure)
        self._children = children
        self.token = secrets.token_hex(16)
        both = socket.has_dualstack_ipv6() and not is_local
        family = socket.AF_INET6 if both else socket.AF_INET
        host = LOOPBACK if is_local else ""
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=both)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]
        self._thread.start()

    def end(self, cause: str | None = None) -> None:
        super().end(cause)
        self._listener.close()

    def _look(self, ready: set[Any]) -> None:
        if self._listener in ready:
            self._add(self._listener.accept()[0], {}, self.token)
        for line in list(self._lines):
            if line.socket in ready:
                self._hear(line)
            elif line.is_silent and line.peer:
                cause = f"{line} has given no sign of life for {MAX_SILENCE:.0f} s"
                self._fail(cause, False, line.peer)
            elif line.is_silent:
                self._drop(line)
        for child in self._children():
            if child.poll():
                lines = [line for line in self._lines if line.peer.get("pid") == child.pid]
                for line in lines:  # it knows the rank, and may hold its last word
                    self._hear(line)
                if not lines:
                    cause = f"a rank (process {child.pid}): {how_ended(child.returncode)}"
                    self._fail(cause, False, None)
        if self.steps is not None:
            self._look_for_hang(self.steps)

    def _look_for_hang(self, steps: Steps) -> None:
        positions = {f"rank 0 (process {os.getpid()})": steps.position()}
        positions.update((str(line), line.at) for line in self._lines if line.peer)
        if (cause := hang(positions, steps.seconds)) is not None:
            self._fail(cause, False, None)

    def _hear(self, line: Line) -> None:
        ends = [message["end"] for message in line.receive() if "end" in message]
        if line.is_open and not ends:
            return
        self._drop(line)
        if not line.peer:  # it was none of us
            return
        cause = ends[0] if ends else self._how_ended(line.peer["pid"])
        if cause is not None:
            self._fail(f"{line}: {cause}", False, None)

    def _drop(self, line: Line) -> None:
        self._lines.remove(line)
        self._selector.unregister(line.socket)
        line.socket.close()

    def _how_ended(self, pid: int) -> str:
        for child in self._children():
            if child.pid == pid:
                with suppress(subprocess.TimeoutExpired):
                    return how_ended(child.wait(BEAT_SECONDS))
        return "gone without a word; was it killed?"

    def _fail(self, cause: str, is_told: bool, stopped: Message | None) -> None:
        for line in self._lines if not self._ended.is_set() else []:
            line.send({"end": cause, "stopped": stopped})
        super()._fail(cause, is_told, stopped)


class OtherRankWatch(Watch):
    """Any other rank, connected to rank 0.

    Args:
        rank, on_failure: see Watch.
        address: (host, port) of rank 0. Raises OSError if it is not there.
        token: that rank 0 wants to hear.
    """

    def __init__(
        self, rank: int, on_failure: OnFailure, address: tuple[str, int], token: str
    ) -> None:
        super().__init__(rank, on_failure)
        connection = socket.create_connection(address, timeout=MAX_SILENCE)
        self._add(connection, {"token": token}, None)
        self._thread.start()

    def _look(self, ready: set[Any]) -> None:
        (line,) = self._lines
        is_told = self._rank > 1  # by rank 1
        if line.socket in ready:
            ends = [message for message in line.receive() if "end" in message]
            if ends and ends[0]["end"] is None:
                self._ended.set()
            elif ends:
                self._fail(ends[0]["end"], True, ends[0].get("stopped"))
            elif not line.is_open:
                self._fail("rank 0: gone without a word; was it killed?", is_told, None)
        elif line.is_silent:
            cause = f"{line} has given no sign of life for {MAX_SILENCE:.0f} s"
            self._fail(cause, is_told, line.peer)


def how_ended(status: int) -> str:
    """A process with this return code."""
    if status < 0:
        return f"killed by signal {-status}"
    return "done" if status == 0 else f"ended with exit code {status}"


def _machine() -> str:
    """Where process ids mean the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()
