"""The dataset: windows, what is random in a sample, captions, and the two sides of the split."""

import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from ddpm_lightning.data.augmentation import Augmentation
from ddpm_lightning.data.clips.stored import StoredClips
from ddpm_lightning.data.dataset import Batch, ClipDataset
from ddpm_lightning.data.order import Sample
from ddpm_lightning.data.shards import Entry, Header, create, write_shard
from ddpm_lightning.data.shots import ShotMode
from ddpm_lightning.data.split import train_val_indices
from ddpm_lightning.data.store import ClipStore
from ddpm_lightning.data.windows import Windows
from tests.data.stores import SHAPE, bin_of, clip_of, write_store

CENTRED = Windows(4, random=False)
ANYWHERE = Windows(4, random=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Clip i has 3 + i % 10 frames and i % 4 captions."""
    return ClipStore(write_store(tmp_path_factory.mktemp("store")))


def samples(items: Iterable[int], first: int = 0) -> list[Sample]:
    return [Sample(item, first + k) for k, item in enumerate(items)]


Counting = Callable[..., ClipStore]


@pytest.fixture
def counting(tmp_path: Path) -> Counting:
    """A function that makes a store of one clip whose frame k is k everywhere but in its columns,
    which add 0, 40, 80, ..."""

    def make(length: int, shots: tuple[int, ...] = (0,)) -> ClipStore:
        create(tmp_path, Header(SHAPE, 10.0, "tests"))
        clip = np.zeros((length, *SHAPE), np.uint8) + np.arange(length)[:, None, None, None]
        clip = (clip + 40 * np.arange(SHAPE[1])[:, None]).astype(np.uint8)
        write_shard(tmp_path, 0, [clip], [Entry("a", "0" * 64, shots=shots)], {})
        return ClipStore(tmp_path)

    return make


def frames_shown(dataset: ClipDataset, count: int) -> np.ndarray:
    """(count, F) frames of the counting clip, for samples 0 .. count - 1."""
    return dataset.__getitems__(samples([0] * count)).clip[:, :, 0, 0, 0].numpy()


def test_a_batch_holds_centred_windows_of_the_chosen_clips(store: ClipStore) -> None:
    dataset = ClipDataset(store, [9, 0, 4], CENTRED)
    assert len(dataset) == 3
    batch = dataset.__getitems__(samples([0, 1, 2, 0]))
    assert (batch.clip.dtype, batch.index.dtype) == (torch.uint8, torch.int64)
    assert batch.index.tolist() == [0, 1, 2, 0]
    expected = [clip_of(9)[4:8], clip_of(0)[[0, 1, 2, 0]], clip_of(4)[1:5], clip_of(9)[4:8]]
    np.testing.assert_array_equal(batch.clip, expected)
    alone = dataset[2]
    assert torch.equal(alone.clip[0], batch.clip[2])


def test_windows_start_everywhere_alike(counting: Counting) -> None:
    """9 starts, 1,800 draws: 200 each, with a standard deviation of 13."""
    dataset = ClipDataset(counting(12), [0], ANYWHERE)
    shown = frames_shown(dataset, 1800)
    assert (np.diff(shown) == 1).all()
    counts = np.bincount(shown[:, 0], minlength=9)
    assert len(counts) == 9
    assert abs(counts - 200).max() < 5 * 14


def test_short_clips_loop(counting: Counting) -> None:
    dataset = ClipDataset(counting(3), [0], Windows(8, random=True))
    assert (frames_shown(dataset, 5) == [0, 1, 2, 0, 1, 2, 0, 1]).all()
    still = ClipDataset(
        counting(1), [0], Windows(3, random=True), augmentation=Augmentation(fps_jitter=1.0)
    )
    assert (frames_shown(still, 5) == 0).all()


def test_what_a_sample_shows_depends_on_its_number_and_the_seed_alone(store: ClipStore) -> None:
    """Not on the batch it comes in, nor on what was drawn before or by torch."""
    windows, augmentation = Windows(3, random=True), Augmentation(True, 0.5, 0.1, 0.1)
    dataset = ClipDataset(store, range(10), windows, augmentation=augmentation, seed=5)
    wanted = dataset.__getitems__(samples(list(range(10)) * 3))
    torch.manual_seed(9)
    copy = pickle.loads(pickle.dumps(dataset))
    for k in (17, 3, 29):
        batch = copy.__getitems__([Sample(k % 10, k)])
        assert torch.equal(batch.clip[0], wanted.clip[k])
        assert batch.annotations[0] == wanted.annotations[k]
    later = dataset.__getitems__(samples(list(range(10)) * 3, first=30))
    other = ClipDataset(store, range(10), windows, augmentation=augmentation, seed=6)
    assert not torch.equal(later.clip, wanted.clip)
    assert not torch.equal(other.__getitems__(samples(list(range(10)) * 3)).clip, wanted.clip)


def test_half_of_the_samples_are_mirrored_exactly(counting: Counting) -> None:
    """1,000 draws: 500 +- 5 x 16."""
    dataset = ClipDataset(counting(4), [0], CENTRED, augmentation=Augmentation(flip=True))
    batch = dataset.__getitems__(samples([0] * 1000))
    clips = batch.clip
    plain = torch.from_numpy(ClipStore(dataset.store.addresses).clip(0).copy())
    mirrored = (clips == plain.flip(2)).flatten(1).all(1)
    assert ((clips == plain).flatten(1).all(1) != mirrored).all()
    assert 420 < int(mirrored.sum()) < 580
    noted = torch.tensor(["augmentation" in known for known in batch.annotations])
    assert torch.equal(noted, mirrored)


def test_jitter_plays_up_to_its_factor_faster_or_slower(counting: Counting) -> None:
    """Speeds are spread evenly on the log scale: half of 1,000 are above 1, +- 5 x 16."""
    jitter = Augmentation(fps_jitter=0.5)
    dataset = ClipDataset(counting(40), [0], Windows(16, random=True), augmentation=jitter)
    shown = frames_shown(dataset, 1000)
    steps = np.diff(shown, axis=1)
    assert set(np.unique(steps)) == {0, 1, 2}
    covered = shown[:, -1] - shown[:, 0]
    assert covered.min() == 10  # floor(15 / 1.5)
    assert covered.max() in (21, 22)  # below 15 x 1.5
    assert 420 < int((covered >= 15).sum()) < 580


@pytest.mark.parametrize(
    ("shots", "allowed"),
    [
        ("any", {*range(17)}),
        ("first", {0, 1, 2}),
        ("longest", {*range(6, 11)}),
        ("within", {0, 1, 2, *range(6, 11), *range(14, 17)}),
    ],
)
def test_windows_stay_in_the_shots_that_are_allowed(
    counting: Counting, shots: ShotMode, allowed: set[int]
) -> None:
    """Shots of 6, 8 and 6 frames; 500 draws miss one of 17 starts with probability 1e-12."""
    store = counting(20, shots=(0, 6, 14))
    dataset = ClipDataset(store, [0], Windows(4, random=True, shots=shots))
    assert set(frames_shown(dataset, 500)[:, 0].tolist()) == allowed
    centre = ClipDataset(store, [0], Windows(4, random=False, shots=shots))
    assert int(frames_shown(centre, 1)[0, 0]) in allowed


def test_a_shot_that_is_too_short_is_looped_not_left(counting: Counting) -> None:
    store = counting(10, shots=(0, 3, 8))
    dataset = ClipDataset(store, [0], Windows(7, random=True, shots="within"))
    assert (frames_shown(dataset, 20) == [3, 4, 5, 6, 7, 3, 4]).all()


def captions_of(dataset: ClipDataset, items: list[int]) -> list[str | None]:
    known = dataset.__getitems__(samples(items)).annotations
    return [annotation.get("caption") for annotation in known]


def test_captions_ride_along(store: ClipStore) -> None:
    """A clip's captions alternate by sample; one without any has none. 300 draws of
    3: 100 +- 5 x 8."""
    dataset = ClipDataset(store, range(10), CENTRED)
    assert captions_of(dataset, [4, 1]) == [None, "clip 1, sentence 0"]
    counts = Counter(captions_of(dataset, [3] * 300))
    assert set(counts) == {f"clip 3, sentence {k}" for k in range(3)}
    assert min(counts.values()) > 60


def test_lightning_moves_a_batch_with_its_captions(store: ClipStore) -> None:
    batch = ClipDataset(store, range(10), CENTRED).__getitems__(samples([1, 2]))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert type(moved) is Batch
    assert moved.clip.device.type == moved.index.device.type == "meta"
    assert moved.annotations == batch.annotations


def test_labels_ride_along_and_frame_rates_are_those_of_what_is_shown(tmp_path: Path) -> None:
    """Played up to 1.5 times faster or slower, by the same draw that chooses the frames."""
    create(tmp_path, Header(SHAPE, 10.0, "tests"))
    entry = Entry("a", "0" * 64, label="cats/black", gif_fps=12.0)
    write_shard(tmp_path, 0, [clip_of(9)], [entry], {})
    store, jitter = ClipStore(tmp_path), Augmentation(fps_jitter=0.5)
    dataset = ClipDataset(store, [0], ANYWHERE, augmentation=jitter)
    assert dataset.annotation(0) == {"label": "cats/black", "fps": 12.0}
    annotations = dataset.__getitems__(samples([0] * 200)).annotations
    assert {known["label"] for known in annotations} == {"cats/black"}
    speeds = torch.tensor([known["fps"] / 12 for known in annotations])
    assert 0.66 < speeds.min() < 0.7
    assert 1.45 < speeds.max() < 1.51


def test_names_of_labels_come_from_the_store_that_is_trained_on(tmp_path: Path) -> None:
    height, width, channels = SHAPE
    create(tmp_path, Header(SHAPE, 10.0, "tests"))
    entries = [Entry(name, name * 64, label=name) for name in "cab"]
    write_shard(tmp_path, 0, [clip_of(number) for number in range(3)], entries, {})
    data = StoredClips(str(tmp_path), size=[height, width], channels=channels)
    assert data.label_names() == ["a", "b", "c"]
    store = data.store
    data.load()
    assert store is data.store is data.train_set.store


def test_a_damaged_clip_is_replaced_by_another_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_store(tmp_path)
    file = bin_of(tmp_path, 0)
    file.write_bytes(b"\0\1\2" + file.read_bytes()[3:])  # clip 0
    dataset = ClipDataset(ClipStore(tmp_path), range(10), CENTRED)
    batch = dataset.__getitems__(samples([0] * 50))
    assert 0 not in batch.index
    assert len(set(batch.index.tolist())) > 5
    for clip, i in zip(batch.clip, batch.index.tolist(), strict=True):
        number = dataset.indices[i]
        assert torch.equal(clip, ClipDataset(dataset.store, [number], CENTRED)[0].clip[0])
    again = ClipDataset(ClipStore(tmp_path), range(10), CENTRED).__getitems__(samples([0] * 50))
    assert torch.equal(again.index, batch.index)
    assert "damaged shard" in caplog.text
    assert len(dataset.store.damage) == 1


def test_nothing_but_damage_is_a_clear_stop(tmp_path: Path) -> None:
    write_store(tmp_path, num_clips=3)
    file = bin_of(tmp_path, 0)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ValueError, match=r"100 clips drawn in a row are damaged .*\.bin is dam"):
        ClipDataset(ClipStore(tmp_path), range(3), CENTRED)[0]


def test_it_pickles_without_its_clips(store: ClipStore) -> None:
    dataset = ClipDataset(store, range(10), CENTRED)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled)[3].clip, dataset[3].clip)


def test_the_digest_tells_other_clips_and_orders(store: ClipStore) -> None:
    digests = {ClipDataset(store, chosen, CENTRED).digest() for chosen in ([1, 2], [2, 1], [1])}
    assert len(digests) == 3


def test_the_two_sides_share_all_clips(store: ClipStore, caplog: pytest.LogCaptureFixture) -> None:
    train, val = train_val_indices(store.entries, 0.5)
    assert train
    assert val
    assert sorted(train + val) == list(range(10))
    assert not caplog.records


@pytest.mark.parametrize(("fraction", "empty"), [(0.0, "val"), (1.0, "train")])
def test_an_empty_side_uses_all_clips_and_says_so_once(
    store: ClipStore, fraction: float, empty: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train, val = train_val_indices(store.entries, fraction)
    assert train == val == list(range(10))
    assert [record.message for record in caplog.records] == [
        f"val_fraction={fraction:g} leaves no {empty} clip among 10: "
        f"the {empty} side uses all of them"
    ]
