"""Shards: what is written is read, nothing else passes, and a failed write changes nothing."""

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from ddpm_lightning.data.shards import (
    Header,
    create,
    finish,
    mark_name,
    parse_index,
    parse_manifest,
    read_manifest,
    recover,
    write_shard,
)
from ddpm_lightning.data.store import ClipStore
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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_shard_holds_its_clips_and_all_that_is_known_of_them(tmp_path: Path) -> None:
    create(tmp_path, HEADER)
    listing = write_numbers(tmp_path, 0, [7, 3], skipped={"x.gif": "not_a_gif"})
    content = bin_of(tmp_path, 0).read_bytes()
    assert content == clip_of(7).tobytes() + clip_of(3).tobytes()
    index = parse_index(index_of(tmp_path, 0).read_bytes(), "")
    assert index.header == HEADER
    assert index.skipped == {"x.gif": "not_a_gif"}
    first, second = index.entries
    assert (first.shard, first.offset, first.num_frames) == (0, 0, 10)
    assert (second.shard, second.offset, second.num_frames) == (0, 10, 6)
    for number, entry in ((7, first), (3, second)):
        wanted = entry_of(number)
        for name in ("key", "sha256", "seconds", "captions", "shots"):
            assert getattr(entry, name) == getattr(wanted, name)
    assert (listing.num_clips, listing.num_bytes) == (2, len(content))
    assert read_manifest(tmp_path).shards == (listing,)
    assert {path.name for path in tmp_path.iterdir()} == {
        listing.bin_name,
        listing.index_name,
        "manifest.json",
    }


def test_files_depend_on_the_clips_alone(tmp_path: Path) -> None:
    """Not on the time, nor on the order in which shards were written or written again."""
    first = contents(write_store(tmp_path / "a"))
    create(tmp_path / "b", HEADER)
    for shard, numbers in ((2, [8, 9]), (0, [5, 6]), (1, [4, 5, 6, 7]), (0, [0, 1, 2, 3])):
        write_numbers(tmp_path / "b", shard, numbers)
    found = contents(tmp_path / "b")
    assert {name: found[name] for name in first} == first
    assert len(found) == len(first) + 2  # the first version of shard 0


def test_a_shard_without_clips_only_counts(tmp_path: Path) -> None:
    create(tmp_path, HEADER)
    write_numbers(tmp_path, 0, [], skipped={"a": "dead"})
    assert bin_of(tmp_path, 0).read_bytes() == b""
    assert parse_index(index_of(tmp_path, 0).read_bytes(), "").skipped == {"a": "dead"}


def test_odd_keys_and_captions_survive(tmp_path: Path) -> None:
    create(tmp_path, HEADER)
    entry = replace(entry_of(1), key="bad\udcff\n.gif", captions=('"\u2028é\\', ""))
    write_shard(tmp_path, 0, [clip_of(1)], [entry], {"\udcfe": "unreadable"})
    index = parse_index(index_of(tmp_path, 0).read_bytes(), "")
    assert (index.entries[0].key, index.entries[0].captions) == (entry.key, entry.captions)
    assert index.skipped == {"\udcfe": "unreadable"}


def test_clips_of_another_form_are_refused(tmp_path: Path) -> None:
    create(tmp_path, HEADER)
    for clip in (clip_of(0)[..., :1], clip_of(0).astype(float), clip_of(0)[:0]):
        with pytest.raises(ValueError, match=r"0\.gif: a clip of .* does not fit into"):
            write_shard(tmp_path, 0, [clip], [entry_of(0)], {})
    with pytest.raises(ValueError, match="holds clips of 4x5x3 at 10 a second from tests, not of"):
        create(tmp_path, Header(SHAPE, 12.0, "tests"))
    assert read_manifest(tmp_path).shards == ()


def test_finishing_is_kept(tmp_path: Path) -> None:
    write_store(tmp_path)
    assert not read_manifest(tmp_path).complete
    finish(tmp_path)
    assert create(tmp_path, HEADER).complete


def test_every_flipped_byte_of_a_description_is_noticed(tmp_path: Path) -> None:
    write_store(tmp_path, num_clips=1)
    described = index_of(tmp_path, 0).name
    for name, parse in ((described, parse_index), ("manifest.json", parse_manifest)):
        whole = (tmp_path / name).read_bytes()
        parse(whole, name)
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            with pytest.raises(ValueError, match=f"{name} is damaged"):
                parse(bytes(damaged), name)


def test_a_lost_manifest_is_recovered_from_whole_shards(tmp_path: Path) -> None:
    write_store(tmp_path, num_clips=12)
    before = read_manifest(tmp_path)
    (tmp_path / mark_name(0)).write_text("found to be damaged, and repaired since")
    (tmp_path / "manifest.json").write_bytes(b"{")
    file = tmp_path / before.shards[1].bin_name
    damaged = bytearray(file.read_bytes())
    damaged[5] ^= 1
    file.write_bytes(damaged)
    after = recover(tmp_path, HEADER)
    assert after.shards == (before.shards[0], before.shards[2])
    assert not (tmp_path / mark_name(0)).exists()
    write_numbers(tmp_path, 1, range(4, 8))
    assert read_manifest(tmp_path) == before


