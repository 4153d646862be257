"""The loss that is trained, on fixed pairs."""

import pytest
import torch

from ddpm_lightning.evaluation.measures.trained_loss import TrainedLoss
from ddpm_lightning.evaluation.subject import Reference, Subject, Training
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.samplers.heun import HeunSampler
from tests.evaluation.measures.shared import denoiser
from tests.problems import build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "times"),
    [("simple", "uniform_t"), ("min_snr", "uniform_log_snr"), ("edm", "uniform_t")],
)
def test_it_is_the_mean_that_training_draws(loss: str, times: str, reference: Reference) -> None:
    training = Training(build("loss", loss), build("times", times))
    subject = Subject(denoiser(), reference, HeunSampler(1), training=training)
    result = TrainedLoss(num_draws=8)(subject)["loss"]
    drawn = train_losses(subject, 4000)
    assert result.standard_error is not None
    error = drawn.std() / 4000**0.5 + result.standard_error
    assert abs(result.value - drawn.mean()) < 4 * error


def train_losses(subject: Subject, num: int) -> torch.Tensor:
    """Return losses (num,) at independent times and noise, as a training step has them."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.cat([x_0 for x_0, *_ in subject.held_out()])
    x_0 = clips[torch.randint(0, len(clips), (num,), generator=generator)]
    uniform = torch.rand(num, generator=generator, dtype=torch.float64)
    assert subject.training is not None
    loss, times = subject.training
    t = times.draw(subject.denoiser.process, uniform, torch.zeros(num), 1, log_snr_floor(x_0.shape))
    noise = torch.randn(x_0.shape, generator=generator)
    level = subject.denoiser.process.level(t)
    return loss(subject.denoiser, x_0, t, level, noise).double()


def test_it_does_not_depend_on_batches(reference: Reference) -> None:
    training = Training(build("loss", "simple"), build("times", "uniform_t"))
    values = [
        TrainedLoss(num_draws=2)(Subject(denoiser(), part, HeunSampler(1), training=training))[
            "loss"
        ]
        for part in (reference, Reference(reference.data, batch_size=5))
    ]
    assert values[0].value == pytest.approx(values[1].value, rel=1e-6)
    assert values[0].facts == {"num_clips": len(reference.held_out)}
