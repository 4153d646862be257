"""Checkpoint files: replaced whole, checked when loaded, and never a way to run code."""

import hashlib
import os
import pickle
import random
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpm_lightning.files.atomic import WriteRefused, remove_temporaries
from ddpm_lightning.files.checkpoints import (
    STEP,
    DamagedCheckpoint,
    by_step,
    link,
    newest_valid,
    plain,
    read,
    write,
)
from ddpm_lightning.files.sealed import seal, seal_zip
from tests.commands import spawn, start, wait_for


def checkpoint(step: int = 1) -> dict[str, Any]:
    """Plain containers and tensors; 40 kB."""
    generator = torch.Generator().manual_seed(step)
    return {
        "global_step": step,
        "state_dict": {"denoiser.weight": torch.randn(100, 100, generator=generator)},
        "loops": {"done": [True, None, 1.5, ("a", 2)]},
    }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return bool(a == b)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write(checkpoint(1), path)
    write(checkpoint(2), path)
    assert equal(read(path), checkpoint(2))
    assert equal(read(path, mmap=True), checkpoint(2))
    assert {file.name for file in tmp_path.iterdir()} == {"a.ckpt"}


def test_torch_and_zip_programs_read_a_sealed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write(checkpoint(), path)
    assert equal(torch.load(path, weights_only=True), checkpoint())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment == hashlib.sha256(path.read_bytes()[:-64]).hexdigest().encode()


@pytest.mark.parametrize("value", [object(), {1, 2}, torch.nn.Linear(1, 1), [b"bytes"], Path("a")])
def test_only_plain_containers_and_tensors_are_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain containers and tensors"):
        write({"x": value}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_containers_of_other_kinds_become_plain_ones() -> None:
    state = torch.nn.Linear(2, 2).state_dict()
    assert type(state) is not dict
    assert type(plain(state)) is dict
    assert not any(
        tensor.requires_grad for tensor in plain({"p": [torch.nn.Linear(1, 1).bias]})["p"]
    )


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Another file: bits flipped, bytes removed, added or exchanged, or the end cut off."""
    kind, place = rng.randrange(5), rng.randrange(len(data))
    if kind == 0:
        changed = bytes([data[place] ^ 1 << rng.randrange(8)])
        return data[:place] + changed + data[place + 1 :]
    if kind == 1:
        return data[:place]
    if kind == 2:
        return data[:place] + data[place + rng.randrange(1, 500) :]
    if kind == 3:
        return data[:place] + rng.randbytes(rng.randrange(1, 500)) + data[place:]
    other = rng.randrange(len(data))
    low, high = sorted((place, other))
    return data[:low] + bytes(high - low) + data[high:] if high - low else b""


@pytest.mark.parametrize("num_mutations", [50, pytest.param(200, marks=pytest.mark.long)])
def test_no_mutation_is_loaded(num_mutations: int, tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write(checkpoint(), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(num_mutations):
        data = mutated(whole, rng)
        assert data != whole
        path.write_bytes(data)
        with pytest.raises(DamagedCheckpoint, match=r"a\.ckpt is damaged"):
            read(path)
    path.write_bytes(whole)
    read(path)


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def test_pickled_code_is_not_run_even_with_the_right_checksum(tmp_path: Path) -> None:
    path, target = tmp_path / "a.ckpt", tmp_path / "attacked"
    attack = Attack(target)
    for content in ({"state_dict": attack}, attack, {"a": [checkpoint(), {attack: 1}]}):
        buffer = BytesIO()
        torch.save(content, buffer)
        seal_zip(buffer)
        old = BytesIO()
        torch.save(content, old, _use_new_zipfile_serialization=False)
        for data in (old.getvalue(), pickle.dumps(content)):
            path.write_bytes(data + seal(data))
            refused(path)
        path.write_bytes(buffer.getvalue())
        refused(path)
    assert not target.exists()


def refused(path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match="is not a checkpoint"):
        read(path)


def test_a_second_name_is_the_same_file(tmp_path: Path) -> None:
    for step in (1, 2):
        path = tmp_path / f"step_{step:08d}.ckpt"
        write(checkpoint(step), path)
        link(path, path.with_name("last.ckpt"))
        assert equal(read(tmp_path / "last.ckpt"), checkpoint(step))
    assert (tmp_path / "last.ckpt").samefile(path)


def test_the_newest_whole_one_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest_valid(tmp_path) is None
    paths = [tmp_path / f"step_{step:08d}.ckpt" for step in (9, 10)]
    for step, path in zip((9, 10), paths, strict=True):
        write(checkpoint(step), path)
        link(path, path.with_name("last.ckpt"))
    assert newest_valid(tmp_path) == tmp_path / "last.ckpt"
    assert not caplog.records
    with paths[1].open("r+b") as file:  # last.ckpt too: it is the same file
        file.write(b"rot")
    assert newest_valid(tmp_path) == paths[0]
    assert f"{paths[1]} is damaged" in caplog.text
    assert f"taking {paths[0]} instead" in caplog.text
    paths[0].write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match=r"no checkpoint in .* is whole"):
        newest_valid(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [2, pytest.param(50, marks=pytest.mark.long)])
def test_kill_9_while_saving_leaves_the_newest_or_the_one_before(
    num_kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With temporary files of others on another file system, where renaming is not possible."""
    rng, step = random.Random(num_kills), 1
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    for _ in range(num_kills):
        process = start(tmp_path, "tests/files/checkpoint_writer", str(tmp_path), str(step))
        written = STEP.format(step)
        wait_for(lambda: any(path.name >= written for path in by_step(tmp_path)))  # noqa: B023
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        told = [int(line) for line in process.communicate()[0].split()]
        path = newest_valid(tmp_path)
        assert path is not None
        found = int(read(path)["global_step"])
        assert found >= max(told, default=step)
        assert equal(read(path), checkpoint(found))
        read(tmp_path / "last.ckpt")
        step = found + 1
    remove_temporaries(tmp_path)
    assert all(file.suffix == ".ckpt" for file in tmp_path.iterdir())


@pytest.mark.long
def test_a_full_disk_is_named_with_the_bytes_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write(checkpoint(1), path)
    result = spawn(tmp_path, "tests/files/checkpoint_writer", str(path))
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    assert f"cannot write {path}: File too large" in line
    assert "bytes are needed" in line
    assert equal(read(path), checkpoint(1))


def test_so_is_a_folder_that_takes_no_files() -> None:
    with pytest.raises(WriteRefused, match=r"cannot write /proc/self/a\.ckpt"):
        write(checkpoint(), Path("/proc/self/a.ckpt"))
