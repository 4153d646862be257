"""Fixtures of the command tests: a folder with GIFs in it, and commands called there."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from matplotlib.figure import Figure

from ddpm_lightning.files.checkpoints import LAST, STEP, read, write
from tests.commands import TINY, Call, alive, call_in, newest_run, spawn, write_gifs
from tests.forkserver import save_blank

if TYPE_CHECKING:
    from tests.run.test_ranks import Group


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of commands that are called in this process; those of others see tests.commands."""
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr(Figure, "savefig", save_blank)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command in tmp_path, where gifs/ holds eight small GIFs."""
    write_gifs(tmp_path / "gifs")
    return call_in(tmp_path, monkeypatch, capsys)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """Return what `make` returned, in whichever process of pytest was the first to need it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock")):
        result = folder / "made.txt"
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what another process failed to make
            folder.mkdir()
            made = str(make(folder))
            result.write_text(made)
        return Path(result.read_text())


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of four steps, made by a process of its own."""

    def train(folder: Path) -> Path:
        write_gifs(folder / "gifs")
        result = spawn(folder, "train", *TINY, "logger=csv", "sampler=ddim", draws=True)
        assert result.code == 0, result.err
        return newest_run(folder)

    return once(tmp_path_factory, "trained", train)


@pytest.fixture(scope="session")
def resumed_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of that run, resumed to its sixth step as years may leave it: moved, half a row
    at the end of its table, a folder in the place of its last checkpoint, a stranger's words in the
    one before; with other values, some of them of a group that is not the default's.
    """

    def resume(folder: Path) -> Path:
        run = Path(shutil.copytree(trained_once, folder / "elsewhere"))
        (run / "status.json").write_text('{"status": "finished", "seconds": 1000.0}')
        with (run / "metrics.csv").open("a") as file:
            file.write("0,,3,1.5")
        checkpoint = run / "checkpoints" / STEP.format(4)
        hostile = {"_instantiator": "os.mkdir", "path": str(run.with_name("attacked"))}
        write(read(checkpoint) | {"hyper_parameters": hostile}, checkpoint)
        (run / "checkpoints" / LAST).unlink()
        (run / "checkpoints" / LAST).mkdir()
        words = ["trainer.max_steps=6", "trainer.val_check_interval=3", "optimizer.lr=0.5"]
        result = spawn(trained_once.parents[1], "train", f"resume={run}", *words, "sampler.eta=0.5")
        assert result.code == 0, result.err
        return run

    return once(tmp_path_factory, "resumed", resume)


@pytest.fixture
def trained(call: Call, trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that run below tmp_path/outputs, beside the GIFs it was trained on."""
    return Path(shutil.copytree(trained_once, tmp_path / "outputs" / trained_once.name))


@pytest.fixture
def group(tmp_path: Path) -> Iterator["Group"]:
    """Starts the ranks of a run in tmp_path, and kills those that are left."""
    from tests.run.test_ranks import Group

    yield Group(tmp_path)
    for pid in alive(tmp_path):
        os.kill(pid, signal.SIGKILL)
