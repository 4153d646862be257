"""The cache: built once, rebuilt when it must be, every skipped file counted."""

import logging
import pickle

import numpy as np
import pytest

from ddpm_lightning.data.cache import ClipCache, build, split
from ddpm_lightning.data.clip import ClipFormat
from ddpm_lightning.data.gif import Limits, encode
from ddpm_lightning.data.sources.folder import GifFolder
from tests.data.shared import noise_clip, noise_gif

FORMAT = ClipFormat(height=6, width=7, num_frames=4, fps=10)


@pytest.fixture
def folder(tmp_path):
    """Three clips of 5, 6 and 7 frames at 10 a second, seeds 0 to 2."""
    path = tmp_path / "gifs"
    path.mkdir()
    for seed in range(3):
        (path / f"{seed}.gif").write_bytes(noise_gif(seed, 5 + seed))
    return path


def build_in(folder, **arguments):
    arguments = {"clip_format": FORMAT, "directory": folder.parent / "cache"} | arguments
    return build(GifFolder(folder), **arguments)


def state(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.directory.iterdir()}


def test_cache_holds_every_clip_exactly(folder):
    calls = []
    cache = build_in(folder, progress=lambda done, total: calls.append((done, total)))
    assert len(cache) == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    for seed, entry in enumerate(cache.entries):
        np.testing.assert_array_equal(cache.clip(seed), noise_clip(seed, 5 + seed))
        assert (entry.key, entry.num_frames) == (f"{seed}.gif", 5 + seed)
        assert entry.seconds == pytest.approx(0.5 + 0.1 * seed)
    assert cache.summary() == f"3 clips from {folder}"
    with pytest.raises(ValueError, match="read-only"):
        cache.clip(0)[:] = 0


def test_cache_is_reused_without_decoding(folder, monkeypatch):
    before = state(build_in(folder))
    monkeypatch.setattr("ddpm_lightning.data.cache.resample", None)
    longer_windows = ClipFormat(height=6, width=7, num_frames=16, fps=10)
    assert state(build_in(folder, clip_format=longer_windows)) == before


def test_cache_is_rebuilt_when_a_file_changes(folder):
    first = build_in(folder)
    (folder / "1.gif").write_bytes(noise_gif(9, 8))
    second = build_in(folder)
    assert second.directory != first.directory
    assert second.sha256 != first.sha256
    np.testing.assert_array_equal(second.clip(1), noise_clip(9, 8))


def test_other_formats_and_filters_get_their_own_cache(folder):
    caches = [
        build_in(folder),
        build_in(folder, clip_format=ClipFormat(3, 3, 4, 10)),
        build_in(folder, clip_format=ClipFormat(6, 7, 4, 5)),
        build_in(folder, clip_format=ClipFormat(6, 7, 4, 10, channels=1)),
        build_in(folder, min_seconds=0.6),
        build_in(folder, limits=Limits(max_frames=6)),
    ]
    assert len({cache.directory for cache in caches}) == 6
    assert [cache.clip(0).shape[1:] for cache in caches[1:4]] == [(3, 3, 3), (6, 7, 3), (6, 7, 1)]


@pytest.mark.parametrize("damage", ["short clips", "no clips", "no json", "other json", "no index"])
def test_a_damaged_cache_is_rebuilt_with_a_warning(folder, damage, caplog):
    first = build_in(folder)
    clips, index = first.directory / "clips.bin", first.directory / "index.json"
    good = clips.read_bytes(), index.read_bytes()
    if damage == "short clips":
        clips.write_bytes(good[0][:-1])
    elif damage == "no clips":
        clips.unlink()
    elif damage == "no json":
        index.write_bytes(good[1][:50])
    elif damage == "other json":
        index.write_text("[1]")
    else:
        index.unlink()
    with caplog.at_level(logging.WARNING):
        build_in(folder)
    assert (clips.read_bytes(), index.read_bytes()) == good
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "rebuilding a damaged clip cache"
    ]
    assert list(first.directory.parent.iterdir()) == [first.directory]


def test_unusable_gifs_are_counted_by_cause(folder):
    whole = noise_gif(0)
    (folder / "copy.gif").write_bytes(whole)
    (folder / "cut.gif").write_bytes(whole[:-9])
    (folder / "page.gif").write_bytes(b"<html>")
    (folder / "empty.gif").touch()
    (folder / "short.gif").write_bytes(noise_gif(5, 1, 20))
    (folder / "long.gif").write_bytes(noise_gif(6, 2, 5000))
    cache = build_in(folder, min_seconds=0.1, max_seconds=9)
    assert len(cache) == 3
    assert cache.skipped_keys == {
        "copy.gif": "duplicate",
        "cut.gif": "truncated",
        "empty.gif": "not_a_gif",
        "long.gif": "too_long",
        "page.gif": "not_a_gif",
        "short.gif": "too_short",
    }
    assert cache.summary().startswith(f"3 clips from {folder}; skipped 6: 2 not_a_gif, 1 ")


def test_a_delay_beyond_what_a_clip_may_hold_is_skipped(folder):
    (folder / "still.gif").write_bytes(encode(noise_clip(0, 1), [655350]))
    assert build_in(folder).skipped == {"too_long": 1}


def test_no_usable_gif_is_one_line_with_the_counts(tmp_path):
    (tmp_path / "a.gif").touch()
    (tmp_path / "b.gif").write_bytes(noise_gif(0)[:-1])
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match=r"no usable GIF in .*: 2 files, 1 not_a_gif, 1 truncated"):
        build(GifFolder(tmp_path), FORMAT, cache)
    assert list(cache.iterdir()) == []


def test_an_unwritable_cache_is_an_error_that_names_it(folder):
    (folder.parent / "cache").touch()
    with pytest.raises(
        OSError, match=rf"cannot write {folder.parent / 'cache'}.*; free some space"
    ):
        build_in(folder)


def test_cache_pickles_as_its_path(folder):
    cache = build_in(folder)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 500
    np.testing.assert_array_equal(pickle.loads(pickled).clip(2), cache.clip(2))
    assert ClipCache(cache.directory).entries == cache.entries


def test_split_is_stable_monotone_and_fair():
    """1,000 hashes: a fraction of 0.1 gives 100 +- 5 standard errors of 9.5."""
    hashes = [np.random.default_rng(seed).bytes(32).hex() for seed in range(1000)]
    val = {content for content in hashes if split(content, 0.1) == "val"}
    assert 52 < len(val) < 148
    assert val <= {content for content in hashes if split(content, 0.2) == "val"}
    assert {split(content, 0) for content in hashes} == {"train"}
    assert {split(content, 1) for content in hashes} == {"val"}


def test_adding_files_moves_no_clip_to_the_other_side(folder):
    def sides():
        return {entry.key: split(entry.sha256, 0.5) for entry in build_in(folder).entries}

    before = sides()
    for seed in range(3, 9):
        (folder / f"{seed - 9}.gif").write_bytes(noise_gif(seed))
    after = sides()
    assert len(after) == 9
    assert before.items() <= after.items()
