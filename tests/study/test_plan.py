"""Which runs a study has, in which order, and that arms of one seed share all but their density."""

import numpy as np
import pytest
import torch

from ddpm_lightning.run.commands.train import seed_everything
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.check import resolved
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.study.plan import Cell, cells, check_plan, words
from ddpm_lightning.training.randomness import StepDraws
from tests.problems import build, composed
from tests.study.tables import options


def test_what_decides_the_hypotheses_is_trained_first() -> None:
    plan = cells(options())
    assert len(plan) == 5 * 6 * 2 + 3 + 3 * 3  # six densities, two losses; median; frozen clips
    assert len(set(plan)) == len(plan)
    assert {(c.arm, c.loss, c.clips) for c in plan[:10]} == {
        ("cosine", "simple", "stream"),
        ("hybrid", "simple", "stream"),
    }
    assert {c.arm for c in plan[10:13]} == {"median_hybrid"}
    assert [c.seed for c in plan[:4]] == [0, 0, 1, 1]  # pairs


def test_own_clips_are_one_set_and_arms_are_words() -> None:
    chosen = options("study.data=gifs", "study.arms=[cosine,laplace]", "study.losses=[simple]")
    plan = cells(chosen)
    assert {c.clips for c in plan} == {"own"}
    assert "times=laplace" in words(Cell("laplace", "simple", "own", 0), chosen, "here")
    assert "data.path=gifs" in words(Cell("laplace", "simple", "own", 0), chosen, "here")


def test_a_stream_has_a_clip_for_every_sample() -> None:
    """4 clips a step; those held out are chosen by chance, and four deviations may be more."""
    chosen = options("study.steps=250", "study.num_held_out=100")
    own = words(Cell("cosine", "simple", "stream", 0), chosen, "d")
    values = dict(word.split("=") for word in own if "=" in word)
    num, share = int(values["data.source.num_clips"]), float(values["data.val_fraction"])
    assert num * (1 - share) - 4 * (num * share) ** 0.5 > 0.95 * 1000
    assert num * share == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("study.arms=[cosine,quick]", "study.arms: quick is not there; choose from cosine"),
        ("study.arms=[]", r"study.arms=\[\] .* at least 1"),
        ("study.losses=[plain]", "study.losses: plain is not there"),
        ("study.extractors=[eyes]", "study.extractors: eyes is not there"),
        (
            "study.num_seeds=1 study.num_sampled=1",
            "study.num_seeds=1 .* greater than or equal to 2",
        ),
        ("study.num_sampled=9", "more than the study.num_seeds=5"),
        ("study.steps=3", "study.steps=3 .* greater than or equal to 5"),
    ],
)
def test_a_mistake_is_one_line(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_plan(options(*word.split()))


@pytest.mark.slow
def test_arms_of_one_seed_share_weights_order_noise_and_uniform_numbers() -> None:
    """So that differences are paired: an arm maps the same quantiles through its own density."""
    chosen = options()
    networks, numbers, quantiles = [], [], []
    for arm, loss in (("cosine", "simple"), ("hybrid", "by_density"), ("laplace", "simple")):
        config = resolved(composed(*words(Cell(arm, loss, "stream", 3), chosen, "here")))
        seed_everything(config["seed"])
        denoiser = build_denoiser(config["model"])
        networks.append(torch.cat([p.flatten() for p in denoiser.network.parameters()]))
        assert config["model"]["seed"] == config["data"]["seed"] == 3
        assert config["data"]["source"]["seed"] == 0  # clips are those of all seeds
        draws = StepDraws(config["model"]["seed"], 17, range(4))
        noise = torch.randn(5, generator=draws.generators(torch.device("cpu"))[2])
        numbers.append(torch.cat([draws.uniform().float(), noise]))
        times = build("times", "laplace" if arm == "laplace" else "stratified")
        floor = -19.0
        t = times.draw(denoiser.process, draws.uniform(), torch.arange(4), 4, floor)
        quantiles.append(denoiser.process.log_snr(t))
    assert all(torch.equal(networks[0], other) for other in networks[1:])
    assert all(torch.equal(numbers[0], other) for other in numbers[1:])
    assert all((np.diff(levels) < 0).all() for levels in quantiles)  # in the order of the quantiles
    assert not torch.equal(quantiles[0], quantiles[1])
