"""Fixtures of the command tests: a folder with GIFs in it, and commands called there."""

import io
import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ddpm_lightning.files.checkpoints import LAST, STEP, read, write
from tests.commands import TINY, Call, call_in, newest_run, spawn, write_gifs


@pytest.fixture(autouse=True)
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of commands called in this process are one pixel: to draw them takes a third of a
    short run. Commands in processes of their own, as that of `trained`, draw theirs.
    """

    def savefig(figure: Figure, file: Path | io.BytesIO, **options: object) -> None:
        Image.new("RGB", (1, 1)).save(file, "PNG")

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Runs a command in tmp_path, where gifs/ holds eight small GIFs."""
    write_gifs(tmp_path / "gifs")
    return call_in(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run of four steps, made by a process of its own."""
    folder = tmp_path_factory.mktemp("trained")
    write_gifs(folder / "gifs")
    result = spawn(folder, "train", *TINY, "logger=csv", "sampler=ddim")
    assert result.code == 0, result.err
    return newest_run(folder)


@pytest.fixture(scope="session")
def resumed_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of that run, resumed to its sixth step as years may leave it: moved, half a row
    at the end of its table, a folder in the place of its last checkpoint, a stranger's words in the
    one before; with other values, some of them of a group that is not the default's.
    """
    run = Path(shutil.copytree(trained_once, tmp_path_factory.mktemp("resumed") / "elsewhere"))
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


@pytest.fixture
def trained(call: Call, trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that run below tmp_path/outputs, beside the GIFs it was trained on."""
    return Path(shutil.copytree(trained_once, tmp_path / "outputs" / trained_once.name))
