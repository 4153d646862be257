"""Laws of the network's options, one by one and at small size."""

import math
from typing import Any, get_args

import pytest
import torch

from ddpm_lightning.networks.attention import SPATIAL, TemporalAttention, WindowedAttention
from ddpm_lightning.networks.blocks import CONVOLUTIONS, MagnitudeConv, Norm, modulate, norm_conv
from ddpm_lightning.networks.checks import fitting_heads
from ddpm_lightning.networks.kernels.precision import cast_weights
from ddpm_lightning.networks.layers import Resampling, TemporalConv
from ddpm_lightning.networks.rotary import rotated, rotation
from ddpm_lightning.networks.stage import Mixing
from ddpm_lightning.run.config.check import check
from ddpm_lightning.run.config.errors import UserError
from tests.networks.shared import clips, unet, unreached

OPTIONS: list[dict[str, Any]] = [
    *({"spatial_attention": [kind, kind]} for kind in SPATIAL),
    *({"norm": norm} for norm in CONVOLUTIONS),
    *({"resampling": kind} for kind in get_args(Resampling)),
    *({"temporal_mixing": kind} for kind in get_args(Mixing)),
    {"temporal_attention": [False, False]},
    {"num_heads": [1, 3]},
    {"num_blocks": [3, 2]},
    {"wide_ends": True},
    {"zero_exits": False},
    {"checkpointing": [True, True]},
    {"patch": 2},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_keeps_the_shape_and_reaches_every_parameter(options: dict[str, Any]) -> None:
    model = unet(**{"num_blocks": [1, 1], **options})
    x = clips(num_frames=3)
    output = model(x, torch.tensor([-3.0, 5.0]))
    assert output.shape == x.shape
    output.square().sum().backward()
    assert unreached(model) == []


@pytest.mark.parametrize("norm", CONVOLUTIONS)
@pytest.mark.parametrize("zero_exits", [True, False])
def test_only_with_zero_exits_residual_branches_start_at_zero(norm: Norm, zero_exits: bool) -> None:
    model = unet(norm=norm, zero_exits=zero_exits, width_multipliers=[1, 1])
    block = type(model.middle_exit)(16, 0, 16, 64, norm, full=False, zero_exit=zero_exits)
    x = torch.randn(4, 3, 3, 16, generator=torch.Generator().manual_seed(0))
    [modulation] = modulate([block], torch.ones(2, 64))
    unchanged = torch.equal(block(x, modulation, 2), x)
    assert unchanged == zero_exits


@pytest.mark.parametrize("mixing", ["none", "separable"])
def test_images_of_a_training_batch_see_no_other_frame_and_the_rest_is_unmoved(mixing: str) -> None:
    model = unet(image_share=0.5, temporal_mixing=mixing).train()
    x, level = clips(batch_size=4), torch.linspace(-2, 2, 4)
    changed = x.clone()
    changed[:, :, 0] += 1
    outputs = []
    with torch.no_grad():
        for given in (x, changed):
            torch.manual_seed(0)  # the same lot
            outputs.append(model(given, level))
        whole = model.eval()(x, level)
    before, after = outputs
    moved = (after - before).abs().amax((1, 3, 4))  # (B, F)
    is_image = moved[:, 1:].amax(1) == 0
    assert is_image.sum() == 2
    assert moved[~is_image, 1:].min() > 1e-4
    torch.testing.assert_close(whole[~is_image], before[~is_image], rtol=0, atol=1e-5)
    assert (whole[is_image] - before[is_image]).abs().amax((1, 2, 3, 4)).min() > 1e-3


@pytest.mark.parametrize(
    ("share", "num_clips", "mixing"),
    [(0.6, 1, "none"), (0.75, 2, "separable"), (0.9, 3, "separable")],
)
def test_a_batch_may_be_images_alone(share: float, num_clips: int, mixing: str) -> None:
    """Layers along time then have gradients of zero: ranks that average them need some."""
    options: dict[str, Any] = {"temporal_mixing": mixing, "wide_ends": True}
    model = unet(image_share=share, **options).train()
    x, level = clips(batch_size=num_clips), torch.linspace(-2, 2, num_clips)
    output = model(x, level)
    output.square().sum().backward()
    along_time = {
        name for name, _ in model.named_parameters() if "temporal" in name or "mixers" in name
    } | {name for name, _ in model.named_parameters() if name.startswith("entry_attention")}
    assert all(p.grad is not None for p in model.parameters())
    assert set(unreached(model)) == along_time
    changed = x.clone()
    changed[:, :, 0] += 1
    with torch.no_grad():
        moved = (model(changed, level) - output).abs().amax((0, 1, 3, 4))  # (F,)
    assert moved[0] > 1e-4
    assert moved[1:].max() < 1e-5


@pytest.mark.slow
def test_every_clip_of_a_batch_is_an_image_as_often() -> None:
    """Where it stands may say how noisy it is: with stratified times it does."""
    small: dict[str, Any] = {"width_multipliers": [1], "num_blocks": 1, "temporal_attention": True}
    model = unet(image_share=0.25, spatial_attention="none", **small)
    x, level = clips(4, num_frames=2, height=2, width=2), torch.zeros(4)
    torch.manual_seed(0)
    with torch.no_grad():
        whole = model.eval()(x, level)
        model.train()
        drawn = [(model(x, level) - whole).abs().amax((1, 2, 3, 4)) > 1e-3 for _ in range(32)]
    share = torch.stack(drawn).float().mean(0)
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 32)


