"""The lemma of docs/study.md, run: equal densities train one network, and one ODE is walked."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.run.commands.train import seed_everything
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.check import resolved
from ddpm_lightning.samplers.noise import noise_source, per_sample_generators
from ddpm_lightning.times.uniform_t import UniformTime
from ddpm_lightning.training.randomness import StepDraws
from tests.problems import build, composed

MEDIAN = ["model=median", "noise=cosine"]
# The standard chain with the median chain's log-SNR at every t.
STANDARD = ["model=standard", "noise=matched", "noise@noise.process.schedule=cosine"]
SMALL = ["experiment=study", "condition=none", "network.base_width=16", "network.head_width=8"]
SHAPE = (4, 1, 4, 8, 8)
NUM_STEPS = 12


def trained(words: list[str]) -> tuple[Denoiser, Tensor]:
    """Return a denoiser after a few steps, and their losses (NUM_STEPS,)."""
    seed_everything(0)
    denoiser = build_denoiser(resolved(composed(*SMALL, *words))["model"])
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    times, floor, losses = UniformTime(), log_snr_floor(SHAPE), []
    clips = 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    for step in range(NUM_STEPS):
        draws = StepDraws(0, step, range(4))
        t = times.draw(denoiser.process, draws.uniform(), torch.arange(4), 4, floor)
        noise = noise_source(SHAPE, draws.generators(torch.device("cpu")), "cpu")()
        loss = denoiser.loss(clips, denoiser.process.level(t), noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return denoiser.eval(), torch.stack(losses)


@pytest.mark.slow
def test_median_and_matched_standard_runs_train_the_same_network_and_walk_one_path() -> None:
    """Losses, weights and ODE samples to float32's round-off, which grows along the steps."""
    median, losses = trained(MEDIAN)
    standard, others = trained(STANDARD)
    assert float(losses[-1]) < 0.98 * float(losses[0])  # something was learned
    torch.testing.assert_close(losses, others, rtol=1e-4, atol=0)
    ours, theirs = (
        torch.cat([p.detach().flatten() for p in d.network.parameters()])
        for d in (median, standard)
    )
    apart = float((ours - theirs).norm() / ours.norm())
    sampler = build("sampler", "ddim", num_evaluations=10)
    samples, same = (
        sampler.sample(d, SHAPE, generator=per_sample_generators(0, range(4)))
        for d in (median, standard)
    )
    moved = float((samples - same).norm() / samples.norm())
    print(
        f"weights {apart:.1e}, samples {moved:.1e}, losses {(losses / others - 1).abs().max():.1e}"
    )
    assert apart < 1e-4
    assert moved < 1e-3
