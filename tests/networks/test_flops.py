"""Operations counted from the graph are those of the formula."""

import pytest
import torch
from torch import nn

from ddpm_lightning.networks.flops import forward_flops, peak_flops
from ddpm_lightning.training.compilation import compile_in_place
from tests.networks.shared import clips, unet


class Mixer(nn.Module):
    """A 1x1x1 mix of 3 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.mix(x.movedim(1, -1)).movedim(-1, 1)


def test_a_matrix_product_takes_two_operations_a_multiplication() -> None:
    assert forward_flops(Mixer(), (2, 3, 4, 5, 6)) == 2 * (2 * 4 * 5 * 6) * 3 * 3


@pytest.mark.slow
def test_counting_grows_with_the_batch_and_touches_nothing() -> None:
    model, x = unet(), clips()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert forward_flops(model, x.shape) > 1.9 * forward_flops(model, (1, *x.shape[1:]))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_compiled_network_has_the_same() -> None:
    mixer, shape = Mixer(), (2, 3, 4, 5, 6)
    expected = forward_flops(mixer, shape)
    assert compile_in_place(mixer, torch.device("cpu"), backend="eager")
    assert forward_flops(mixer, shape) == expected


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None
