"""The contract of extractors, and the known features of pixels and of an untrained network."""

import pytest
import torch

from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.features.pixels import Pixels
from ddpm_lightning.evaluation.features.random import RandomFeatures
from tests.evaluation.features.shared import noise_clips

EXTRACTORS = [Pixels(), RandomFeatures()]


@pytest.fixture(params=EXTRACTORS, ids=lambda extractor: extractor.name)
def extractor(request: pytest.FixtureRequest) -> Extractor:
    return request.param


@pytest.mark.parametrize("channels", [1, 3])
def test_every_clip_has_a_pair_of_float64_features(extractor: Extractor, channels: int) -> None:
    clips = noise_clips(3, channels=channels)
    spatial, temporal = extractor.pair(clips)
    assert spatial.dtype == temporal.dtype == torch.float64
    assert len(spatial) == len(temporal) == 3
    assert spatial.std(0).max() > 0
    assert temporal.std(0).max() > 0


def test_features_do_not_depend_on_the_batch(extractor: Extractor) -> None:
    clips = noise_clips(extractor.batch_size + 1)
    together = extractor.pair(clips)
    alone = extractor.pair(clips[-1:])
    for all_features, features in zip(together, alone, strict=True):
        # float32 sums in another order
        torch.testing.assert_close(all_features[-1:], features, rtol=1e-4, atol=1e-5)


def test_still_clips_have_no_temporal_features() -> None:
    still = noise_clips(2)[:, :1].expand(-1, 5, -1, -1, -1)
    assert Pixels().pair(still).temporal.abs().max() < 1e-3  # the root of float32's round-off


def test_short_and_small_clips_are_refused(extractor: Extractor) -> None:
    with pytest.raises(ValueError, match=r"at least 2 frames, got 1; sample longer clips"):
        extractor.pair(noise_clips(2, num_frames=1))
    with pytest.raises(ValueError, match=r"at least 8 pixels a side, got 7 x 7"):
        extractor.pair(noise_clips(2, size=7))


def test_pixels_are_the_cells_mean_deviation_and_difference() -> None:
    clips = noise_clips(2, num_frames=3, size=4)
    spatial, temporal = Pixels(grid=2).pair(clips)
    cells = clips.double().unflatten(2, (2, 2)).unflatten(4, (2, 2)).mean((3, 5)) / 255
    cells = cells.permute(0, 1, 4, 2, 3).flatten(2)  # (2, F, 3*2*2)
    deviation, difference = cells.std(1, correction=0), cells.diff(dim=1).abs().mean(1)
    torch.testing.assert_close(spatial, cells.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        temporal, torch.cat([deviation, difference], 1).sqrt(), rtol=0, atol=1e-5
    )


def test_random_features_come_from_their_seed_alone() -> None:
    clips = noise_clips(2)
    torch.manual_seed(1)
    first = RandomFeatures(seed=3).pair(clips).spatial
    torch.manual_seed(2)
    assert torch.equal(first, RandomFeatures(seed=3).pair(clips).spatial)
    assert not torch.equal(first, RandomFeatures(seed=4).pair(clips).spatial)


def test_random_features_see_the_direction_of_time_and_pixels_do_not() -> None:
    clips = noise_clips(4, num_frames=6)
    for extractor, sees in ((Pixels(), False), (RandomFeatures(), True)):
        change = extractor.pair(clips).temporal - extractor.pair(clips.flip(1)).temporal
        assert (change.abs().max() > 1e-3) == sees
