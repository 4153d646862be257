"""What is small by its nature is bounded before it is read, wherever it is read."""

import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from ddpm_lightning.data.build import build
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.ingest.driver import read_report
from ddpm_lightning.data.places import LocalPlace, place
from ddpm_lightning.data.shards import read_manifest
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.evaluation.features.weights import read_checked
from ddpm_lightning.files.bounded import SMALL, read_json, read_small, read_stream
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.start import read_status
from ddpm_lightning.run.exchange.exported import load_exported

GIB = 2**30


def sparse(path: Path, size: int = 40 * GIB) -> Path:
    """Make a file of zeros that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


REFUSED: dict[str, Callable[[Path], object]] = {
    "manifest.json": lambda path: read_manifest(path.parent),
    "parts/manifest.json": lambda path: ClipStore(path.parent),
    "shard.json": lambda path: LocalPlace(path.parent).read(path.name),
    "weights.pt": lambda path: read_checked(path, "0" * 64),
    "metrics.csv": read_metrics,
    "clips.json": read_json,
    "run.safetensors": load_exported,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sparse_file_is_refused_in_no_time(name: str, tmp_path: Path) -> None:
    path = sparse(tmp_path / name)
    started = time.monotonic()
    with pytest.raises((ValueError, UserError), match=f"has {40 * GIB:,} bytes, at most"):
        REFUSED[name](path)
    assert time.monotonic() - started < 1


def test_a_sparse_file_counts_as_damaged_where_it_is_made_again(tmp_path: Path) -> None:
    assert read_report(sparse(tmp_path / "ingest.json").parent) == {}
    assert read_status(sparse(tmp_path / "status.json").parent)["status"] == "unknown"
    digits = tmp_path / "digits"
    MovingDigits(digits, 2)
    sparse(digits / "manifest.json")
    assert len(MovingDigits(digits, 2).keys()) == 2
    assert (digits / "manifest.json").stat().st_size < SMALL


def test_a_sparse_manifest_of_a_cache_is_built_again(tmp_path: Path) -> None:
    gifs = tmp_path / "gifs"
    gifs.mkdir()
    frames = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    (gifs / "a.gif").write_bytes(encode(frames, [100] * 3))
    recipe = Recipe(8, 8, 10)
    folder = Path(build(GifFolder(gifs), recipe, tmp_path / "cache").addresses[0])
    sparse(folder / "manifest.json")
    assert len(build(GifFolder(gifs), recipe, tmp_path / "cache")) == 1


def test_a_large_file_of_another_machine_is_not_read_to_its_end(tmp_path: Path) -> None:
    sparse(tmp_path / "manifest.json", SMALL + 2**24)
    elsewhere = place(f"local://{tmp_path}", tmp_path / "copies")
    assert SMALL < len(elsewhere.read("manifest.json")) <= SMALL + 2**20


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_small_file_is_read_whole(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    assert read_small(path, 100) == bytes(size)
    with pytest.raises(ValueError, match="bytes, at most"):
        read_small(path, size - 1)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "status.json")
    with pytest.raises(OSError, match="not a regular file"):
        read_small(tmp_path / "status.json")
    assert read_status(tmp_path)["status"] == "unknown"


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match="too deep"):
        read_json(tmp_path / "a.json")


class Trickle(BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3))


def test_what_comes_in_small_pieces_is_read_to_its_end() -> None:
    assert read_stream(Trickle(b"0123456789"), 10) == b"0123456789"
    assert read_stream(Trickle(b"0123456789"), 4) == b"012345"