def test_a_shard_that_was_replaced_stays_a_week(tmp_path: Path) -> None:
    """From when it was replaced, however old it is: whoever reads it goes on."""
    write_store(tmp_path)
    old = {bin_of(tmp_path, 1), index_of(tmp_path, 1)}
    long_ago = time.time() - 7 * 24 * 3600 - 60
    for path in old:
        os.utime(path, (long_ago, long_ago))
    write_numbers(tmp_path, 1, [20, 30])
    create(tmp_path, HEADER)
    assert all(path.exists() for path in old)
    for path in old:
        os.utime(path, (long_ago, long_ago))
    create(tmp_path, HEADER)
    assert not any(path.exists() for path in old)
    assert ClipStore(tmp_path).verify() == {}


def test_the_newest_of_several_versions_is_recovered(tmp_path: Path) -> None:
    write_store(tmp_path)
    for numbers in ([20, 30], [4, 5]):
        write_numbers(tmp_path, 1, numbers)
    before = read_manifest(tmp_path)
    assert recover(tmp_path, HEADER) == before


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    write_store(tmp_path)
    before = contents(tmp_path)
    for name in (".shard-00001.bin.123-abcd", ".shard-00001.json.1-a", ".manifest.json.4-e"):
        (tmp_path / name).touch()
    create(tmp_path, HEADER)
    assert contents(tmp_path) == before


IN_CHILD = """
import os, resource, sys
from pathlib import Path
from tests.data.stores import clip_of, write_numbers
clip_of(0)  # imports what it needs while it may
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
elif os.geteuid() == 0:
    os.setuid(65534)  # permissions do not bind root
try:
    write_numbers(folder, 3, range(20, 24))
except OSError as error:
    print(error)
"""


def write_in_child(folder: Path, limit: int = 0) -> list[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", IN_CHILD, str(folder), str(limit)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


NUM_BYTES = sum(clip_of(number).nbytes for number in range(20, 24))


@pytest.mark.slow
@pytest.mark.parametrize("limit", [100, NUM_BYTES])
def test_a_full_disk_is_one_line_and_damages_nothing(tmp_path: Path, limit: int) -> None:
    """Under a limit of NUM_BYTES the clips just fit, and their description does not."""
    write_store(tmp_path)
    before = contents(tmp_path)
    needed = f"{NUM_BYTES:,}" if limit == 100 else r"\d,\d\d\d"
    (line,) = write_in_child(tmp_path, limit)
    assert re.search(rf"cannot write {tmp_path}/shard-00003-\w+\.\w+: File too large; ", line)
    assert re.search(rf"; {needed} bytes are needed; free some space", line)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert all(re.match(r"shard-00003-\w+\.bin", name) for name in set(after) - set(before))
    assert write_in_child(tmp_path, 2**20) == []  # there is room again
    assert bin_of(tmp_path, 3).read_bytes() == b"".join(clip_of(n).tobytes() for n in range(20, 24))
    assert len(read_manifest(tmp_path).shards) == 4


@pytest.mark.slow
def test_a_read_only_folder_is_one_line_and_stays_as_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders can be entered by root only
        folder = write_store(Path(name) / "store")
        before = contents(folder)
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        (line,) = write_in_child(folder)
        folder.chmod(0o755)
        assert re.search(rf"cannot write {folder}/shard-00003-\w+\.bin: Permission denied; ", line)
        assert f"{NUM_BYTES:,} bytes" in line
        assert contents(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(5))
def test_a_killed_writer_leaves_a_store_that_can_be_read_and_continued(
    tmp_path: Path, moment: int
) -> None:
    """SIGKILL while shards are written as fast as they can be; the moments are spread by a seed."""
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    create(folder, HEADER)
    process = get_context("spawn").Process(target=_write_for_ever, args=(folder,))
    process.start()
    while not list(folder.glob("shard-00002-*.bin")):
        time.sleep(0.001)
    time.sleep(float(np.random.default_rng(moment).uniform(0, 0.1)))
    process.kill()
    process.join()
    done = len(create(folder, HEADER).shards)
    assert ClipStore(folder).verify() == {}
    write_numbers(folder, done, range(4 * done, 4 * done + 4))
    wanted = contents(write_store(whole, num_clips=4 * (done + 1)))
    found = contents(folder)
    assert {name: found[name] for name in wanted} == wanted


def _write_for_ever(folder: Path) -> None:
    for shard in range(10**6):
        write_numbers(folder, shard, range(4 * shard, 4 * shard + 4))
