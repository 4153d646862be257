"""The decode pool: real workers that are killed, stopped and starved, and what their GIFs get."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data.decode import Decoded, Recipe, decode
from ddpm_lightning.data.ingest.pool import Budget, DecodePool
from tests.commands import wait_for
from tests.data.shared import gif_bytes, noise_gif

RECIPE = Recipe(height=8, width=8, fps=10)
GIF = noise_gif(seed=0)


def pooled(
    steps: Callable[[DecodePool], Awaitable[Any]],
    num_workers: int = 1,
    budget: Budget | None = None,
) -> Any:
    """What the coroutine steps(pool) returns, given a pool that works."""

    async def main() -> Any:
        async with DecodePool(RECIPE, num_workers, budget or Budget()) as pool:
            assert isinstance(await pool.decode(GIF), Decoded)
            return await steps(pool)

    return asyncio.run(main())


def pids(pool: DecodePool) -> list[int]:
    return [worker._process.pid for worker in pool._workers if worker._process]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def huge_gif(num_images: int = 2) -> bytes:
    """A few hundred bytes that take 64 MiB for the canvas alone."""
    images = [{"indices": [[k % 3]], "disposal": 3, "transparent": 3} for k in range(num_images)]
    return gif_bytes((4096, 4096), images)


@pytest.mark.slow
def test_a_pool_decodes_like_a_call() -> None:
    gifs = [noise_gif(seed, num_frames=3 + seed) for seed in range(8)] + [GIF[:-2], b""]

    async def steps(pool: DecodePool) -> Any:
        return await asyncio.gather(*map(pool.decode, gifs))

    *decoded, cut, empty = pooled(steps, num_workers=2)
    for data, theirs in zip(gifs, decoded, strict=False):
        ours = decode(data, RECIPE)
        np.testing.assert_array_equal(ours.clip, theirs.clip)
        assert ours[1:] == theirs[1:]
    assert (cut.cause, empty.cause) == ("truncated", "not_a_gif")
    assert not cut.transient


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.long)]
)
def test_a_crashed_worker_is_replaced_and_its_gif_has_a_cause(number: int) -> None:
    async def steps(pool: DecodePool) -> Any:
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        broken = asyncio.create_task(pool.decode(GIF))
        await asyncio.sleep(0.1)
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        return await broken, await pool.decode(GIF), pid, pids(pool)

    broken, after, pid, new_pids = pooled(steps)
    assert broken.cause == "decoder_crashed"
    assert f"signal {number}" in broken.detail
    assert broken.transient
    assert isinstance(after, Decoded)
    assert pid not in new_pids


@pytest.mark.slow
def test_a_worker_that_takes_too_long_ends_and_is_replaced() -> None:
    async def steps(pool: DecodePool) -> Any:
        return await pool.decode(huge_gif(num_images=20)), await pool.decode(GIF)

    long, after = pooled(steps, budget=Budget(seconds=0.1, memory=2**40))
    assert (long.cause, long.transient) == ("decode_timeout", True)
    assert isinstance(after, Decoded)


@pytest.mark.slow
def test_more_memory_than_the_budget_is_refused() -> None:
    async def steps(pool: DecodePool) -> Any:
        return await pool.decode(huge_gif()), await pool.decode(GIF)

    failure, after = pooled(steps, budget=Budget(memory=160 * 2**20))
    assert failure.cause == "decode_memory"
    assert not failure.transient
    assert isinstance(after, Decoded)


@pytest.mark.slow
def test_a_worker_that_died_idle_costs_no_gif() -> None:
    async def steps(pool: DecodePool) -> Any:
        (process,) = [worker._process for worker in pool._workers]
        assert process is not None
        process.kill()
        while process.returncode is None:
            await asyncio.sleep(0.01)
        return await pool.decode(GIF)

    assert isinstance(pooled(steps), Decoded)


@pytest.mark.slow
def test_a_cancelled_decode_leaves_a_working_pool() -> None:
    async def steps(pool: DecodePool) -> Any:
        (pid,) = pids(pool)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.decode(GIF), 0.1)
        return await pool.decode(GIF), is_alive(pid)

    after, alive = pooled(steps)
    assert isinstance(after, Decoded)
    assert not alive


@pytest.mark.slow
def test_no_worker_outlives_the_context() -> None:
    started = []

    async def steps(pool: DecodePool) -> Any:
        started.extend(pids(pool))
        raise RuntimeError("something else went wrong")

    with pytest.raises(RuntimeError, match="something else"):
        pooled(steps)
    assert started
    assert not any(map(is_alive, started))


def test_workers_that_cannot_start_are_no_fault_of_the_gif(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(pool: DecodePool) -> None:
        raise AssertionError("the pool works")

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ChildProcessError, match="a decode worker did not start"):
        pooled(steps)


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"budget.seconds must be positive, got 0"):
        Budget(seconds=0)


ORPHANS = """
import asyncio, os, signal
from tests.data.ingest.test_pool import GIF, DecodePool, RECIPE, pids

async def main():
    async with DecodePool(RECIPE, 2) as pool:
        await asyncio.gather(pool.decode(GIF), pool.decode(GIF))
        print(*pids(pool), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.long
def test_workers_end_when_their_pool_is_killed() -> None:
    command = [sys.executable, "-c", ORPHANS]
    root = Path(__file__).parents[3]
    ended = subprocess.run(command, stdout=subprocess.PIPE, cwd=root, check=False)
    orphans = [int(pid) for pid in ended.stdout.split()]
    assert len(orphans) == 2
    wait_for(lambda: not any(map(is_alive, orphans)))
