"""Broken, odd and hostile files through real workers: a clip of every block, or a cause.

Never a crash, never more memory than the budget.
"""

import asyncio
import io
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_lightning.data.decode import FETCHED_LIMITS, Decoded, Recipe
from ddpm_lightning.data.gif_blocks import walk
from ddpm_lightning.data.ingest.pool import Budget, DecodePool, Failure
from tests.data.shared import SHARED, gif_bytes, noise_gif, shared_gifs

BUDGET = Budget(seconds=600)  # test_pool shows that a worker is killed when its time is up
LOST = {"decode_timeout", "decode_memory", "decoder_crashed"}


@dataclass
class Workers:
    """One pool in a loop of its own, for tests that are not coroutines."""

    runner: asyncio.Runner
    pool: DecodePool
    causes: Counter[str] = field(default_factory=Counter)

    def decode(self, data: bytes) -> Decoded | Failure:
        result = self.runner.run(self.pool.decode(data))
        self.causes["decoded" if isinstance(result, Decoded) else result.cause] += 1
        return result

    def cause_of(self, data: bytes) -> str:
        result = self.decode(data)
        assert isinstance(result, Failure)
        return result.cause

    def peak_bytes(self) -> int:
        """The most memory that a worker living now has held."""
        pids = [worker._process.pid for worker in self.pool._workers if worker._process]
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
        peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        return max(peaks, default=0) * 1024


@pytest.fixture
def workers() -> Iterator[Workers]:
    with asyncio.Runner() as runner:
        pool = DecodePool(Recipe(height=64, width=64, fps=8), 1, BUDGET)
        yield Workers(runner, pool)
        runner.run(pool.__aexit__(None, None, None))


def assert_within_budget(workers: Workers) -> None:
    assert not LOST & workers.causes.keys()
    assert workers.peak_bytes() <= BUDGET.memory


@pytest.mark.slow
def test_hostile_files_give_every_block_or_a_cause(workers: Workers) -> None:
    paths = shared_gifs("hostile")
    table = (SHARED / "hostile" / "hostile.tsv").read_text().splitlines()
    names = table[0].split("\t")
    rows = [dict(zip(names, line.split("\t"), strict=False)) for line in table[1:]]
    blocks = {row["file"]: int(row["frames_in_blocks"]) for row in rows}
    for path in paths:
        result = workers.decode(path.read_bytes())
        if isinstance(result, Decoded):
            assert result.num_gif_frames == blocks[path.name], path.name
        else:
            assert "\n" not in result.detail
    assert_within_budget(workers)
    assert workers.causes.total() == len(paths)
    assert workers.causes["decoded"] >= 90


def solid_gif(num_frames: int, side: int) -> bytes:
    """num_frames black images of side x side pixels, in a few kilobytes each."""
    image_module = pytest.importorskip("PIL.Image", reason="needs Pillow")
    file = io.BytesIO()
    image_module.new("P", (side, side)).save(file, "GIF")
    (image,) = walk(file.getvalue(), FETCHED_LIMITS).images
    head = struct.pack("<6sHHBxx", b"GIF89a", side, side, 0x80) + bytes(6)
    block = struct.pack("<BHHHHB", 0x2C, 0, 0, side, side, 0) + image.data
    return head + num_frames * block + b"\x3b"


@pytest.mark.long
@pytest.mark.parametrize(("num_frames", "side"), [(25, 4000), (2000, 447)])
def test_the_largest_files_allowed_stay_within_memory(
    workers: Workers, num_frames: int, side: int
) -> None:
    """400 megapixels."""
    data = solid_gif(num_frames, side)
    assert workers.cause_of(data) == "still"
    assert workers.peak_bytes() <= BUDGET.memory
    assert workers.cause_of(data[:-2]) == "truncated"


def holes_gif() -> bytes:
    """Every disposal, transparency, a patch that leaves the canvas."""
    generator = np.random.default_rng(0)
    images = [
        {
            "indices": generator.integers(0, 4, (6, 5)),
            "left": 2 * k,
            "disposal": k,
            "transparent": 3,
        }
        for k in range(4)
    ]
    return gif_bytes((9, 7), images)


SEEDS = [holes_gif(), noise_gif(seed=0, num_frames=3), noise_gif(seed=1, num_frames=12)]
SEEDS.append(gif_bytes((3, 2), [{"indices": [[k, 1, 2]] * 2} for k in range(3)], header=b"GIF87a"))

WORDS = [b"\x00", b"\xff", b"\x3b", b"\x2c", b"\x21\xf9\x04", b"\x21\xff\x0b", b"\xff\xff", b"\x0c"]
MUTATION = st.tuples(
    st.sampled_from(["flip", "overwrite", "insert", "delete", "repeat", "cut"]),
    st.integers(6, 2**16),  # where, modulo the length; seldom in the signature
    st.integers(1, 40),  # how many bytes
    st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=4)),
)


def mutate(data: bytes, mutations: list[tuple[Any, ...]]) -> bytes:
    for kind, where, size, word in mutations:
        place = where % (len(data) + 1)
        before, after = data[:place], data[place:]
        if kind == "flip" and after:
            data = before + bytes([after[0] ^ 1 << size % 8]) + after[1:]
        elif kind == "overwrite":
            data = before + word + after[len(word) :]
        elif kind == "insert":
            data = before + word + after
        elif kind == "delete":
            data = before + after[size:]
        elif kind == "repeat":
            data = before + after[:size] * 3 + after[size:]
        elif kind == "cut":
            data = before
    return data


def check_mutants(workers: Workers, count: int) -> None:
    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(SEEDS), st.lists(MUTATION, min_size=1, max_size=4))
    def every_block_or_a_cause(seed: bytes, mutations: list[tuple[Any, ...]]) -> None:
        data = mutate(seed, mutations)
        result = workers.decode(data)
        if isinstance(result, Decoded):
            assert result.num_gif_frames == len(walk(data, FETCHED_LIMITS).images)
            assert len(result.clip) >= 2
        else:
            assert result.cause not in {"decoder_crashed", "decode_memory"}
            assert "\n" not in result.detail

    every_block_or_a_cause()
    assert_within_budget(workers)
    assert workers.causes.total() >= count
    assert workers.causes["decoded"] > count / 20  # not all of them were broken beyond use
    assert len(workers.causes) >= 5


@pytest.mark.long
def test_500_mutated_gifs_give_every_block_or_a_cause(workers: Workers) -> None:
    check_mutants(workers, 500)


@pytest.mark.long
def test_10000_mutated_gifs_give_every_block_or_a_cause(workers: Workers) -> None:
    check_mutants(workers, 10_000)
