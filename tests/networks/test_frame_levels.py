"""A level for every frame: log-SNR (B, F)."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.networks.unet3d import UNet3D
from tests.networks.shared import clips, loss_and_gradients, preset, unet
from tests.problems import networks

LOG_SNR = torch.tensor([-3.0, 5.0])


class Spread(torch.nn.Module):
    """Gives a network the level of a clip as that of each of its frames."""

    def __init__(self, network: UNet3D) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        output: Tensor = self.network(x, log_snr[:, None].expand(-1, x.shape[2]))
        return output


@pytest.mark.slow
@pytest.mark.parametrize("name", networks())
def test_equal_levels_give_what_one_level_gives(name: str) -> None:
    """To the bit: one level is spread to the frames before anything else is computed."""
    model, x = preset(name), clips(height=16, width=32)
    assert loss_and_gradients(model, x)[0] == loss_and_gradients(Spread(model), x)[0]
    with torch.no_grad():
        assert torch.equal(model(x, LOG_SNR), Spread(model)(x, LOG_SNR))


@pytest.mark.parametrize("norm", ["rms", "group", "magnitude"])
def test_equal_levels_give_the_gradients_of_one_level(norm: str) -> None:
    model, x = unet(norm=norm), clips()
    loss, gradients = loss_and_gradients(model, x)
    spread_loss, spread_gradients = loss_and_gradients(Spread(model), x)
    assert spread_loss == pytest.approx(loss, rel=1e-6)
    for a, b in zip(gradients, spread_gradients, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm() + 1e-7  # float32, sums of thousands of terms


@pytest.mark.parametrize("norm", ["rms", "group", "magnitude"])
def test_a_frame_is_modulated_by_its_own_level(norm: str) -> None:
    """Where frames do not see each other, each is as in a clip that is all at its level."""
    model, x = unet(norm=norm, temporal_attention=[False, False]), clips(num_frames=3)
    levels = torch.tensor([[-6.0, 0.0, 6.0], [6.0, -2.0, 1.0]])
    with torch.no_grad():
        output = model(x, levels)
        for frame in range(3):
            expected = model(x, levels[:, frame])[:, :, frame]
            torch.testing.assert_close(output[:, :, frame], expected, rtol=0, atol=1e-5)


def test_frames_treated_as_images_keep_their_levels() -> None:
    """Half of the clips, by lot, are; the others are as ever. Seed 4 of the lot."""
    model, x = unet(image_share=0.5), clips()
    levels = torch.tensor([[-6.0, 0.0, 6.0, 1.0, 2.0], [6.0, -2.0, 1.0, 3.0, -9.0]])
    with torch.no_grad():
        expected = model.eval()(x, levels)
        torch.manual_seed(4)
        output = model.train()(x, levels)
    differences = (output - expected).abs().amax((1, 2, 3, 4))
    assert differences.min() < 1e-5
    assert differences.max() > 1e-3


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 4), (2, 5, 1)])
def test_levels_that_fit_neither_clips_nor_frames_are_refused(shape: tuple[int, ...]) -> None:
    message = r"2 clips of 5 frames need as many log-SNRs, \(2,\) or \(2, 5\), got"
    with pytest.raises(ValueError, match=message):
        unet()(clips(), torch.zeros(shape))
