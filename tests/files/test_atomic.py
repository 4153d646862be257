"""Folders that appear whole or not at all, also when several processes write the same."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm_lightning.files.atomic import write_folder


def _text(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "file").write_text(name)

    return write


def _is(*names: str) -> Callable[[Path], bool]:
    return lambda folder: folder.exists() and (folder / "file").read_text() in names


def test_the_first_valid_folder_stays_and_an_invalid_one_goes(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_folder(folder, _text("first"), _is("first"))
    write_folder(folder, _text("second"), _is("first", "second"))
    assert (folder / "file").read_text() == "first"
    write_folder(folder, _text("second"), _is("second"))
    assert (folder / "file").read_text() == "second"
    assert list(folder.parent.glob("[!.]*")) == [folder]


def test_a_failed_write_leaves_nothing_and_names_the_folder(tmp_path: Path) -> None:
    def full_disk(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"cannot write .*folder: No space left on device; free"):
        write_folder(tmp_path / "folder", full_disk, _is("x"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write .*below: "):
        write_folder(tmp_path / "file" / "below", _text("x"), _is("x"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", ".folder.lock"}