@pytest.mark.parametrize("mixing", ["separable", "full"])
def test_temporal_convolutions_reach_one_frame_far_at_a_time(mixing: str) -> None:
    model = unet(
        temporal_mixing=mixing,
        temporal_attention=[False],
        width_multipliers=[1],
        num_blocks=[1],
        spatial_attention=["none"],
    )
    x = clips(batch_size=1, num_frames=24)
    changed = x.clone()
    changed[:, :, 0] += 1
    with torch.no_grad():
        difference = model(changed, torch.zeros(1)) - model(x, torch.zeros(1))
    moved = difference.abs().amax((0, 1, 3, 4)) > 0
    convolutions = 3 if mixing == "separable" else 8  # four blocks, of which the last has no mixer
    assert moved[: convolutions + 1].all()
    assert not moved[convolutions + 1 :].any()


def test_temporal_convolution_starts_as_the_identity() -> None:
    x = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(TemporalConv(8)(x), x, rtol=0, atol=1e-6)


def test_magnitude_preserving_convolution_preserves_magnitude() -> None:
    """Variance 1 out for variance 1 in, whatever the scale of the weight; 64 channels, seed 0."""
    torch.manual_seed(0)
    layer = MagnitudeConv(64, 64)
    x = torch.randn(4, 32, 32, 64)
    with torch.no_grad():
        inner = layer(x)[:, 1:-1, 1:-1]
        layer.conv.weight.mul_(7)
        torch.testing.assert_close(layer(x)[:, 1:-1, 1:-1], inner, rtol=1e-3, atol=1e-3)
    # SiLU of N(0, 1) has a mean of 0.2, which 64 x 9 random weights average: within 10 %.
    assert inner.std() == pytest.approx(1, abs=0.1)


