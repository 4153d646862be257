"""A run that is trained on captions and told of augmentation: resumed, exported, asked for."""

from pathlib import Path

import pytest
import yaml

from ddpm_lightning.data.gif import decode
from tests.commands import TINY, Call, assert_user_error, newest_run, spawn, write_gifs

pytestmark = pytest.mark.slow

CAPTIONED = ["condition=[caption,augmentation]", "condition.caption.max_words=6", "logger=csv"]
CHANGED = ["data.flip=true", "data.fps_jitter=0.2", "data.shift=0.1", "data.zoom=0.1"]
ODD = "zxqvw's 'quoted' = (a, b) \\ ${x} [c]"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GIFs of which the last has no caption, and a run on them."""
    folder = tmp_path_factory.mktemp("captioned")
    write_gifs(folder / "gifs")
    lines = [f"{number:02d}.gif\ta square, number {number}" for number in range(7)]
    (folder / "gifs" / "captions.tsv").write_text("\n".join([*lines, "00.gif\tthe first one"]))
    result = spawn(folder, "train", *TINY, *CAPTIONED, *CHANGED)
    assert result.code == 0, result.err
    assert "captions by word vectors, the first 6 words" in result.out
    return folder


@pytest.fixture
def run(captioned: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(captioned)
    return newest_run(captioned)


def test_a_run_is_resumed_and_has_the_widths_of_its_captions(run: Path, call: Call) -> None:
    assert call("train", f"resume={run}", "trainer.max_steps=6").code == 0
    network = yaml.safe_load((run / "config.yaml").read_text())["network"]
    assert (network["vector_width"], network["token_width"]) == (50 + 5, 50)


def test_captions_are_asked_for(run: Path, call: Call, tmp_path: Path) -> None:
    """In quotes and from a file; an exported run draws the same."""
    file = tmp_path / "captions.txt"
    file.write_text(f"a square\n{ODD}\n")
    assert call("export", f"checkpoint={run}", f"output={tmp_path}/one.safetensors").code == 0
    grids = []
    for number, checkpoint in enumerate((run, tmp_path / "one.safetensors")):
        out = tmp_path / f"from_{number}"
        words = [f"checkpoint={checkpoint}", "guidance=classifier_free"]
        words += ["sampler.num_evaluations=2"]
        result = call("sample", *words, f"output={out}", f"captions={file}", "num_samples=4")
        assert result.code == 0, result.err
        assert f"caption={ODD}" in result.out
        grids.append(decode((out / "grid.gif").read_bytes()).frames)
    assert (grids[0] == grids[1]).all()
    result = call("sample", *words, f"output={tmp_path}/alone", f"caption={ODD}", "num_samples=1")
    assert result.code == 0, result.err
    assert f"asked for      caption={ODD}\n" in result.out


def test_samples_are_not_asked_for_augmentation(run: Path, call: Call) -> None:
    assert_user_error(
        call("sample", f"checkpoint={run}", "caption=a square", "augmentation=flip"),
        "samples are drawn without augmentation, got 'flip'",
    )


def test_data_without_captions_are_refused(tmp_path: Path, call: Call) -> None:
    write_gifs(tmp_path / "gifs")
    assert_user_error(
        call("train", *TINY, "condition=caption", "logger=csv"),
        "no clip has a caption; put captions.tsv",
    )
