"""Which clips a likelihood is measured on."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser, Estimator
from ddpm_lightning.evaluation.likelihoods import measure
from ddpm_lightning.likelihood.base import Likelihood, Nats
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.noise import Generators
from tests.problems import FixedOutput, build, process_under


class Brightness(Likelihood):
    """Gives the mean of a clip, which tells here which clip it is."""

    def nats(self, denoiser: Estimator, x_0: Tensor, generator: Generators = None) -> Nats:
        return Nats({"mean": (x_0.double() + 1).flatten(1).mean(1) * 127.5})


def drawn(num_clips: int, batch_size: int, available: int = 200) -> list[int]:
    """Return which clips are measured, of so many; clip k is of value k throughout."""
    clips = (
        torch.arange(available, dtype=torch.uint8).reshape(-1, 1, 1, 1, 1).expand(-1, 2, 3, 3, 1)
    )
    rows = torch.arange(available).split(batch_size)
    batches = [Batch(clips[row], row, [{}] * len(row), row.tolist()) for row in rows]
    process = process_under(StandardProcess, "linear")
    denoiser = Denoiser(FixedOutput(0.0), process, build("objective", "velocity"))
    means = measure(Brightness(), denoiser, batches, num_clips, "cpu").total
    return [round(mean) for mean in means.tolist()]


@pytest.mark.slow
def test_clips_are_drawn_from_all_and_each_once() -> None:
    """64 of 200: their mean place lies within 4 standard errors of the middle, 5.9 each."""
    chosen = drawn(64, batch_size=8)
    assert len(set(chosen)) == 64
    assert abs(sum(chosen) / 64 - 99.5) < 4 * 5.9


def test_which_clips_does_not_depend_on_batches_and_more_clips_hold_fewer() -> None:
    assert drawn(16, batch_size=8) == drawn(16, batch_size=50)
    assert set(drawn(16, batch_size=8)) < set(drawn(32, batch_size=8))


def test_all_clips_are_measured_where_there_are_no_more() -> None:
    assert sorted(drawn(16, batch_size=4, available=10)) == list(range(10))
