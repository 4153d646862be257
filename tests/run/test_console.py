"""Whatever becomes of a console, what is printed there ends no run and fails none."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest
from tqdm import tqdm

from ddpm_lightning.run.config.console import Console, lasting_console
from tests.commands import ROOT, TINY, environment, write_gifs


def broken_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed_terminal() -> TextIO:
    master, terminal = pty.openpty()
    os.close(master)
    return os.fdopen(terminal, "w")


def full_disk() -> TextIO:
    return Path("/dev/full").open("w")


def closed_stream() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


def no_stream() -> None:
    """As Python has it where the shell said >&-."""


def ascii_terminal() -> TextIO:
    return io.TextIOWrapper(io.BytesIO(), "ascii")


BROKEN = [broken_pipe, closed_terminal, full_disk, closed_stream, no_stream, ascii_terminal]


@pytest.fixture(params=BROKEN, ids=lambda make: make.__name__)
def console(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    stream = request.param()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        with lasting_console():
            assert isinstance(sys.stdout, Console)
            yield sys.stdout
    if stream is not None and not stream.closed:
        stream.close()  # nothing that still waits in it can fail, either


@pytest.mark.parametrize("make", [make for make in BROKEN if make is not no_stream])
def test_each_stream_fails_by_itself(make: Callable[[], TextIO]) -> None:
    stream = make()
    with pytest.raises((OSError, ValueError)):
        print("Bücher ✓", file=stream, flush=True)
    with suppress(OSError):
        stream.close()


def test_printing_fails_on_none(console: Console) -> None:
    assert console.write("Bücher ✓") == len("Bücher ✓")
    for _ in range(3):
        print("Bücher ✓", "x" * 100_000, flush=True)
        print("more", file=sys.stderr)


def test_neither_does_a_bar_nor_logging(console: Console) -> None:
    with tqdm(total=3, file=sys.stderr, mininterval=0) as bar:
        for _ in range(3):
            bar.update()
    handler = logging.StreamHandler(sys.stdout)
    handler.emit(logging.LogRecord("n", logging.INFO, "", 0, "Bücher", (), None))
    handler.flush()
    assert bar.n == 3


def test_letters_that_an_encoding_does_not_have_are_escaped() -> None:
    stream = ascii_terminal()
    print("Bücher", file=Console(stream), flush=True)
    assert isinstance(stream, io.TextIOWrapper)
    assert stream.buffer.getvalue() == b"B\\xfccher\n"


@pytest.mark.long
@pytest.mark.parametrize(
    "redirection",
    [
        "2>&1 | head -1",
        *(
            pytest.param(to, marks=pytest.mark.long)
            for to in ("| head -1", ">&- 2>&-", "> /dev/full 2>&1")
        ),
    ],
)
def test_a_run_ends_well_without_its_console(redirection: str, tmp_path: Path) -> None:
    write_gifs(tmp_path / "gifs")
    words = " ".join([*TINY, "logger=csv", "run_dir=out", "callbacks.samples.first_step=-1"])
    line = f"{sys.executable} {ROOT}/train.py {words} {redirection}; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment(), check=False)
    assert result.returncode == 0
    assert json.loads((tmp_path / "out" / "status.json").read_text())["status"] == "finished"
