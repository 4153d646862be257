"""The dataset: windows, batches from worker processes, and the two sides of the split."""

import logging
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ddpm_lightning.data.cache import build
from ddpm_lightning.data.clip import ClipFormat
from ddpm_lightning.data.dataset import Batch, ClipDataset, train_val_indices
from ddpm_lightning.data.sources.folder import GifFolder
from tests.data.shared import noise_clip, noise_gif


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Clips of 3 to 12 frames, seeds 3 to 12; the key tells both."""
    path = tmp_path_factory.mktemp("gifs")
    for seed in range(3, 13):
        (path / f"{seed:02d}.gif").write_bytes(noise_gif(seed, seed))
    return build(GifFolder(path), ClipFormat(6, 7, 4, 10), path / "cache")


def test_items_are_centred_windows_of_the_chosen_clips(cache):
    dataset = ClipDataset(cache, [9, 0, 4], num_frames=4, random_window=False)
    assert len(dataset) == 3
    expected = [noise_clip(12, 12)[4:8], noise_clip(3, 3)[[0, 1, 2, 0]], noise_clip(7, 7)[1:5]]
    for i, frames in enumerate(expected):
        item = dataset[i]
        assert item.clip.dtype == torch.uint8
        assert item.index.dtype == torch.int64
        assert item.index == i
        np.testing.assert_array_equal(item.clip, frames)


def test_random_windows_start_everywhere_and_follow_the_seed(cache):
    """Seed 0; 200 draws miss one of 9 starts with probability 5e-10."""
    dataset = ClipDataset(cache, [9], num_frames=4, random_window=True)
    windows = {noise_clip(12, 12)[start : start + 4].tobytes(): start for start in range(9)}

    def draw(count):
        torch.manual_seed(0)
        return [windows[dataset[0].clip.numpy().tobytes()] for _ in range(count)]

    starts = draw(200)
    assert set(starts) == set(range(9))
    assert draw(20) == starts[:20]
    looped = ClipDataset(cache, [0], num_frames=4, random_window=True)[0].clip
    np.testing.assert_array_equal(looped, noise_clip(3, 3)[[0, 1, 2, 0]])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loaders_collate_items_into_a_batch(cache, num_workers):
    dataset = ClipDataset(cache, range(10), num_frames=4, random_window=False)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=num_workers))
    assert [type(batch) for batch in batches] == [Batch, Batch]
    assert batches[1].clip.shape == (5, 4, 6, 7, 3)
    assert batches[1].index.tolist() == [5, 6, 7, 8, 9]
    torch.testing.assert_close(batches[1].clip[0], dataset[5].clip)


def test_dataset_pickles_without_its_clips(cache):
    dataset = ClipDataset(cache, range(10), num_frames=4, random_window=False)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled)[3].clip, dataset[3].clip)


def test_the_two_sides_share_all_clips(cache, caplog):
    train, val = train_val_indices(cache, 0.5)
    assert train
    assert val
    assert sorted(train + val) == list(range(10))
    assert not caplog.records


@pytest.mark.parametrize(("fraction", "empty"), [(0.0, "val"), (1.0, "train")])
def test_an_empty_side_uses_all_clips_and_says_so_once(cache, fraction, empty, caplog):
    with caplog.at_level(logging.WARNING):
        train, val = train_val_indices(cache, fraction)
    assert train == val == list(range(10))
    assert [record.message for record in caplog.records] == [
        f"val_fraction={fraction:g} leaves no {empty} clip among 10: "
        f"the {empty} side uses all of them"
    ]


def test_a_fraction_outside_is_named(cache):
    with pytest.raises(ValueError, match=r"val_fraction must lie in \[0, 1\], got 1.5"):
        train_val_indices(cache, 1.5)
