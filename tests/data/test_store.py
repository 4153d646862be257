"""The store: every clip of every part, at any address, and no damage unnoticed."""

import logging
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import numpy as np
import pytest

from ddpm_lightning.data.shards import (
    Header,
    create,
    finish,
    mark_name,
    write_shard,
)
from ddpm_lightning.data.store import ClipStore, DamagedClip
from tests.data.stores import (
    HEADER,
    SHAPE,
    bin_of,
    clip_of,
    entry_of,
    index_of,
    write_numbers,
    write_store,
)


def assert_holds(store: ClipStore, numbers: Iterable[int]) -> None:
    assert [entry.key for entry in store.entries] == [f"{number}.gif" for number in numbers]
    for i, number in enumerate(numbers):
        np.testing.assert_array_equal(store.clip(i), clip_of(number))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_clips_are_read_only_views_in_the_order_of_shards(tmp_path: Path) -> None:
    store = ClipStore(write_store(tmp_path))
    assert_holds(store, range(10))
    assert [store.shard(i) for i in range(10)] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert (store.shape, store.fps, len(store)) == (SHAPE, 10.0, 10)
    with pytest.raises(ValueError, match="read-only"):
        store.clip(0)[:] = 0
    assert store.verify() == {}
    assert store.summary() == "10 clips from tests"


def test_parts_are_one_store_and_duplicates_between_them_count(tmp_path: Path) -> None:
    for part, numbers in enumerate(([0, 1], [2, 1, 3])):
        create(tmp_path / str(part), HEADER)
        write_numbers(tmp_path / str(part), 0, numbers, skipped={f"gone {part}": "dead"})
    store = ClipStore([tmp_path / "0", str(tmp_path / "1")])
    assert_holds(store, [0, 1, 2, 3])
    assert store.skipped == {"dead": 2, "duplicate": 1}
    assert store.summary() == "4 clips from tests; skipped 3: 2 dead, 1 duplicate"


def test_a_store_is_complete_when_every_part_is(tmp_path: Path) -> None:
    for part in "ab":
        write_store(tmp_path / part)
    finish(tmp_path / "a")
    store = ClipStore([tmp_path / "a", tmp_path / "b"])
    assert not store.complete
    finish(tmp_path / "b")
    assert store.refresh() == 0
    assert store.complete


def test_parts_of_another_form_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a")
    create(tmp_path / "b", Header(SHAPE, 12.0, "others"))
    with pytest.raises(ValueError, match=r"b holds 4x5x3 at 12 a second from others, another part"):
        ClipStore([tmp_path / "a", tmp_path / "b"])


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} holds no clip store"):
        ClipStore(tmp_path)


def test_new_shards_are_appended(tmp_path: Path) -> None:
    """And another store follows by the snapshot, whatever has appeared since."""
    parts = [tmp_path / "a", tmp_path / "b"]
    for part in parts:
        create(part, HEADER)
    store = ClipStore(parts)
    assert len(store) == 0
    write_numbers(parts[1], 0, [5, 6])
    assert store.refresh() == 2
    write_numbers(parts[0], 0, [1, 2])
    write_numbers(parts[1], 1, [7])
    assert store.refresh() == 3
    assert_holds(store, [5, 6, 1, 2, 7])
    snapshot = store.snapshot
    write_numbers(parts[0], 1, [3])
    assert_holds(ClipStore(parts, snapshot), [5, 6, 1, 2, 7])
    assert_holds(pickle.loads(pickle.dumps(store)), [5, 6, 1, 2, 7])
    assert_holds(ClipStore(parts), [1, 2, 3, 5, 6, 7])
    follower = ClipStore(parts, ((1, 0),))
    assert_holds(follower, [5, 6])
    with pytest.raises(ValueError, match=r"shard 9 of part 1 is gone"):
        ClipStore(parts, (*snapshot, (1, 9)))


