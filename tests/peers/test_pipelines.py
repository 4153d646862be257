"""A pipeline of diffusers, sampled by us, walks the states of its own scheduler."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.networks.diffusers2d import DiffusersUNet2D
from ddpm_lightning.run.exchange.pipeline import load_pipeline
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding
from tests.pipelines import SCHEDULER, UNET, build_pipeline, save_pipeline

pytest.importorskip("diffusers", reason="needs the extra diffusers")

pytestmark = pytest.mark.slow  # as a whole: diffusers is imported

T = SCHEDULER["num_train_timesteps"]
SHAPE = (2, 3, 8, 8)


def seed_1() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@torch.no_grad()
def their_states(pipeline: Any, x: Tensor, num_steps: int) -> list[Tensor]:
    """Every x that their network is shown, and the last one."""
    pipeline.scheduler.set_timesteps(num_steps)
    generator, states = seed_1(), [x]
    for t in pipeline.scheduler.timesteps:
        output = pipeline.unet(x, t).sample
        x = pipeline.scheduler.step(output, t, x, generator=generator).prev_sample
        states.append(x)
    return states


# Epsilon only where the chain ends above log-SNR -10.6, below which our objective tempers it.
@pytest.mark.parametrize(
    ("prediction_type", "schedule"),
    [
        ("epsilon", "linear"),
        pytest.param("sample", "squaredcos_cap_v2", marks=pytest.mark.long),
        pytest.param("v_prediction", "scaled_linear", marks=pytest.mark.long),
        ("v_prediction", "squaredcos_cap_v2"),
    ],
)
@torch.no_grad()
def test_a_pipeline_walks_as_its_scheduler_does(
    prediction_type: str, schedule: str, tmp_path: Path
) -> None:
    """Every step of the chain; float32 against float32, whose tables keep five digits."""
    pipeline = build_pipeline(prediction_type=prediction_type, beta_schedule=schedule)
    pipeline.save_pretrained(tmp_path)
    _, denoiser = load_pipeline(str(tmp_path))
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    theirs = their_states(pipeline, x, T)
    generator, ours = seed_1(), []
    end = AncestralSampler(T, UniformTimeGrid(), StaticThresholding(1.0), 0.0).walk(
        denoiser,
        x[:, :, None],
        torch.arange(T, -1, -1),
        lambda: torch.randn(SHAPE, generator=generator)[:, :, None],
        lambda state: ours.append(state.x.clone()),
    )
    assert len(theirs) == len(ours) == T + 1
    assert torch.equal(end, ours[-1])
    worst = max(float((a - b[:, :, 0]).abs().max()) for a, b in zip(theirs, ours, strict=True))
    print(f"largest difference: {worst:.1e}")
    assert worst < 2e-4
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(theirs))


def test_the_index_is_theirs_and_real_valued(tmp_path: Path) -> None:
    """Whole on the steps of the chain, half-way in log-SNR at a half, and held at both ends."""
    _, denoiser = load_pipeline(str(save_pipeline(tmp_path)))
    network = denoiser.network
    assert isinstance(network, DiffusersUNet2D)
    log_snr = denoiser.process.log_snr(torch.arange(1, T + 1)).float()
    torch.testing.assert_close(network.index_at(log_snr), torch.arange(float(T)), rtol=0, atol=1e-4)
    between = (log_snr[:-1] + log_snr[1:]) / 2
    expected = torch.arange(T - 1.0) + 0.5
    torch.testing.assert_close(network.index_at(between), expected, rtol=0, atol=1e-4)
    assert network.index_at(torch.tensor([30.0, -30.0])).tolist() == [0.0, T - 1.0]


@torch.no_grad()
def test_each_frame_is_a_still_at_its_own_level(tmp_path: Path) -> None:
    _, denoiser = load_pipeline(str(save_pipeline(tmp_path)))
    x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    log_snr = torch.linspace(-8, 8, 8).reshape(2, 4)
    clip = denoiser.network(x, log_snr)
    for b, f in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        still = denoiser.network(x[b : b + 1, :, f : f + 1], log_snr[b, f : f + 1])
        torch.testing.assert_close(clip[b, :, f], still[0, :, 0], rtol=1e-4, atol=1e-5)


def test_old_names_and_a_pickle_are_read_as_safetensors_are(tmp_path: Path) -> None:
    """The layout of google/ddpm-ema-celebahq-256: one folder, .bin, attention under old names."""
    pipeline = build_pipeline()
    pipeline.save_pretrained(tmp_path / "new")
    old = tmp_path / "old"
    old.mkdir()
    pipeline.unet.save_config(old)
    pipeline.scheduler.save_config(old)
    (old / "model_index.json").write_bytes((tmp_path / "new" / "model_index.json").read_bytes())
    names = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    state = pipeline.unet.state_dict()
    for new_name, old_name in names.items():
        state = {key.replace(new_name, old_name): value for key, value in state.items()}
    assert sum("proj_attn" in key for key in state) > 0
    torch.save(state, old / "diffusion_pytorch_model.bin")
    first, second = (load_pipeline(str(path))[1] for path in (tmp_path / "new", old))
    states = [denoiser.state_dict() for denoiser in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert UNET["attention_head_dim"] is None
