"""Laws of every loss in conf/loss: per sample, finite everywhere, refused where it cannot work."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.losses.shared import FLOOR, LOSSES, SHAPE, Affine, data_and_noise, denoiser, outputs_of
from tests.problems import build, every_example, loss_at, options, process_under

every_loss = pytest.mark.parametrize("name", LOSSES)


def assert_finite(values: Tensor, network: Denoiser) -> None:
    """Losses, which are float32, and their gradients."""
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    values.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@every_loss
def test_loss_is_per_sample(name: str) -> None:
    process = process_under(MedianProcess, "linear", 50)
    loss, network = build("loss", name), denoiser(process, "velocity", outputs_of(name))
    x_0, e = data_and_noise(5)
    t = torch.tensor([1, 2, 10, 40, 50])
    together = loss_at(loss, network, x_0, t, e)
    assert together.shape == (5,)
    assert (together >= 0).all()
    for i in range(5):
        alone = loss_at(loss, network, x_0[i : i + 1], t[i : i + 1], e[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-14)


@every_loss
def test_losses_and_gradients_are_finite_under_hybrid_noise(name: str) -> None:
    """Of every objective, at the times that are drawn, down to log-SNR -12 - log d; clips in
    float32, the network in float32 or bfloat16.
    """
    loss, process = build("loss", name), process_under(StandardProcess, "hybrid")
    t = process.informative_time(torch.linspace(0, 0.999, 40).double(), FLOOR).unique()
    x_0, e = (value.float() for value in data_and_noise(len(t)))
    for objective in options("objective"):
        for dtype in (torch.float32, torch.bfloat16):
            network = denoiser(process, objective, outputs_of(name), dtype)
            assert_finite(loss_at(loss, network, x_0, t, e), network)


@pytest.mark.slow
@every_loss
@every_example
def test_losses_and_gradients_are_finite_on_chains_of_any_length(
    process_type: type[GaussianProcess], noise: str, name: str
) -> None:
    loss = build("loss", name)
    for num_steps in (1, 3, 1000):
        process = process_under(process_type, noise, num_steps)
        t = process.informative_time(torch.linspace(0, 0.999, 12).double(), FLOOR).unique()
        x_0, e = (value.float() for value in data_and_noise(len(t)))
        network = denoiser(process, "velocity", outputs_of(name), torch.float32)
        assert_finite(loss_at(loss, network, x_0, t, e), network)


@every_loss
def test_gradients_reach_every_parameter(name: str) -> None:
    process = process_under(MedianProcess, "cosine", 50)
    network = denoiser(process, "velocity", outputs_of(name))
    x_0, e = data_and_noise(4)
    loss_at(build("loss", name), network, x_0, torch.tensor([2, 10, 30, 49]), e).mean().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert (parameter.grad != 0).all()


@every_loss
def test_a_network_with_the_outputs_that_the_loss_needs_passes(name: str) -> None:
    process = process_under(MedianProcess, "linear", 10)
    loss = build("loss", name)
    assert loss.num_outputs == outputs_of(name)
    loss.check(denoiser(process, "velocity", loss.num_outputs), torch.zeros(1, *SHAPE))


@every_loss
def test_a_network_with_other_outputs_is_refused_in_one_line(name: str) -> None:
    process = process_under(MedianProcess, "linear", 10)
    loss = build("loss", name)
    needed, given = loss.num_outputs, 3 - loss.num_outputs
    message = f"needs {needed} output channels .* got {given}; set network.out_channels={needed}"
    with pytest.raises(ValueError, match=message) as error:
        loss.check(denoiser(process, "velocity", given), torch.zeros(1, *SHAPE))
    assert "\n" not in str(error.value)


def test_a_network_with_three_outputs_is_refused_in_one_line() -> None:
    network = Denoiser(
        Affine(3), process_under(MedianProcess, "linear", 10), build("objective", "clean")
    )
    with pytest.raises(ValueError, match="with that shape or with twice the channels, got"):
        build("loss", "simple").check(network, torch.zeros(1, *SHAPE))


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("min_snr", "gamma", 0.0, "gamma must be positive, got 0.0"),
        ("soft_min_snr", "gamma", -1.0, "gamma must be positive, got -1.0"),
        ("hybrid_vlb", "vlb_weight", -0.1, "vlb_weight must be 0 or more, got -0.1"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(
    name: str, key: str, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build("loss", name, **{key: value})
    assert "\n" not in str(error.value)