def test_it_pickles_as_its_addresses(tmp_path: Path) -> None:
    store = ClipStore(write_store(tmp_path, num_clips=40))
    pickled = pickle.dumps(store)
    assert len(pickled) < 700
    assert pickle.loads(pickled).entries == store.entries


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_any_fsspec_address_will_do(protocol: str, tmp_path: Path) -> None:
    folder = write_store(tmp_path / "store")
    address = f"file://{folder}"
    if protocol == "memory":
        address = f"memory://{tmp_path.name}/store"
        fsspec.filesystem("memory").put(str(folder), f"/{tmp_path.name}/store", recursive=True)
        shutil.rmtree(folder)
    copies = tmp_path / "copies"
    store = ClipStore(address, copies=copies)
    assert not copies.exists()  # a shard is copied when it is first read
    assert_holds(store, range(10))
    assert len(list(copies.rglob("*.bin"))) == (3 if protocol == "memory" else 0)
    assert_holds(ClipStore([address], copies=copies), range(10))


def test_a_copy_that_arrives_damaged_is_not_kept(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "store")
    files = fsspec.filesystem("memory")
    files.put(str(folder), f"/{tmp_path.name}/store", recursive=True)
    address, copies = f"memory://{tmp_path.name}/store/", tmp_path / "copies"
    name = bin_of(folder, 0).name
    content = files.cat_file(f"{address}{name}")
    files.pipe_file(f"{address}{name}", b"\0" + content[1:])
    store = ClipStore(address, copies=copies)
    with pytest.raises(DamagedClip, match=r"shard-00000-\w+\.bin is not what its manifest says"):
        store.clip(0)
    assert list(copies.rglob("*.bin")) == []
    files.pipe_file(f"{address}{name}", content)
    store = ClipStore(address, copies=copies)
    np.testing.assert_array_equal(store.clip(0), clip_of(0))
    (copy,) = copies.rglob("*.bin")
    flip(copy, 3)  # on the local disk: it is fetched again next time
    with pytest.raises(DamagedClip):
        ClipStore(address, copies=copies).clip(0)
    np.testing.assert_array_equal(ClipStore(address, copies=copies).clip(0), clip_of(0))


def test_remote_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a local folder; give one in which"):
        ClipStore("memory://x")
    with pytest.raises(ValueError, match="gopher://x cannot be opened"):
        ClipStore("gopher://x", copies=tmp_path)
    with pytest.raises(ValueError, match="memory://nowhere holds no clip store"):
        ClipStore("memory://nowhere", copies=tmp_path)