def test_magnitude_preserving_weights_are_rounded_once() -> None:
    """In bfloat16 the convolution has the normalised weight of float32, rounded; seed 0."""
    torch.manual_seed(0)
    layer, x = MagnitudeConv(8, 8), torch.randn(2, 3, 3, 8, dtype=torch.bfloat16)
    weight = layer.conv.weight
    exact = (
        weight
        * (layer.gain / 0.596)
        / (torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True) + 1e-4)
    )
    with torch.no_grad(), cast_weights(torch.bfloat16, layer):
        expected = norm_conv(x, layer.unit, torch.zeros_like(layer.unit), exact, None)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_windowed_attention_stays_within_its_window() -> None:
    torch.manual_seed(0)
    layer = WindowedAttention(16, 2, 8, zero_exit=False)
    x = torch.randn(1, 16, 24, 16)
    changed = x.clone()
    changed[0, 9, 3] += 1  # in the window of rows 8 to 15, columns 0 to 7
    with torch.no_grad():
        moved = (layer(changed) - layer(x)).abs().amax(-1)[0] > 1e-6
    assert moved[8:, :8].all()
    moved[8:, :8] = False
    assert not moved.any()


def test_temporal_attention_stays_within_its_pixel_and_its_clip() -> None:
    torch.manual_seed(0)
    layer = TemporalAttention(16, 2, 8, zero_exit=False)
    x = torch.randn(2, 3, 6, 16)
    changed = x.clone()
    changed[0, 0, 4] += 1
    with torch.no_grad():
        moved = (layer(changed) - layer(x)).abs().amax(-1) > 1e-6  # (B, F, M)
    assert moved[0, :, 4].all()
    moved[0, :, 4] = False
    assert not moved.any()


def test_rotation_makes_products_depend_on_the_distance_in_time_alone() -> None:
    """Seed 0; float32 sines of angles up to 12."""
    q, k = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 12, 8)
    angles = rotation(12, 8, torch.device("cpu"))
    product = rotated(q, *angles) @ rotated(k, *angles).T  # (12, 12), [i, j] for frames i and j
    for distance in range(-11, 12):
        diagonal = product.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert product[0].std() > 0.1  # and it does depend on it
    assert torch.equal(rotated(q, *angles)[0], q[0])


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"spatial_attention": ["full"]}, "spatial_attention needs one entry per level, 2"),
    ({"num_blocks": [1, 1, 1]}, "num_blocks needs one entry per level"),
    ({"checkpointing": [True]}, "checkpointing needs one entry per level"),
    ({"image_share": 0.5, "temporal_mixing": "full"}, "choose temporal_mixing=separable"),
    ({"head_width": 6}, "got 6 for a level of 16 channels; change network.head_width or"),
    ({"token_width": 6, "spatial_attention": ["none"] * 2}, "needs spatial attention at some"),
]
MISTYPED: list[tuple[dict[str, Any], str]] = [
    ({"spatial_attention": ["none", "linaer"]}, "'linear', 'full', 'windowed' or 'none'"),
    ({"norm": "batch"}, "'rms', 'group' or 'magnitude'"),
    ({"resampling": "bilinear"}, "'shuffle', 'strided' or 'area'"),
    ({"temporal_mixing": "fulll"}, "'none', 'separable' or 'full'"),
    ({"image_share": 1.0}, "be less than 1"),
    ({"head_width": 7}, "be a multiple of 2"),
    ({"head_width": 0}, "be greater than or equal to 2"),
    ({"num_heads": [0, 1]}, "greater than 0"),
    ({"num_blocks": [2, -1]}, "greater than 0"),
    ({"width_multipliers": [0, 2]}, "be greater than 0"),
    ({"width_multipliers": []}, "at least 1 item"),
    ({"vector_width": -1}, "be greater than or equal to 0"),
    ({"base_width": 0}, "be greater than 0"),
    ({"out_channels": 0}, "be greater than 0"),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistake_is_explained_in_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        unet(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "words"), MISTYPED, ids=lambda value: str(value)[:40])
def test_a_configuration_is_refused_by_the_types_of_options(
    options: dict[str, Any], words: str
) -> None:
    node = {"_target_": "ddpm_lightning.networks.unet3d.UNet3D", "channels": 1} | options
    with pytest.raises(UserError, match=rf"^network\.{next(iter(options))}.*should .*{words}"):
        check({"network": node})


def test_as_many_heads_as_make_up_the_width() -> None:
    assert fitting_heads(width=64, head_width=16) == 4
