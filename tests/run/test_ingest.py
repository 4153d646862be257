"""python ingest.py, inspect_data.py, and train.py on a list of URLs, from a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import TINY, Call, assert_user_error, newest_run, spawn, write_gifs
from tests.data.ingest.server import GifServer

pytestmark = pytest.mark.slow  # as a whole, not one by one

NUM_GIFS = 12
FORM = ["data.size=8", "data.num_frames=4", "data.channels=1"]
LOCAL = ["data.limits.allow_loopback=true", "data.limits.pause_s=0"]
WORDS = ["data=gif_urls", "data.list=list.tsv", *FORM, *LOCAL]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GifServer]:
    """Serves GIFs, of which list.tsv names each one and a dead link beside it."""
    folder = write_gifs(tmp_path / "served", NUM_GIFS)
    gifs = {path.name: path.read_bytes() for path in folder.iterdir()}
    with GifServer(gifs) as server:
        rows = [f"{server.url(n)}\tnumber {n}\n{server.url('status/404')}?{n}\n" for n in gifs]
        (tmp_path / "list.tsv").write_text("".join(rows))
        yield server


def report(folder: Path) -> dict[str, object]:
    (path,) = (folder / "data" / "cache").rglob("ingest.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_what_was_fetched_is_told_stored_and_shown(
    server: GifServer, call: Call, tmp_path: Path
) -> None:
    result = call("ingest", *WORDS)
    assert result.code == 0, result.err
    for words in ("24 URLs", "clips", "12", "http_404"):
        assert words in result.out
    assert report(tmp_path)["causes"] == {"clips": 12, "http_404": 12}
    again = call("ingest", *WORDS)
    assert again.code == 0, again.err
    assert report(tmp_path)["num_fetched"] == 0

    shown = call("inspect_data", *WORDS, "num_samples=5")
    assert shown.code == 0, shown.err
    page = (tmp_path / "outputs" / "data.html").read_text()
    assert page.count("data:image/gif;base64,") == 5
    for words in ("12 clips of 8x8 pixels", "http_404", "number", "width of the GIFs"):
        assert words in page
    assert "http://" not in page  # nothing to be downloaded


def test_a_part_is_ingested_alone_and_all_parts_are_read(
    server: GifServer, call: Call, tmp_path: Path
) -> None:
    for part in range(2):
        result = call("ingest", *WORDS, "ingest.num_parts=2", f"ingest.part={part}")
        assert result.code == 0, result.err
    assert len(list((tmp_path / "data" / "cache").rglob("manifest.json"))) == 2
    shown = call("inspect_data", *WORDS)
    assert "12 clips" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [pytest.param(n, marks=pytest.mark.long) for n in ("basic", "joblib", "submitit_local")],
)
def test_a_launcher_spreads_the_parts_and_a_part_that_fails_is_told(
    launcher: str, server: GifServer, tmp_path: Path
) -> None:
    """Part 3 does not exist; the others are ingested all the same."""
    parts = ["-m", f"hydra/launcher={launcher}", "ingest.part=0,3,1,2", "ingest.num_parts=3"]
    result = spawn(tmp_path, "ingest", *parts, *WORDS, "ingest.num_workers=1", cold=True)
    assert result.code == 2, result
    told = result.out + result.err
    if launcher == "submitit_local":  # each of its jobs has a log of its own
        told += "".join(path.read_text() for path in tmp_path.rglob("*_log.err"))
    assert "part must lie in [0, num_parts), got 3 of 3" in told
    assert "Traceback" not in result.err
    shown = spawn(tmp_path, "inspect_data", *WORDS, cold=True)
    assert "12 clips" in shown.out, shown


@pytest.mark.long
def test_training_starts_on_the_first_clips_and_fetches_beside(
    server: GifServer, tmp_path: Path
) -> None:
    tiny = [word for word in TINY if not word.startswith("data")]
    words = [*WORDS, "data.min_clips=3", "data.batch_size=2", "data.val_fraction=0.3"]
    result = spawn(tmp_path, "train", *tiny, *words, "logger=csv", "trainer.max_steps=20")
    assert result.code == 0, result.err
    assert "12 http_404" in result.out + result.err
    assert json.loads((newest_run(tmp_path) / "status.json").read_text())["status"] == "finished"
    assert spawn(tmp_path, "evaluate", "checkpoint=last").code == 0
    again = ["data.frozen=true", "debug=fast_dev_run"]
    frozen = spawn(tmp_path, "train", *tiny, *words, "logger=csv", *again)
    assert frozen.code == 0, frozen.err


def test_nothing_to_train_on_is_said_in_a_line(call: Call, server: GifServer) -> None:
    tiny = [word for word in TINY if not word.startswith("data")]
    frozen = call("train", *tiny, *WORDS, "logger=csv", "data.frozen=true")
    assert_user_error(frozen, "nothing of list.tsv is ingested", "python ingest.py")


def test_ingesting_needs_no_torch() -> None:
    """It would take ten times the memory, on every machine that takes a part."""
    code = "import sys, ddpm_lightning.run.commands.ingest; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.long
def test_a_list_of_dead_links_is_said_in_a_line(
    call: Call, server: GifServer, tmp_path: Path
) -> None:
    (tmp_path / "list.tsv").write_text(f"{server.url('status/404')}\n{server.url('status/410')}\n")
    tiny = [word for word in TINY if not word.startswith("data")]
    result = call("train", *tiny, *WORDS, "logger=csv")
    assert_user_error(result, "list.tsv gave no clip", "1 http_404", "1 http_410")


def rarely(*values: Any) -> Any:
    """A mistake that is refused as another one is: left to make test-long."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.list=gone.tsv"], ["gone.tsv"]),
        (["ingest.part=3"], ["part must lie in [0, num_parts), got 3 of 1"]),
        rarely(["ingest.part=x"], ["ingest.part='x'", "integer"]),
        rarely(["ingest.num_parts=0"], ["ingest.num_parts=0", "greater than 0"]),
        rarely(["ingest.wait=perhaps"], ["ingest.wait='perhaps'", "boolean"]),
        (["data.cache_path=s3://bucket/clips"], ["local folder", "data=clip_store"]),
        (["ingest.retry=all"], ["ingest.retry='all'", "'none' or 'transient'"]),
        rarely(["ingest.num_workers=-1"], ["ingest.num_workers=-1", "greater than 0"]),
        (["data.limits.per_host=0"], ["per_host must be at least 1, got 0"]),
        rarely(["data.size=[8]"], ["size takes one number or [height, width], got [8]"]),
        rarely(["data.fps=fast"], ["data.fps='fast'", "number"]),
        (["data=gif_folder", "data.path=served"], ["data must be a list of URLs"]),
    ],
)
def test_mistakes_are_explained(
    words: list[str], expected: list[str], call: Call, server: GifServer
) -> None:
    given = [] if words[0] == "data=gif_folder" else WORDS
    assert_user_error(call("ingest", *given, *words), *expected)
