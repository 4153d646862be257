"""Decoding in processes that can be killed: no GIF costs more than its budget, or a crash.

Each worker process (see worker) decodes one GIF at a time, under limits on its time and memory that
it sets itself and the kernel keeps. Where it ends, the pool starts another; the GIF gets a cause.
Nothing that a file does reaches the pool's own process.
"""

import asyncio
import json
import math
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ddpm_lightning.data.decode import Decoded, Recipe
from ddpm_lightning.data.ingest.worker import LENGTH, OUT_OF_MEMORY, READY

TIMEOUT, MEMORY, CRASHED = "decode_timeout", "decode_memory", "decoder_crashed"

_WORKER = "ddpm_lightning.data.ingest.worker"
_ROOT = Path(__file__).parents[3]  # what has to be importable there
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each takes memory
_START_SECONDS = 60
_PIPE_BYTES = 2**20  # read at a time


class Failure(NamedTuple):
    """A GIF that gave no clip: its cause and one line more.

    The causes are those of gif_blocks.Cause, and decode_timeout, decode_memory, decoder_crashed.
    """

    cause: str
    detail: str

    @property
    def transient(self) -> bool:
        """Return whether another try may succeed, with more time or a less busy machine."""
        return self.cause in (TIMEOUT, CRASHED)


@dataclass(frozen=True)
class Budget:
    """Limits the decoding of one GIF: seconds of wall time, bytes of memory."""

    seconds: float = 5.0
    memory: int = 512 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"budget.{name} must be positive, got {value}")


DEFAULT_BUDGET = Budget()


class DecodePool:
    """Runs num_workers decode workers, by default one a processor; an async context manager.

    They start when they are needed, or with start, and all are gone when the context ends, however
    it ends.
    """

    def __init__(
        self, recipe: Recipe, num_workers: int | None = None, budget: Budget = DEFAULT_BUDGET
    ) -> None:
        if num_workers is not None and num_workers < 1:
            raise ValueError(
                f"num_workers must be at least 1, or null for one a processor, got {num_workers}"
            )
        num_workers = num_workers or os.cpu_count() or 1
        self._workers = [_Worker(recipe, budget) for _ in range(num_workers)]
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for worker in self._workers:
            await worker.stop()

    async def start(self) -> None:
        """Start all workers, so that none has to when its first file comes."""
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def decode(self, data: bytes) -> Decoded | Failure:
        """Decode one file, when a worker is free.

        Raises ChildProcessError when workers cannot be started; no file is the cause of that.
        """
        worker = await self._idle.get()
        try:
            return await worker.decode(data)
        finally:
            self._idle.put_nowait(worker)


class _Worker:
    """One place in the pool: a process while all goes well, a new one after it had to be killed."""

    def __init__(self, recipe: Recipe, budget: Budget) -> None:
        self._settings = json.dumps({"recipe": asdict(recipe)} | asdict(budget))
        self._process: Process | None = None

    async def decode(self, data: bytes) -> Decoded | Failure:
        process = self._process
        if process is None or process.returncode is not None:
            process = await self.start()
        try:
            return await _exchange(process, data)
        except (EOFError, ConnectionError):  # it is gone
            return _failure(await process.wait())
        except BaseException:  # cancelled: it would answer the next file with this one's clip
            await self.stop()
            raise

    async def start(self) -> Process:
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", _WORKER, self._settings),
            stdin=PIPE,
            stdout=PIPE,
            limit=_PIPE_BYTES,
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        assert process.stdout
        try:
            async with asyncio.timeout(_START_SECONDS):
                await process.stdout.readexactly(len(READY))
        except (EOFError, TimeoutError) as error:
            await self.stop()
            raise ChildProcessError(
                f"a decode worker did not start ({_describe(process.returncode)}); see what "
                f"{sys.executable} -m {_WORKER} says, or give it more memory"
            ) from error
        except BaseException:
            await self.stop()
            raise
        return process

    async def stop(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _exchange(process: Process, data: bytes) -> Decoded | Failure:
    """Hand a file to a worker and take its answer. Raises EOFError or ConnectionError."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(LENGTH.pack(len(data)))
    process.stdin.write(data)
    await process.stdin.drain()
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    answer = json.loads(await process.stdout.readexactly(length))
    if "cause" in answer:
        return Failure(**answer)
    shape = answer["clip"]
    clip = np.frombuffer(await process.stdout.readexactly(math.prod(shape)), np.uint8)
    return Decoded(**answer | {"clip": clip.reshape(shape), "shots": tuple(answer["shots"])})


def _failure(status: int) -> Failure:
    """Return why a worker ended that was not killed here."""
    if status == OUT_OF_MEMORY:
        return Failure(MEMORY, "an allocation was refused")
    if status == -signal.SIGALRM:
        return Failure(TIMEOUT, "its time is over")
    return Failure(CRASHED, _describe(status))


def _describe(status: int | None) -> str:
    if status is not None and status < 0:
        return f"killed by signal {-status}, {signal.strsignal(-status)}"
    return f"exit status {status}"
