"""Laws of every network in conf/network, at a small width, and of the layers they are made of."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.networks.unet3d import UNet3D
from tests.networks.shared import unreached
from tests.problems import build, composed, networks

SMALL = {"base_width": 32, "head_width": 16}

every_network = pytest.mark.parametrize("name", networks())


def network(name: str, channels: int = 1) -> UNet3D:
    """As configured, but narrow; seed 0."""
    torch.manual_seed(0)
    node = composed(f"network={name}").network
    small = {key: value for key, value in SMALL.items() if key in node}
    return build("network", name, channels=channels, **small).eval()


def trained(name: str, channels: int = 1) -> UNet3D:
    """As after a little training: no weight is zero any more; seed 1."""
    model = network(name, channels)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def clips(model: UNet3D, channels: int = 1, num_frames: int = 4, batch_size: int = 2) -> Tensor:
    """The smallest clips with H != W; seed 2."""
    shape = (batch_size, channels, num_frames, 2 * model.stride, 3 * model.stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("num_frames", "channels"), [(1, 3), (5, 1), (16, 3)])
@every_network
def test_output_has_the_shape_of_the_input(name: str, num_frames: int, channels: int) -> None:
    model = trained(name, channels)
    x = clips(model, channels, num_frames)
    with torch.no_grad():
        output = model(x, torch.zeros(2))
    assert output.shape == x.shape
    assert output.isfinite().all()


@pytest.mark.parametrize("out_channels", [3, 6, 4])
@every_network
def test_output_channels_are_a_number_of_their_own(name: str, out_channels: int) -> None:
    model = build("network", name, channels=3, out_channels=out_channels, **SMALL)
    x = clips(model, channels=3)
    with torch.no_grad():
        output = model(x, torch.zeros(2))
    assert output.shape == (2, out_channels, *x.shape[2:])


@every_network
def test_output_is_zero_before_training(name: str) -> None:
    model = network(name)
    x = clips(model)
    assert torch.equal(model(x, torch.zeros(2)), torch.zeros_like(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every_network
def test_output_is_float32_and_leaves_no_trace_of_the_layout(name: str, dtype: torch.dtype) -> None:
    model = trained(name)
    x = clips(model)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        output = model(x, torch.zeros(2))
    assert output.dtype == torch.float32
    assert output.is_contiguous()


@every_network
def test_gradients_reach_every_parameter(name: str) -> None:
    model = trained(name)
    model(clips(model, num_frames=3), torch.tensor([-3.0, 5.0])).square().sum().backward()
    assert unreached(model) == []


@every_network
def test_frame_size_off_the_stride_is_refused_with_the_nearest_sizes(name: str) -> None:
    model = network(name)
    size = 3 * model.stride
    for height, width, word in ((size + 1, size, "height"), (size, size + 1, "width")):
        with pytest.raises(ValueError, match=f"{word} .*got {size + 1}") as error:
            model(torch.zeros(1, 1, 2, height, width), torch.zeros(1))
        assert f"{size} or {size + model.stride}" in str(error.value)


@pytest.mark.slow
@every_network
def test_log_snr_changes_the_output_of_its_own_sample_alone(name: str) -> None:
    model = trained(name)
    x = clips(model)
    with torch.no_grad():
        before, after = model(x, torch.zeros(2)), model(x, torch.tensor([0.0, 4.0]))
    # A batched convolution may round differently, hence not the same bits.
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-5)
    assert (after[1] - before[1]).abs().max() > 1e-3


@every_network
def test_samples_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = trained(name)
    x = clips(model, batch_size=3)
    log_snr = torch.tensor([-8.0, 0.0, 8.0])
    with torch.no_grad():
        together = model(x, log_snr)
        alone = torch.cat([model(x[i : i + 1], log_snr[i : i + 1]) for i in range(3)])
    scale = float(together.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * scale)  # float32, 20 layers


@pytest.mark.slow
@every_network
def test_every_frame_sees_every_other_frame(name: str) -> None:
    model = trained(name)
    x = clips(model, batch_size=1)
    with torch.no_grad():
        before = model(x, torch.zeros(1))
        for frame in range(4):
            changed = x.clone()
            changed[:, :, frame] += 1
            difference = (model(changed, torch.zeros(1)) - before).abs().amax((0, 1, 3, 4))
            assert difference.min() > 1e-4


@every_network
def test_order_of_frames_matters(name: str) -> None:
    """Without positions, shuffled frames would give shuffled outputs."""
    model = trained(name)
    x = clips(model, batch_size=1)
    shuffled = [1, 3, 0, 2]
    with torch.no_grad():
        output, other = model(x, torch.zeros(1)), model(x[:, :, shuffled], torch.zeros(1))
    assert (other - output[:, :, shuffled]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_network
def test_autocast_is_finite_and_close(name: str, dtype: torch.dtype) -> None:
    model = trained(name)
    x = clips(model)
    with torch.no_grad():
        exact = model(x, torch.tensor([-20.0, 20.0]))
        with torch.autocast("cpu", dtype):
            output = model(x, torch.tensor([-20.0, 20.0]))
    assert output.isfinite().all()
    # 8 or 11 bits of mantissa, 4e-3 or 5e-4 a layer, some twenty layers that add up at random.
    error = (output - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 25 * torch.finfo(dtype).eps / 2
