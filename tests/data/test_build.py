"""Stores of local sources: built once, rebuilt when they must be, every skipped file counted."""

import logging
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data.build import build
from ddpm_lightning.data.dataset import ClipDataset
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.gif import Limits, encode
from ddpm_lightning.data.order import Sample
from ddpm_lightning.data.shards import MANIFEST
from ddpm_lightning.data.shots import ShotMode
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.sources.moving_digits import MovingDigits
from ddpm_lightning.data.split import split
from ddpm_lightning.data.store import ClipStore, DamagedClip
from ddpm_lightning.data.windows import Windows
from tests.data.shared import noise_clip, noise_gif
from tests.data.stores import bin_of, index_of

RECIPE = Recipe(height=6, width=7, fps=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips of 5, 6 and 7 frames at 10 a second, seeds 0 to 2."""
    path = tmp_path / "gifs"
    path.mkdir()
    for seed in range(3):
        (path / f"{seed}.gif").write_bytes(noise_gif(seed, 5 + seed))
    return path


def build_in(
    folder: Path, progress: Callable[[int, int], None] | None = None, **changes: Any
) -> ClipStore:
    return build(GifFolder(folder), replace(RECIPE, **changes), folder.parent / "cache", progress)


def folder_of(store: ClipStore) -> Path:
    (address,) = store.addresses
    return Path(address)


def state(store: ClipStore) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder_of(store).iterdir()}


def test_what_is_odd_about_a_gif_that_is_taken_is_counted(folder: Path) -> None:
    data = noise_gif(7)
    (folder / "a.gif").write_bytes(data[:-1])
    (folder / "b.gif").write_bytes(data[:-1] + b"junk")
    (folder / "c.gif").write_bytes(noise_gif(8)[:-1])
    (folder / "d.gif").write_bytes(noise_gif(9)[:-3])
    summary = build_in(folder).summary()
    assert "6 clips" in summary
    assert "skipped 1: 1 truncated" in summary
    assert "taken all the same 3: 2 no_trailer, 1 extra_bytes" in summary


def test_a_store_holds_every_clip_exactly(folder: Path) -> None:
    calls = []
    store = build_in(folder, progress=lambda done, total: calls.append((done, total)))
    assert len(store) == 3
    assert store.complete
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for seed, entry in enumerate(store.entries):
        np.testing.assert_array_equal(store.clip(seed), noise_clip(seed, 5 + seed))
        assert (entry.key, entry.num_frames) == (f"{seed}.gif", 5 + seed)
        assert entry.seconds == pytest.approx(0.5 + 0.1 * seed)
        assert (entry.width, entry.height) == (7, 6)
        assert entry.gif_fps == pytest.approx(10)
    assert store.summary() == f"3 clips from {folder}"


@pytest.mark.parametrize(
    ("shots", "allowed"),
    [("any", "r rb b"), ("first", "r"), ("longest", "b"), ("within", "r b")],
)
def test_windows_of_a_built_store_stay_in_the_shots_that_are_allowed(
    tmp_path: Path, shots: ShotMode, allowed: str
) -> None:
    """10 red frames, then 14 blue ones, at 10 a second; 200 windows of 4 frames."""
    frames = np.zeros((24, 6, 7, 3), dtype=np.uint8)
    frames[:10, ..., 0] = frames[10:, ..., 2] = 255
    (tmp_path / "red_then_blue.gif").write_bytes(encode(frames, [100] * 24))
    store = build(GifFolder(tmp_path), RECIPE, tmp_path / "cache")
    assert store.entries[0].shots == (0, 10)
    dataset = ClipDataset(store, [0], Windows(4, random=True, shots=shots))
    clips = dataset.__getitems__([Sample(0, number) for number in range(200)]).clip.numpy()
    reds, blues = (np.any(clips[..., channel], axis=(1, 2, 3)).tolist() for channel in (0, 2))
    seen = {"r" * red + "b" * blue for red, blue in zip(reds, blues, strict=True)}
    assert seen == set(allowed.split())


@pytest.mark.slow
def test_moving_digits_have_one_shot_each(tmp_path: Path) -> None:
    source = MovingDigits(tmp_path / "digits", num_clips=30)
    for size, channels in ((16, 1), (32, 3)):
        recipe = replace(RECIPE, height=size, width=size, channels=channels)
        store = build(source, recipe, tmp_path / "cache")
        assert {entry.shots for entry in store.entries} == {(0,)}


def test_shards_are_written_as_clips_come(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip has 5 to 7 frames of 126 bytes: two of them fill a shard of 1,000."""
    monkeypatch.setattr("ddpm_lightning.data.build._SHARD_BYTES", 1000)
    (folder / "0 first.gif").touch()
    (folder / "9 last.gif").touch()
    store = build_in(folder)
    assert [store.shard(i) for i in range(3)] == [0, 0, 1]
    assert store.skipped_keys == {"0 first.gif": "not_a_gif", "9 last.gif": "not_a_gif"}
    np.testing.assert_array_equal(store.clip(2), noise_clip(2, 7))


def test_a_store_is_reused_without_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state(build_in(folder))
    monkeypatch.setattr("ddpm_lightning.data.build.decode", None)
    assert state(build_in(folder)) == before


def test_a_store_is_built_again_when_a_file_changes(folder: Path) -> None:
    first = build_in(folder)
    (folder / "1.gif").write_bytes(noise_gif(9, 8))
    second = build_in(folder)
    assert folder_of(second) != folder_of(first)
    np.testing.assert_array_equal(second.clip(1), noise_clip(9, 8))


@pytest.mark.slow
def test_other_formats_and_filters_get_their_own_store(folder: Path) -> None:
    stores = [
        build_in(folder),
        build_in(folder, height=3, width=3),
        build_in(folder, fps=5),
        build_in(folder, channels=1),
        build_in(folder, min_seconds=0.6),
        build_in(folder, limits=Limits(max_frames=6)),
    ]
    assert len({folder_of(store) for store in stores}) == 6
    assert [store.shape for store in stores[1:4]] == [(3, 3, 3), (6, 7, 3), (6, 7, 1)]
    assert [store.clip(0).shape[1:] for store in stores[1:4]] == [(3, 3, 3), (6, 7, 3), (6, 7, 1)]
    assert stores[2].fps == 5


DAMAGES = {
    "short clips": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "no clips": lambda path: path.unlink(),
    "no description": lambda path: path.unlink(),
    "half a description": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "another description": lambda path: path.write_text("[1]"),
    "no manifest": lambda path: path.unlink(),
    "half a manifest": lambda path: path.write_bytes(path.read_bytes()[:50]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_store_is_rebuilt_with_a_warning(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = build_in(folder)
    files = {path: path.read_bytes() for path in folder_of(first).iterdir()}
    stored = folder_of(first)
    kinds = {"clips": bin_of(stored, 0), "description": index_of(stored, 0)}
    DAMAGES[name](kinds.get(name.rsplit(maxsplit=1)[-1], stored / MANIFEST))
    with caplog.at_level(logging.WARNING):
        build_in(folder)
    assert {path: path.read_bytes() for path in folder_of(first).iterdir()} == files
    assert "rebuilding a damaged clip store" in caplog.text
    assert list(folder_of(first).parent.glob("[!.]*")) == [folder_of(first)]


def test_a_flipped_bit_is_noticed_when_it_is_read_and_mended_by_the_next_build(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = build_in(folder)
    file = bin_of(folder_of(store), 0)
    whole = file.read_bytes()
    file.write_bytes(whole[:9] + bytes([whole[9] ^ 4]) + whole[10:])
    store = build_in(folder)  # opening reads no clip
    with pytest.raises(DamagedClip, match=r"0\.gif in .*shard-00000-\w+\.bin is damaged"):
        store.clip(0)
    assert "damaged shard" in caplog.text
    np.testing.assert_array_equal(store.clip(1), noise_clip(1, 6))  # the others are as they were
    assert "damaged shards 1" in store.summary()
    again = build_in(folder)
    assert "rebuilding a damaged clip store" in caplog.text
    assert file.read_bytes() == whole
    assert again.damage == {}


def test_unusable_gifs_are_counted_by_cause(folder: Path) -> None:
    whole = noise_gif(0)
    (folder / "copy.gif").write_bytes(whole)
    (folder / "cut.gif").write_bytes(whole[:-9])
    (folder / "page.gif").write_bytes(b"<html>")
    (folder / "empty.gif").touch()
    (folder / "short.gif").write_bytes(noise_gif(5, 1, 20))
    (folder / "long.gif").write_bytes(noise_gif(6, 2, 5000))
    store = build_in(folder, min_seconds=0.1, max_seconds=9)
    assert len(store) == 3
    assert store.skipped_keys == {
        "copy.gif": "duplicate",
        "cut.gif": "truncated",
        "empty.gif": "not_a_gif",
        "long.gif": "too_long",
        "page.gif": "not_a_gif",
        "short.gif": "too_short",
    }
    assert store.summary().startswith(f"3 clips from {folder}; skipped 6: 2 not_a_gif, 1 ")


def test_a_delay_beyond_what_a_clip_may_hold_is_skipped(folder: Path) -> None:
    (folder / "still.gif").write_bytes(encode(noise_clip(0, 1), [655350]))
    assert build_in(folder).skipped == {"too_long": 1}


def test_no_usable_gif_is_one_line_with_the_counts(tmp_path: Path) -> None:
    (tmp_path / "a.gif").touch()
    (tmp_path / "b.gif").write_bytes(noise_gif(0)[:-2])
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match=r"no usable GIF in .*: 2 files, 1 not_a_gif, 1 truncated"):
        build(GifFolder(tmp_path), RECIPE, cache)
    assert list(cache.glob("[!.]*")) == []


def test_an_unwritable_folder_is_an_error_that_names_it(folder: Path) -> None:
    (folder.parent / "cache").touch()
    with pytest.raises(
        OSError, match=rf"cannot write {folder.parent / 'cache'}.*; free some space"
    ):
        build_in(folder)


def _build(folder: Path) -> list[bytes]:
    store = build_in(folder)
    return [store.clip(i).tobytes() for i in range(len(store))]


@pytest.mark.long
def test_processes_that_build_the_same_store_agree(folder: Path) -> None:
    for seed in range(3, 40):
        (folder / f"{seed}.gif").write_bytes(noise_gif(seed))
    with get_context("spawn").Pool(2) as pool:
        first, *others = pool.map(_build, [folder] * 4, chunksize=1)
    assert len(first) == 40
    assert all(other == first for other in others)
    assert len(list((folder.parent / "cache").glob("[!.]*"))) == 1


def test_split_is_stable_monotone_and_fair() -> None:
    """1,000 hashes: a fraction of 0.1 gives 100 +- 5 standard errors of 9.5."""
    hashes = [np.random.default_rng(seed).bytes(32).hex() for seed in range(1000)]
    val = {content for content in hashes if split(content, 0.1) == "val"}
    assert 52 < len(val) < 148
    assert val <= {content for content in hashes if split(content, 0.2) == "val"}
    assert {split(content, 0) for content in hashes} == {"train"}
    assert {split(content, 1) for content in hashes} == {"val"}


def test_adding_files_moves_no_clip_to_the_other_side(folder: Path) -> None:
    def sides() -> dict[str, str]:
        return {entry.key: split(entry.sha256, 0.5) for entry in build_in(folder).entries}

    before = sides()
    for seed in range(3, 9):
        (folder / f"{seed - 9}.gif").write_bytes(noise_gif(seed))
    after = sides()
    assert len(after) == 9
    assert before.items() <= after.items()
