"""A decode worker: a process that turns GIFs into clips until its standard input ends.

It can be killed at any moment. It limits its own memory, and the time of a GIF: a signal that it
does not catch ends it. First it writes READY. Then, for each file, it
reads a length and so many bytes, and writes the length of a JSON object, the object, and the bytes
of the clip if there is one. Not pickles: what has read a hostile file is not trusted that far.
"""

import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.gif_blocks import GifError, Limits

READY = b"decode worker ready\n"
LENGTH = struct.Struct("<Q")
OUT_OF_MEMORY = 77  # the exit status that says so


def main(settings: str) -> None:
    """Decode requests; settings is a JSON object with recipe, seconds and memory (in bytes)."""
    received = json.loads(settings)
    recipe = Recipe(**received["recipe"] | {"limits": Limits(**received["recipe"]["limits"])})
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where a library may print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends even what hangs in C
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory(received["memory"])
    with suppress(BrokenPipeError):  # the pool is gone
        _serve(answers, recipe, received["seconds"])


def _serve(answers: BinaryIO, recipe: Recipe, seconds: float) -> None:
    answers.write(READY)
    answers.flush()
    while header := sys.stdin.buffer.read(LENGTH.size):
        data = sys.stdin.buffer.read(*LENGTH.unpack(header))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            answer, clip = _answer(data, recipe)
        except MemoryError:
            os._exit(OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(answers, answer, clip)


def _limit_memory(memory: int) -> None:
    """Refuse allocations that would make this process larger than memory, where Linux allows it.

    Only address space can be limited, so what is mapped but not resident now comes on top.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped, resident = map(int, statm.read_text().split()[:2])  # pages
        space = memory + (mapped - resident) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (space, hard))


def _answer(data: bytes, recipe: Recipe) -> tuple[dict[str, object], np.ndarray | None]:
    """Return what Decoded holds, with the clip apart, or a cause and a detail."""
    try:
        decoded = decode(data, recipe)
    except GifError as error:
        return {"cause": error.cause, "detail": error.message}, None
    return decoded.facts() | {"clip": decoded.clip.shape}, decoded.clip


def _write(answers: BinaryIO, answer: dict[str, object], clip: np.ndarray | None) -> None:
    text = json.dumps(answer).encode()
    answers.write(LENGTH.pack(len(text)) + text)
    if clip is not None:
        answers.write(clip.data)
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
