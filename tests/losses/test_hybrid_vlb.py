"""The hybrid loss: the bound teaches the variance and leaves the estimate alone."""

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.losses.shared import data_and_noise
from tests.problems import PROCESSES, build, every_example, loss_at, process_under

every_process = pytest.mark.parametrize("process_type", PROCESSES)

# Above the first usable step of every process; usable themselves under linear noise.
T = torch.tensor([3, 8, 12, 15])


class TwoOutputs(nn.Module):
    """Answers a first and a second output of its own, whatever it sees."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.cat([self.first, self.second], dim=1)


def gradients(
    process: GaussianProcess, loss: str, second: float = 0.3, **values: float
) -> tuple[Tensor, Tensor | None]:
    """Of the first and of the second output."""
    x_0, e = data_and_noise(len(T))
    network = TwoOutputs(0.1 * e.flip(0), torch.full_like(e, second))
    denoiser = Denoiser(network, process, build("objective", "velocity"))
    loss_at(build("loss", loss, **values), denoiser, x_0, T, e).sum().backward()
    assert network.first.grad is not None
    return network.first.grad, network.second.grad


@every_example
def test_the_bounds_gradient_reaches_the_second_output_alone(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 20)
    first, second = gradients(process, "hybrid_vlb", vlb_weight=1000.0)
    # The simple loss at the usable times: what the bound adds is not seen here.
    alone, none = gradients(process, "hybrid_vlb", vlb_weight=0.0)
    assert torch.equal(first, alone)
    assert (first != 0).all()
    assert second is not None
    assert (second != 0).all()
    assert none is None or (none == 0).all()


@every_process
def test_the_first_outputs_gradient_is_that_of_the_simple_loss(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 20)
    first, _ = gradients(process, "hybrid_vlb", vlb_weight=10.0)
    simple, _ = gradients(process, "simple")
    torch.testing.assert_close(first, simple, rtol=1e-6, atol=1e-9)  # t is found by bisection


@every_process
def test_the_second_outputs_gradient_grows_with_the_weight_of_the_bound(
    process_type: type[GaussianProcess],
) -> None:
    process = process_under(process_type, "linear", 20)
    _, once = gradients(process, "hybrid_vlb", vlb_weight=0.001)
    _, twice = gradients(process, "hybrid_vlb", vlb_weight=0.002)
    assert once is not None
    assert twice is not None
    torch.testing.assert_close(twice, 2 * once, rtol=1e-12, atol=0)


@every_example
def test_the_loss_is_simple_plus_the_weighted_bound(
    process_type: type[GaussianProcess], noise: str
) -> None:
    process = process_under(process_type, noise, 20)
    x_0, e = data_and_noise(len(T))
    network = TwoOutputs(0.1 * e.flip(0), torch.full_like(e, 0.3))
    denoiser = Denoiser(network, process, build("objective", "velocity"))
    nothing = loss_at(build("loss", "hybrid_vlb", vlb_weight=0.0), denoiser, x_0, T, e)
    half = loss_at(build("loss", "hybrid_vlb", vlb_weight=0.5), denoiser, x_0, T, e)
    bound = loss_at(build("loss", "vlb"), denoiser, x_0, T, e)
    torch.testing.assert_close(half, nothing + 0.5 * bound, rtol=1e-12, atol=0)


def test_the_best_variance_for_a_poor_estimate_is_larger_than_for_a_good_one() -> None:
    """Descending the bound moves the share up where the estimate is off, down where it is right."""
    process = process_under(StandardProcess, "linear", 20)
    x_0, e = data_and_noise(len(T))
    alpha, sigma = (value.reshape(-1, 1, 1, 1, 1) for value in process.level(T)[:2])
    v = alpha * e - sigma * x_0
    for offset, sign in ((0.0, 1), (3.0, -1)):
        network = TwoOutputs(v + offset, torch.zeros_like(e))
        denoiser = Denoiser(network, process, build("objective", "velocity"))
        loss_at(build("loss", "hybrid_vlb"), denoiser, x_0, T, e).sum().backward()
        assert network.second.grad is not None
        assert (network.second.grad.sign() == sign).all()


def test_the_customary_weight_is_that_of_nichol_and_dhariwal() -> None:
    assert build("loss", "hybrid_vlb").vlb_weight == 0.001
