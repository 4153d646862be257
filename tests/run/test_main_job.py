"""The default, as `make train` runs it: real GIFs of moving digits, learned on a CPU."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from ddpm_lightning.data.clip import ClipFormat, resample
from ddpm_lightning.data.gif import decode, frames
from ddpm_lightning.plots.curves import read_metrics
from tests.commands import newest_run, spawn

FORMAT = ClipFormat(height=16, width=16, num_frames=8, fps=10, channels=1)


@pytest.mark.long
def test_the_default_run_learns_within_a_hundred_steps(tmp_path: Path) -> None:
    # Predicting nothing (velocity 0) has a loss of 1; seen at step 100: 0.344 to 0.353, 3 seeds.
    result = spawn(tmp_path, "train", "trainer.max_steps=100", "trainer.val_check_interval=50")
    assert result.code == 0, result.err
    run = newest_run(tmp_path)
    val_loss = read_metrics(run / "metrics.csv")["val/loss"][1]
    assert val_loss[-1] < 0.4
    assert val_loss[-1] < val_loss[0]
    assert (run / "samples" / "step_000050.gif").exists()
    for told in ("samples/final.gif", "samples/reverse.gif", "curves.png", "tensorboard --logdir"):
        assert told in result.out
    for shown in ("loss=", "clips/s=", "data wait=", "left"):
        assert shown in result.err


@pytest.mark.long
def test_sampled_digits_can_be_read_and_stay_the_same_digit_while_they_move(tmp_path: Path) -> None:
    result = spawn(tmp_path, "train", timeout=3000)
    assert result.code == 0, result.err
    words = [f"checkpoint={newest_run(tmp_path)}", "num_samples=64", "output=out"]
    assert spawn(tmp_path, "sample", *words, timeout=600).code == 0
    classifier = digit_classifier(tmp_path / "data" / "moving_digits")
    clips = [
        decode(path.read_bytes()).frames[..., 0] for path in (tmp_path / "out").rglob("0*.gif")
    ]
    labels = [classifier.predict([centred(frame) for frame in clip]) for clip in clips]
    same = np.mean([np.bincount(label).max() / len(label) for label in labels])
    moved = [np.abs(centre(clip[0]) - centre(clip[-1])).max() for clip in clips]
    assert len(clips) == 64
    assert same > 0.6  # eight frames labelled at random agree on 0.3, frames of real clips on 0.97
    assert np.median(moved) > 1  # pixels, from the first frame to the last


def digit_classifier(folder: Path) -> SVC:
    """Trained on frames of the GIFs themselves, whose names end in their digit."""
    examples, labels = [], []
    for path in sorted(folder.glob("*.gif")):
        for frame in resample(frames(path.read_bytes()), FORMAT)[::6, ..., 0]:
            examples.append(centred(frame))
            labels.append(int(path.stem[-1]))
    assert set(labels) == set(load_digits().target)
    return SVC(C=10).fit(examples, labels)


def centre(frame: np.ndarray) -> np.ndarray:
    """Centre of mass (row, column) of a frame (H, W) on black."""
    mass = frame.astype(float) + 1e-9
    rows, columns = np.indices(frame.shape)
    return np.array([(mass * rows).sum(), (mass * columns).sum()]) / mass.sum()


def centred(frame: np.ndarray) -> np.ndarray:
    """The 11x11 pixels around the centre of mass, as one row in [0, 1]."""
    row, column = np.rint(centre(frame)).astype(int) + 8
    return np.pad(frame, 8)[row - 5 : row + 6, column - 5 : column + 6].ravel() / 255