def test_a_process_without_descriptors_left_marks_nothing(tmp_path: Path) -> None:
    write_store(tmp_path)
    store = ClipStore(tmp_path)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, most))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            store.clip(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(store.clip(0))
    assert store.damage == {}


def test_a_damaged_clip_is_refused_counted_and_marked_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = bin_of(write_store(tmp_path), 1)
    flip(file, -1)
    store = ClipStore(tmp_path)
    for _ in range(2):
        with pytest.raises(DamagedClip, match=r"7\.gif in .*shard-00001-\w+\.bin is damaged"):
            store.clip(7)
    np.testing.assert_array_equal(store.clip(6), clip_of(6))
    assert list(store.damage) == [str(file)]
    assert len(caplog.records) == 1
    assert "7.gif" in (tmp_path / mark_name(1)).read_text()
    assert "7.gif" in ClipStore(tmp_path).damage[str(file)]
    write_numbers(tmp_path, 1, range(4, 8))  # whoever owns the part writes the shard again
    assert ClipStore(tmp_path).damage == {}
    assert_holds(ClipStore(tmp_path), range(10))


@pytest.mark.parametrize("file", [bin_of, index_of])
def test_a_shard_that_cannot_be_opened_is_left_out(
    file: Callable[[Path, int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file(write_store(tmp_path), 1).unlink()
    store = ClipStore(tmp_path)
    assert_holds(store, [0, 1, 2, 3, 8, 9])
    assert "4 clips left out" in store.damage[str(bin_of(tmp_path, 1))]
    assert len(caplog.records) == 1


def test_a_shard_of_another_store_is_stale(tmp_path: Path) -> None:
    """Written whole and well, but not what this manifest lists."""
    write_store(tmp_path / "a")
    write_store(tmp_path / "b", clips_per_shard=3)
    for file in (bin_of, index_of):
        shutil.copy(file(tmp_path / "b", 1), file(tmp_path / "a", 1))
    store = ClipStore(tmp_path / "a")
    assert_holds(store, [0, 1, 2, 3, 8, 9])
    assert len(store.damage) == 1


def test_what_a_store_has_opened_stays_what_it_was(tmp_path: Path) -> None:
    """Shards are written again: no clip becomes another."""
    store = ClipStore(write_store(tmp_path))
    np.testing.assert_array_equal(store.clip(0), clip_of(0))
    for shard in (0, 1):
        write_numbers(tmp_path, shard, [20 + shard, 30 + shard])
    create(tmp_path, HEADER)  # the next ingest begins
    assert_holds(store, range(10))
    assert store.refresh() == 0
    assert_holds(ClipStore(tmp_path), [20, 30, 21, 31, 8, 9])


def test_clips_are_chosen_by_key(tmp_path: Path) -> None:
    keys = frozenset({"2.gif", "7.gif", "x"})
    write_numbers(write_store(tmp_path), 3, [], skipped={"x": "dead", "y": "dead"})
    store = pickle.loads(pickle.dumps(ClipStore(tmp_path, keys=keys)))
    assert_holds(store, [2, 7])
    assert store.skipped == {"dead": 1}


def test_a_file_that_is_cut_while_it_is_mapped_kills_nothing(tmp_path: Path) -> None:
    """To touch pages beyond the end of a file would be a SIGBUS."""
    create(tmp_path, Header((64, 64, 3), 10.0, "tests"))
    clip = np.zeros((4, 64, 64, 3), np.uint8)
    write_shard(tmp_path, 0, [clip, clip + 1], [entry_of(0), entry_of(1)], {})
    store = ClipStore(tmp_path)
    store.clip(0)
    with bin_of(tmp_path, 0).open("r+b") as file:
        file.truncate(10_000)
    for i in range(2):
        with pytest.raises(DamagedClip, match="greater than file size"):
            store.clip(i)


def corrupt(folder: Path, generator: np.random.Generator) -> str:
    """Do one random thing to one random file; says what."""
    path = generator.choice(sorted(folder.iterdir()))
    data = path.read_bytes()
    place = int(generator.integers(len(data)))
    span = int(generator.integers(1, 40))
    others = [other for other in sorted(folder.glob(f"*{path.suffix}")) if other != path]
    match generator.choice(["flip", "cut", "grow", "zero", "remove", "other", "insert", "swap"]):
        case "flip":
            flip(path, place)
        case "cut":
            path.write_bytes(data[:place])
        case "grow":
            path.write_bytes(data + data[:span])
        case "remove":
            path.unlink()
        case "insert":
            path.write_bytes(data[:place] + b"7" + data[place:])
        case "swap" if len(others) > 1:
            path.write_bytes(others[0].read_bytes())
        case "other":
            path.write_bytes(generator.bytes(len(data)))
        case _:
            zeroed = data[:place] + bytes(len(data[place : place + span])) + data[place + span :]
            path.write_bytes(b"x" + zeroed[1:] if zeroed == data else zeroed)
    return f"{path.name}, place {place}"


def damage_of(folder: Path) -> tuple[Any, Any]:
    """What reading every clip finds, and what verify finds; both None for a clear stop."""
    try:
        store = ClipStore(folder)
    except ValueError:
        return None, None
    for i, entry in enumerate(store.entries):
        try:
            np.testing.assert_array_equal(store.clip(i), clip_of(int(entry.key[:-4])))
        except DamagedClip:
            continue
    read = dict(store.damage)
    for mark in folder.glob("*.damaged"):
        mark.unlink()
    return read, ClipStore(folder).verify()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_every_corruption_is_detected(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """25 random ones a seed, of shards, descriptions and manifests: 100 in all."""
    caplog.set_level(logging.CRITICAL)
    whole = write_store(tmp_path / "whole")
    assert damage_of(whole) == ({}, {})
    for k in range(25):
        folder = Path(shutil.copytree(whole, tmp_path / str(k)))
        done = corrupt(folder, np.random.default_rng([seed, k]))
        read, verified = damage_of(folder)
        assert read is None or (len(read) == 1 and read.keys() == verified.keys()), done
