"""Lists as people store them: packed by gzip, bzip2 or xz, which is unpacked, or in an archive."""

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpm_lightning.data.ingest import files
from ddpm_lightning.data.ingest.lists import read_list

URL = "https://example.com/a.gif"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize(
    ("name", "text"), [("a.tsv", f"{URL}\ta cat\n"), ("a.csv", f"url,caption\n{URL},a cat\n")]
)
def test_a_packed_list_is_read_by_what_it_holds(
    ending: str, name: str, text: str, tmp_path: Path
) -> None:
    """With the ending, and without, as some browsers store it."""
    for path in (tmp_path / f"{name}{ending}", tmp_path / name):
        path.write_bytes(PACKERS[ending](text.encode()))
        (item,), report = read_list(str(path))
        assert (item.url, item.captions, report.odd) == (URL, ("a cat",), {})


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_list_that_is_cut_or_grows_without_end_is_refused(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{ending}"
    packed = PACKERS[ending](bytes(2**16))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        read_list(str(path))
    monkeypatch.setattr(files, "_MAX_BYTES", 2**10)
    path.write_bytes(packed)
    with pytest.raises(ValueError, match="has more than 1,024 bytes; split it"):
        read_list(str(path))


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("list.tsv", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "pack"),
    [
        ("zip", zipped),
        ("zstd", b"\x28\xb5\x2f\xfd".__add__),
        ("7z", b"7z\xbc\xaf\x27\x1c".__add__),
    ],
)
def test_an_archive_is_named_as_one(
    kind: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "list"
    path.write_bytes(pack(URL.encode()))
    with pytest.raises(ValueError, match=f"list is a {kind} archive; unpack it first"):
        read_list(str(path))
