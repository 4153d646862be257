"""The contract of data: every file in conf/data/ is tested from the moment that it is there.

A source whose conf file leaves `path` open reads the files of a folder; one that takes num_clips
makes so many. Lists of URLs are served on loopback, and a stored one is made beforehand.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from omegaconf import MISSING, OmegaConf

from ddpm_lightning.data import gif
from ddpm_lightning.data.build import build as build_store
from ddpm_lightning.data.clip import sides
from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.data.decode import Recipe
from ddpm_lightning.data.ingest.driver import run
from ddpm_lightning.data.shots import find_shots
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.data.split import split
from tests.commands import write_gifs
from tests.data.ingest.server import GifServer
from tests.data.shared import write_videos
from tests.problems import CONF, build, composed, options

Load = Callable[..., ClipData]

NUM_GIFS = 12
FORM = {"size": [6, 9], "num_frames": 4, "fps": 10, "channels": 3}
OTHER_FORM = {"size": 8, "num_frames": 5, "fps": 5, "channels": 1}
FILES = {
    name: yaml.safe_load((CONF / "data" / f"{name}.yaml").read_text()) for name in options("data")
}
SOURCES = [name for name, node in FILES.items() if "source" in node]
ALL = [
    name if name == "gif_folder" else pytest.param(name, marks=pytest.mark.slow) for name in FILES
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gifs/ holds eleven wandering squares, and 10 red frames before 14 blue ones, and videos."""
    path = tmp_path_factory.mktemp("options")
    write_gifs(path / "gifs", NUM_GIFS - 1)
    frames = np.zeros((24, 8, 8, 3), dtype=np.uint8)
    frames[:10, ..., 0] = frames[10:, ..., 2] = 255
    (path / "gifs" / "red_then_blue.gif").write_bytes(gif.encode(frames, [100] * 24))
    write_videos(path / "gifs")
    return path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[GifServer]:
    gifs = {path.name: path.read_bytes() for path in sorted((folder / "gifs").glob("*.gif"))}
    with GifServer(gifs) as server:
        lines = "".join(f"{server.url(name)}\n" for name in gifs)
        (folder / "list.txt").write_text(lines)
        yield server


def node_of(name: str) -> dict[str, Any]:
    """An option's part of a composed configuration."""
    return cast(dict[str, Any], OmegaConf.to_container(composed(f"data={name}").data))


@pytest.fixture
def load(folder: Path, server: GifServer) -> Load:
    return partial(load_in, folder)


def load_in(folder: Path, name: str, cache: str = "cache", **changes: Any) -> ClipData:
    """The data of an option, loaded, with as few GIFs as it can have."""
    keys = {"cache_path": str(folder / cache), "batch_size": 3, **FORM, **changes}
    node, words = node_of(name), []
    if "source" in node:
        keys["path"] = str(folder / ("gifs" if node["path"] == MISSING else name))
        words = [f"data.source.num_clips={NUM_GIFS}"] if "num_clips" in node["source"] else []
    elif "list" in node:
        keys["list"] = str(folder / "list.txt")
        words = ["data.limits.allow_loopback=true", "data.limits.pause_s=0"]
    else:
        recipe = Recipe(*sides(keys["size"]), keys["fps"], keys["channels"])
        store = build_store(GifFolder(folder / "gifs"), recipe, folder / cache)
        keys["path"] = str(store.addresses[0])
    data: ClipData = build("data", name, *words, **keys)
    if "list" in node:
        job = data.urls.job(0, 1, data.limits, 1)  # type: ignore[attr-defined]
        assert run(job, "none", wait=False, on_news=lambda news: None).complete
    data.load()
    return data


def content(data: ClipData) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """Key, sha256 and shots of every clip, and its bytes."""
    assert data.store is not None
    return [
        (entry.key, entry.sha256, entry.shots, data.store.clip(i).tobytes())
        for i, entry in enumerate(data.store.entries)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_a_source_gives_files_under_names_that_stay(name: str, load: Load) -> None:
    one, two = (load(name).source for _ in range(2))  # type: ignore[attr-defined]
    keys = one.keys()
    assert keys == sorted(set(keys))
    assert keys
    assert (two.keys(), two.fingerprint()) == (keys, one.fingerprint())
    for key in keys:
        data = one.read(key)
        assert two.read(key) == data
        assert one.open(data, one.limits).num_frames > 1
    assert one.describe()
    assert "\n" not in one.describe()


@pytest.mark.parametrize("name", ALL)
def test_two_stores_of_the_same_data_are_equal(name: str, load: Load) -> None:
    first = content(load(name))
    assert first
    assert content(load(name, cache="another")) == first


@pytest.mark.parametrize("form", [FORM, OTHER_FORM], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ALL)
def test_clips_have_the_form_that_is_asked_for(name: str, form: dict[str, Any], load: Load) -> None:
    data = load(name, **form, val_fraction=0.0)
    store, num_frames, fps = data.store, form["num_frames"], form["fps"]
    assert store is not None
    assert (store.shape, store.fps) == ((*sides(form["size"]), form["channels"]), fps)
    for i, entry in enumerate(store.entries):
        assert len(store.clip(i)) == entry.num_frames == max(1, round(entry.seconds * fps))
    for batch in (next(iter(data.train_loader())), next(iter(data.val_loader()))):
        assert batch.clip.shape == (3, num_frames, *store.shape)


@pytest.mark.parametrize("name", ALL)
def test_the_number_of_frames_needs_no_other_store(name: str, load: Load) -> None:
    short, long = (load(name, num_frames=n).store for n in (2, 9))
    assert short is not None
    assert long is not None
    assert short.addresses == long.addresses


@pytest.mark.parametrize("name", ALL)
def test_windows_stay_within_a_shot(name: str, load: Load) -> None:
    """30 passes; without shots a window of the clip of two straddles its cut in one of seven."""
    data = load(name, shots="within", val_fraction=0.0)
    assert data.store is not None
    for i, entry in enumerate(data.store.entries):
        assert entry.shots == find_shots(data.store.clip(i))
        assert ("red_then_blue" in entry.key) == (entry.shots == (0, 10))
    loader = data.train_loader()
    for batch in (batch for _ in range(30) for batch in loader):
        for window in batch.clip.tolist():
            frames = {tuple(frame[0][0]) for frame in window}  # by their first pixels
            assert not frames >= {(255, 0, 0), (0, 0, 255)}
    loader.close()


@pytest.mark.parametrize("name", ALL)
def test_clips_are_held_out_by_their_content(name: str, load: Load) -> None:
    data = load(name, val_fraction=0.4)
    assert data.store is not None
    contents = [entry.sha256 for entry in data.store.entries]
    val = {i for i, sha256 in enumerate(contents) if split(sha256, 0.4) == "val"}
    assert 0 < len(val) < len(contents)
    assert set(data.val_set.indices) == val
    assert set(data.train_set.indices) == set(range(len(contents))) - val
