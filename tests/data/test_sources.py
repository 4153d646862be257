"""Sources: the folder of GIFs and the moving digits."""

import errno
import os
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm_lightning.data.gif import GifError, decode
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.sources.moving_digits import MovingDigits


def test_folder_finds_gifs_at_every_depth_in_any_case(tmp_path: Path) -> None:
    for name in ("b.gif", "a/deep/C.GIF", "a/x.Gif", "note.txt", "gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.gif").mkdir()
    source = GifFolder(tmp_path)
    assert source.keys() == ["a/deep/C.GIF", "a/x.Gif", "b.gif"]
    assert source.read("a/x.Gif") == b"a/x.Gif"
    assert source.describe() == str(tmp_path)


def test_a_label_is_the_folder_that_a_gif_lies_in_or_its_digit(tmp_path: Path) -> None:
    for name in ("cats/black/a.gif", "cats/b.gif", "c.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"GIF89a")
    folder = GifFolder(tmp_path)
    assert [folder.label(key) for key in folder.keys()] == ["", "cats", "cats/black"]  # noqa: SIM118
    digits = MovingDigits(tmp_path / "digits", num_clips=3)
    assert [digits.label(key) for key in digits.keys()] == ["0", "1", "2"]  # noqa: SIM118


def test_folder_errors_name_the_path_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    with pytest.raises(ValueError, match=r"holds no \.gif file; put some in"):
        GifFolder(tmp_path)
    with pytest.raises(ValueError, match=r"missing does not exist; give a folder that holds"):
        GifFolder(tmp_path / "missing")
    file.touch()
    with pytest.raises(ValueError, match=r"a\.gif is not a folder; give a folder that holds"):
        GifFolder(file)


def test_unreadable_files_are_gif_errors(tmp_path: Path) -> None:
    (tmp_path / "broken_link.gif").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.gif")
    source = GifFolder(tmp_path)
    for key in source.keys():  # noqa: SIM118 - not a dict
        with pytest.raises(GifError) as caught:
            source.read(key)
        assert caught.value.cause == "unreadable"
    assert source.fingerprint() == GifFolder(tmp_path).fingerprint()


def test_links_are_followed_each_folder_and_file_once(tmp_path: Path) -> None:
    """Links to a folder, to its parent, to files in and out of it, and one to the first link."""
    pool, top = tmp_path / "pool", tmp_path / "top"
    for name in ("pool/a.gif", "pool/deep/b.gif", "top/c.gif", "one.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (top / "linked").symlink_to(pool)
    (top / "linked_again").symlink_to(top / "linked")
    (pool / "deep" / "loop").symlink_to(pool)
    (top / "loop").symlink_to(top)
    (top / "a_link_to_c.gif").symlink_to(top / "c.gif")
    (top / "one_a.gif").symlink_to(tmp_path / "one.gif")
    (top / "one_b.gif").symlink_to(tmp_path / "one.gif")
    source = GifFolder(top)
    assert source.keys() == ["c.gif", "linked/a.gif", "linked/deep/b.gif", "one_a.gif"]
    assert source.read("linked/deep/b.gif") == b"pool/deep/b.gif"
    (tmp_path / "way").symlink_to(top)
    assert GifFolder(tmp_path / "way").keys() == source.keys()


def test_a_folder_that_cannot_be_read_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read any: so os.walk is told of one that it may not."""
    for name in ("a/x.gif", "b/y.gif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("/b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = GifFolder(tmp_path)
    assert source.keys() == ["a/x.gif", "b"]
    with pytest.raises(GifError, match="unreadable"):
        source.read("b")


@pytest.mark.parametrize("size", [32 * 2**20 + 1, 2**32, 40 * 2**30])
def test_a_file_is_bounded_before_it_is_read(size: int, tmp_path: Path) -> None:
    """Sparse: it takes no room on the disk."""
    with (tmp_path / "a.gif").open("wb") as file:
        file.truncate(size)
    with pytest.raises(GifError, match=f"has {size:,} bytes, at most 33,554,432") as caught:
        GifFolder(tmp_path).read("a.gif")
    assert caught.value.cause == "too_large"


def test_folder_fingerprint_sees_names_sizes_and_times(tmp_path: Path) -> None:
    file = tmp_path / "a.gif"
    file.write_bytes(b"1")
    os.utime(file, ns=(0, 0))
    seen = {GifFolder(tmp_path).fingerprint()}
    os.utime(file, ns=(0, 1))
    seen.add(GifFolder(tmp_path).fingerprint())
    file.write_bytes(b"12")
    os.utime(file, ns=(0, 1))
    seen.add(GifFolder(tmp_path).fingerprint())
    file.rename(tmp_path / "b.gif")
    seen.add(GifFolder(tmp_path).fingerprint())
    assert len(seen) == 4


def test_moving_digits_move_on_a_black_square(tmp_path: Path) -> None:
    """Seed 0. The centre of mass moves 0.5 to 1 px a frame where the digit does not bounce."""
    source = MovingDigits(tmp_path / "digits", num_clips=12)
    assert {key[6] for key in source.keys()} == set("0123456789")  # noqa: SIM118
    grid = np.arange(32)
    for key in source.keys():  # noqa: SIM118
        clip, durations_ms = decode(source.read(key))
        assert clip.shape == (24, 32, 32, 3)
        assert durations_ms.tolist() == [100] * 24
        assert (clip == clip[..., :1]).all()
        image = clip[..., 0].astype(float)
        assert np.median(image) == 0
        assert image.max() > 180
        mass = image.sum((1, 2))
        rows, columns = (image.sum(2) @ grid) / mass, (image.sum(1) @ grid) / mass
        speed = np.hypot(np.diff(rows), np.diff(columns))
        assert 0.4 < np.median(speed) < 1.1
        assert speed.max() < 1.2


@pytest.mark.slow
def test_moving_digits_are_written_once_and_depend_on_their_arguments_alone(tmp_path: Path) -> None:
    def content(path: Path, **arguments: Any) -> list[bytes]:
        source = MovingDigits(path, **arguments)
        return [source.read(key) for key in source.keys()]  # noqa: SIM118

    first = content(tmp_path / "a", num_clips=3, seed=1)
    written = (tmp_path / "a" / "manifest.json").stat().st_mtime_ns
    assert content(tmp_path / "a", num_clips=3, seed=1) == first
    assert (tmp_path / "a" / "manifest.json").stat().st_mtime_ns == written
    assert content(tmp_path / "b", num_clips=3, seed=1) == first
    assert content(tmp_path / "b", num_clips=3, seed=2) != first
    assert len(content(tmp_path / "b", num_clips=2, seed=2)) == 2
    next((tmp_path / "a").glob("*.gif")).unlink()  # half a folder
    assert content(tmp_path / "a", num_clips=3, seed=1) == first
    (tmp_path / "a" / "manifest.json").write_text("{")
    assert content(tmp_path / "a", num_clips=3, seed=1) == first
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["a", "b"]


def test_moving_digits_describe_themselves(tmp_path: Path) -> None:
    one, two = (MovingDigits(tmp_path / str(seed), num_clips=1, seed=seed) for seed in (1, 2))
    assert one.describe() == f"{tmp_path / '1'} (moving digits, seed 1)"
    assert one.fingerprint() != two.fingerprint()


def test_moving_digits_do_not_delete_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.gif").touch()
    with pytest.raises(ValueError, match=r"holds other files \(mine\.gif\)"):
        MovingDigits(tmp_path, num_clips=1)
    with pytest.raises(ValueError, match="is not a folder"):
        MovingDigits(tmp_path / "mine.gif", num_clips=1)


def _start(path: Path) -> list[bytes]:
    source = MovingDigits(path, num_clips=30)
    return [source.read(key) for key in source.keys()]  # noqa: SIM118


@pytest.mark.long
def test_concurrent_starters_agree(tmp_path: Path) -> None:
    with get_context("spawn").Pool(2) as pool:
        first, *others = pool.map(_start, [tmp_path / "digits"] * 6, chunksize=1)
    assert len(first) == 30
    assert all(other == first for other in others)
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["digits"]
