"""Ranks watch each other: real processes that are killed and stopped, over real connections."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ddpm_lightning.training import watch
from ddpm_lightning.training.steps import Steps
from ddpm_lightning.training.watch import LOOPBACK, FirstRankWatch, OtherRankWatch
from tests.commands import ROOT, wait_for

SILENCE = 600.0  # no thread of a busy machine is without the processor for so long
SHORT = 4.0  # where silence is the subject
PROGRAM = """
import sys, time
from ddpm_lightning.training import watch
watch.MAX_SILENCE, watch.BEAT_SECONDS = float(sys.argv[2]), 0.1
def end(cause, is_told): print("failed:", cause, flush=True)
rank, _, place = sys.argv[1].partition("@")
if place:
    port, _, token = place.partition(":")
    watch.OtherRankWatch(int(rank), end, ("127.0.0.1", int(port)), token)
else:
    first = watch.FirstRankWatch(end, list, is_local=True)
    place = f"{first.port}:{first.token}"
print(place, flush=True)
time.sleep(3600)
"""

Told = list[tuple[str, bool]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_SILENCE", SILENCE)
    monkeypatch.setattr(watch, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(watch, "_ECHO_SECONDS", 0.0)


@contextmanager
def process(rank: str, silence: float = SILENCE) -> Iterator["subprocess.Popen[str]"]:
    """A rank in a process of its own: 0 for the first one, RANK@PLACE for another."""
    command = [sys.executable, "-c", PROGRAM, rank, str(silence)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        found.kill()
        found.wait()


def place(rank: "subprocess.Popen[str]") -> str:
    """PORT:TOKEN of rank 0, once the process is ready."""
    assert rank.stdout is not None
    return rank.stdout.readline().strip()


def place_of(watching: FirstRankWatch) -> str:
    return f"{watching.port}:{watching.token}"


@contextmanager
def first(told: Told) -> Iterator[FirstRankWatch]:
    watching = FirstRankWatch(lambda *failure: told.append(failure), list, is_local=True)
    try:
        yield watching
    finally:
        watching.end()


def other(rank: int, place: str, told: Told) -> OtherRankWatch:
    port, _, token = place.partition(":")
    address = LOOPBACK, int(port)
    return OtherRankWatch(rank, lambda *failure: told.append(failure), address, token)


def test_a_rank_that_fails_ends_all_and_its_cause_is_told_once() -> None:
    told: list[Told] = [[], [], []]
    with first(told[0]) as watching:
        failing, third = (
            other(1, place_of(watching), told[1]),
            other(2, place_of(watching), told[2]),
        )
        time.sleep(0.3)
        failing.end("ValueError: no")
        wait_for(lambda: told[0] and told[2], every=0.01)
        third.end()
    cause = f"rank 1 (process {os.getpid()}): ValueError: no"
    assert told == [[(cause, False)], [], [(cause, True)]]


@pytest.mark.slow
def test_the_last_word_arrives_though_the_other_side_was_not_read_to_its_end() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        connection = socket.create_connection(server.getsockname())
        hearing = watch.Line(server.accept()[0], {"rank": 0}, "token")
    saying = watch.Line(connection, {"rank": 1, "token": "token"}, None)
    for _ in range(20):  # long enough for the kernel to put its acknowledgements off
        saying.send({"at": None})
        time.sleep(0.05)
    saying.send({"at": None})
    saying.send({"end": "ValueError: no"})
    saying.socket.close()
    time.sleep(0.1)
    assert hearing.receive()[-1] == {"end": "ValueError: no"}
    hearing.socket.close()


def within_a_step(seconds: float) -> Steps:
    found = Steps(seconds)
    for step in range(5):
        found.end()
        found.begin(step)
    return found


@pytest.mark.slow
def test_ranks_that_are_all_within_a_step_for_too_long_end() -> None:
    told: list[Told] = [[], []]
    with first(told[0]) as watching:
        follower = other(1, place_of(watching), told[1])
        watching.steps = within_a_step(0.5)
        time.sleep(1.5)
        assert told == [[], []]  # the other one is outside
        follower.steps = within_a_step(0.5)
        wait_for(lambda: told[0] and told[1], every=0.01)
        follower.end()
    ((cause, is_told),) = told[0]
    assert cause.startswith(
        "no rank gets on, and which of them hangs is not known; rank 0 (process"
    )
    assert f"; rank 1 (process {os.getpid()}) stands in the forward pass of step 4 for " in cause
    assert not is_told
    assert told[1] == [(cause, True)]


def test_rank_0_that_fails_ends_the_others() -> None:
    told: Told = []
    with first([]) as watching:
        follower = other(1, place_of(watching), told)
        time.sleep(0.3)
        watching.end("OSError: the disk is full")
        wait_for(lambda: told, every=0.01)
        follower.end()
    assert told == [("OSError: the disk is full", True)]


@pytest.mark.slow
def test_ranks_that_end_well_one_after_the_other_are_no_failure() -> None:
    told: Told = []
    with first(told) as watching:
        ranks = [other(rank, place_of(watching), told) for rank in (1, 2)]
        ranks[0].end()
        time.sleep(0.5)
        watching.end()
        time.sleep(0.5)
        ranks[1].end()
    assert told == []


@pytest.mark.slow
def test_strangers_are_passed_over() -> None:
    told: Told = []
    with first(told) as watching:
        follower = other(1, place_of(watching), told)
        guess = json.dumps({"rank": 1, "pid": os.getpid(), "token": "0" * 32, "end": "no"}).encode()
        for greeting in (b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b"{}\n", b"", b"\xff" * 99, guess):
            with socket.create_connection(("127.0.0.1", watching.port)) as stranger:
                stranger.sendall(greeting + b"\n")
        wait_for(lambda: len(watching._lines) == 1)
        time.sleep(0.5)
        assert len(watching._lines) == 1
        follower.end()
    assert told == []


@pytest.mark.slow
def test_a_rank_that_is_killed_is_noticed_at_once() -> None:
    told: Told = []
    children: list[Any] = []
    watching = FirstRankWatch(
        lambda *failure: told.append(failure), lambda: children, is_local=True
    )
    with process(f"1@{place_of(watching)}") as child:
        children.append(child)
        place(child)
        time.sleep(0.3)
        child.kill()
        wait_for(lambda: told, SILENCE / 2, every=0.01)
    watching.end()
    assert told == [(f"rank 1 (process {child.pid}): killed by signal 9", False)]


@pytest.mark.slow
def test_so_is_rank_0() -> None:
    told: Told = []
    with process("0") as child:
        follower = other(1, place(child), told)
        time.sleep(0.3)
        child.kill()
        wait_for(lambda: told, SILENCE / 2, every=0.01)
        follower.end()
    assert told == [("rank 0: gone without a word; was it killed?", False)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_stands_still_is_named_and_killed(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_SILENCE", SHORT)
    told: Told = []
    with (
        first(told) as watching,
        process(f"1@{place_of(watching)}" if rank else "0", SHORT) as child,
    ):
        where = place(child)
        follower = None if rank else other(1, where, told)
        time.sleep(0.5)
        child.send_signal(signal.SIGSTOP)
        assert child.wait(600) == -signal.SIGKILL
        if follower is not None:
            follower.end()
    assert told == [(f"rank {rank} (process {child.pid}) has given no sign of life for 4 s", False)]


@pytest.mark.slow
def test_ranks_that_are_all_stopped_for_a_while_go_on() -> None:
    """Ctrl-Z and fg; scontrol suspend and resume."""
    with process("0", SHORT) as zero, process(f"1@{place(zero)}", SHORT) as one:
        place(one)
        time.sleep(0.5)
        stops = [(signal.SIGSTOP, SHORT + 1), (signal.SIGCONT, 1), (signal.SIGSTOP, 0)]
        for number, seconds in stops:
            for rank in (one, zero):
                rank.send_signal(number)
                time.sleep(0.05)
            time.sleep(seconds)
        for rank in (one, zero):
            rank.kill()
            assert rank.stdout is not None
            assert rank.stdout.read() == ""


def test_nobody_at_the_address_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        other(1, f"{port}:", [])
