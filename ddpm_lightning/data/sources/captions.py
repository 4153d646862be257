"""Captions of a folder's GIFs: the file captions.tsv, or captions.csv, that lies among them.

A line is NAME<TAB>SENTENCE, as in TGIF's list; CSV has the columns file and caption. NAME is the
GIF's path below the folder. A GIF may have several lines, each a caption of its own, or none.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from ddpm_lightning.data.ingest.files import read_file
from ddpm_lightning.data.ingest.lists import damage, describe_lines
from ddpm_lightning.data.ingest.rows import ListRow, read_rows

FILES = ("captions.tsv", "captions.csv")
_COLUMN = "file"  # of the names; a first line of captions.tsv may be a header, too

_log = logging.getLogger(__name__)


def read_captions(folder: Path, keys: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the captions of each GIF that has any; lines that are of no use are logged.

    Args:
        keys: of the GIFs.
    Raises:
        ValueError: if both files are there, one cannot be read, or no line names a GIF.
    """
    paths = [folder / name for name in FILES if (folder / name).is_file()]
    if not paths:
        return {}
    if len(paths) > 1:
        raise ValueError(f"{folder} holds {' and '.join(FILES)}; keep one of them")
    path, keys = paths[0], set(keys)
    captions: dict[str, dict[str, None]] = {}
    odd: dict[str, list[int]] = {}
    for row in read_rows(read_file(str(path)), path.name, _COLUMN):
        name = row.url.replace("\\", "/").removeprefix("./")
        if row.line == 1 and name == _COLUMN:  # a header
            continue
        if cause := _cause(row, name in keys):
            odd.setdefault(cause, []).append(row.line)
        elif name:
            captions.setdefault(name, {})[row.caption] = None
    odd_lines = "; ".join(describe_lines(cause, len(n), n) for cause, n in odd.items())
    if not captions:
        raise ValueError(
            f"{path} has no caption of a GIF: {odd_lines or 'it is empty'}; give lines of "
            "NAME<TAB>SENTENCE, where NAME is a GIF's path below the folder"
        )
    if odd_lines:
        _log.warning("%s: %s", path, odd_lines)
    return {name: tuple(sentences) for name, sentences in captions.items()}


def _cause(row: ListRow, is_gif: bool) -> str | None:
    """Return why a line gives no caption, None where it does or is blank."""
    if not row.url:
        return row.cause
    if not is_gif:
        return "no such GIF"
    return damage(row.caption) if row.caption else "no caption"
