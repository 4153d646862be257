"""What the network is told beside log-SNR: vectors, and tokens that positions attend to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.guidance import Conditioned
from ddpm_lightning.level import Level
from ddpm_lightning.networks.flops import forward_flops
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.processes.standard import StandardProcess
from tests.networks.shared import clips, unet, unreached
from tests.problems import build, networks, process_under

pytestmark = pytest.mark.slow  # as a whole: networks of every kind

LEVEL = torch.zeros(2)


def conditions(num_tokens: int = 4) -> dict[str, Tensor]:
    """For two clips, of width 3 and 6; seed 3."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(2, num_tokens, 6, generator=generator)
    return {"vectors": torch.randn(2, 3, generator=generator), "tokens": tokens}


def conditioned(**more: Any) -> UNet3D:
    return unet(vector_width=3, token_width=6, **more)


@pytest.mark.parametrize("name", ["vectors", "tokens"])
def test_a_condition_changes_the_output_of_its_own_clip_alone(name: str) -> None:
    model, x, told = conditioned(), clips(), conditions()
    changed = told[name].clone()
    changed[1] += 1
    other = told | {name: changed}
    with torch.no_grad():
        before, after = model(x, LEVEL, **told), model(x, LEVEL, **other)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-5)
    assert (after[1] - before[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", networks())
def test_gradients_reach_every_parameter_and_the_conditions_in_every_preset(name: str) -> None:
    torch.manual_seed(0)
    small = {"channels": 1, "base_width": 16, "head_width": 8, "vector_width": 3, "token_width": 6}
    model = build("network", name, **small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    told = {name: value.requires_grad_() for name, value in conditions().items()}
    x = torch.randn(2, 1, 3, 2 * model.stride, model.stride)
    model(x, LEVEL, **told).square().sum().backward()
    assert unreached(model) == []
    gradients = [value.grad for value in told.values()]
    assert all(g is not None and g.abs().amax(-1).min() > 0 for g in gradients)


def test_the_order_and_the_scale_of_tokens_do_not_matter_and_there_may_be_any_number() -> None:
    model, x, told = conditioned(), clips(), conditions()
    with torch.no_grad():
        expected = model(x, LEVEL, **told)
        for tokens in (told["tokens"][:, [2, 0, 3, 1]], 7 * told["tokens"]):
            output = model(x, LEVEL, vectors=told["vectors"], tokens=tokens)
            torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)
        for num_tokens in (1, 9):
            assert model(x, LEVEL, **conditions(num_tokens)).shape == x.shape


def test_a_network_learns_about_conditions_from_where_it_stands() -> None:
    """Weights trained without them give the same output with tokens, and with vectors of zeros,
    which a label has where it is not known; gradients flow.
    """
    x, plain = clips(), unet()
    torch.manual_seed(0)
    options: dict[str, Any] = {"width_multipliers": [1, 2], "num_blocks": [1, 2], "patch": 1}
    options |= {"spatial_attention": ["linear", "full"], "temporal_attention": [True, True]}
    model = UNet3D(2, base_width=16, head_width=8, vector_width=3, token_width=6, **options)
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert all(key.startswith("embedding.vectors") or ".cross." in key for key in missing)
    output = model(x, LEVEL, **conditions() | {"vectors": torch.zeros(2, 3)})
    torch.testing.assert_close(output, plain(x, LEVEL), rtol=0, atol=1e-6)
    output.square().sum().backward()
    assert model.middle.cross is not None
    gradient = model.middle.cross.exit.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_without_conditions_there_is_nothing_of_them() -> None:
    assert not any("cross" in key or "vectors" in key for key in unet().state_dict())


@pytest.mark.parametrize("more", [{"checkpointing": [True, True]}, {"image_share": 0.5}], ids=str)
def test_conditions_go_with_other_options(more: dict[str, Any]) -> None:
    model, x, told = conditioned(**more).train(), clips(), conditions()
    output = model(x, LEVEL, **told)
    output.square().sum().backward()
    assert unreached(model) == []
    if "checkpointing" in more:
        with torch.no_grad():
            torch.testing.assert_close(output, conditioned()(x, LEVEL, **told))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_close_and_the_output_float32(dtype: torch.dtype) -> None:
    model, x, told = conditioned(), clips(), conditions()
    with torch.no_grad():
        exact = model(x, LEVEL, **told)
        with torch.autocast("cpu", dtype):
            output = model(x, LEVEL, **told)
    assert output.dtype == torch.float32
    assert (output - exact).norm() < 0.1 * exact.norm()


SHAPES = [
    ("vectors", (2, 4), r"takes vectors of shape \(2, 3\) beside log-SNR, got \(2, 4\)"),
    ("vectors", (3, 3), r"got \(3, 3\); network.vector_width is their"),
    ("vectors", None, r"takes vectors of shape \(2, 3\) beside log-SNR, got None"),
    ("tokens", (2, 4, 5), r"takes tokens of shape \(2, L, 6\) beside log-SNR, got \(2, 4, 5\)"),
    ("tokens", (2, 0, 6), r"got \(2, 0, 6\); network.token_width"),
    ("tokens", (2, 6), r"got \(2, 6\)"),
    ("tokens", (1, 4, 6), r"got \(1, 4, 6\)"),
    ("tokens", None, r"got None; network.token_width is their width, 0 for none"),
]


@pytest.mark.parametrize(("name", "shape", "words"), SHAPES, ids=str)
def test_a_wrong_shape_is_explained_in_one_line(
    name: str, shape: tuple[int, ...] | None, words: str
) -> None:
    told: dict[str, Any] = conditions() | {name: None if shape is None else torch.zeros(shape)}
    with pytest.raises(ValueError, match=words) as error:
        conditioned()(clips(), LEVEL, **told)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vectors", "tokens"])
def test_conditions_for_a_network_that_takes_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"this network takes {name} of shape \(.* 0\)"):
        unet()(clips(), LEVEL, **{name: conditions()[name]})


def test_operations_of_conditions_are_counted() -> None:
    """Of the products with tokens: queries and exit, keys and values, scores and mixtures."""
    shape, told = (2, 2, 8, 32, 32), {"vectors": (3,), "tokens": (4, 6)}
    fine, coarse = 8 * 32 * 32, 8 * 16 * 16  # positions
    # of five stages, down, middle and up, with their widths and those of their heads
    stages = [(fine, 16, 16), *[(coarse, 32, 32)] * 2, (coarse, 16, 32), (fine, 16, 16)]
    operations = 2 * 3 * 64 + 2 * sum(
        2 * rows * width * inner + 2 * 4 * 6 * inner + 2 * rows * 4 * inner
        for rows, width, inner in stages
    )
    more = forward_flops(conditioned(), shape, told) - forward_flops(unet(), shape)
    assert more == 2 * operations


def denoiser() -> Denoiser:
    process = process_under(StandardProcess, "cosine")
    return Denoiser(conditioned(), process, build("objective", "velocity"))


@pytest.mark.parametrize("name", ["vectors", "tokens"])
def test_samplers_losses_and_likelihoods_take_conditions(name: str) -> None:
    plain, x = denoiser(), clips()
    given = conditions()
    here, there = given, given | {name: -given[name]}
    sampler, loss = build("sampler", "heun", num_evaluations=4), build("loss", "min_snr")
    bound = build("likelihood", "variational", num_terms=3)
    t, noise = torch.tensor([300, 700]), clips().flip(0)

    def seed() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    level = plain.process.level(t)
    uses: list[Callable[[dict[str, Tensor]], Tensor]] = [
        lambda more: sampler.sample(Conditioned(plain, **more), x.shape, generator=seed()),
        lambda more: loss(plain, x, t, level, noise, **more),
        lambda more: bound.nats(Conditioned(plain, **more), x, seed()).total,
        lambda more: plain.score_at(x, level, **more),
    ]
    for use in uses:
        with torch.no_grad():
            assert (use(there) - use(here)).abs().max() > 1e-4
            assert torch.equal(use(here), use(here))


def test_conditions_of_another_number_of_clips_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes vectors of shape \(1, 3\) .* got \(2, 3\)"):
        denoiser().denoise_at(clips(batch_size=1), Level.at(torch.zeros(1)), **conditions())
