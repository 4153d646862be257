"""Guidance on data whose guided score is known, and what it must not change."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddpm_lightning.conditions.fps import FrameRate
from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.conditions.label import Label
from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Denoiser, Estimate
from ddpm_lightning.guidance import Conditioned, CountedCalls, Guided
from ddpm_lightning.guidances.auto import AutoGuidance
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.guidances.classifier_free import ClassifierFree
from ddpm_lightning.guidances.none import NoGuidance
from ddpm_lightning.level import Level
from ddpm_lightning.objectives.clean import CleanObjective
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.statistics import Statistics
from tests.problems import Mixture, build, process_under

WEIGHTS, MEANS, STDS = [0.3, 0.7], [-0.6, 0.4], [0.1, 0.2]


class Classes:
    """A mixture's components are its labels: an exact conditional estimator, in float64."""

    def __init__(self) -> None:
        self.process = process_under(StandardProcess, "cosine")
        self.statistics = Statistics()
        self.conditions = Conditions({"label": Label(["left", "right"])})
        self.whole = Mixture(self.process, WEIGHTS, MEANS, STDS)
        self.parts = [
            Mixture(self.process, [1.0], [m], [s]) for m, s in zip(MEANS, STDS, strict=True)
        ]

    def estimate_at(self, x: Tensor, level: Level, **conditions: Tensor) -> Estimate:
        rows = []
        for number, vector in enumerate(conditions["vectors"]):
            own = self.parts[int(vector.argmax())] if vector.any() else self.whole
            at = Level(*(v[number] if v.dim() else v for v in level))
            rows.append(own.denoise_at(x[number : number + 1], at))
        return Estimate(torch.cat(rows), None)


def asked(*labels: str | None) -> list[Annotation]:
    return [{"label": label} if label else {} for label in labels]


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0, 4.5])
def test_the_guided_score_is_that_of_a_sharpened_posterior(weight: float) -> None:
    """score of p(x) p(label | x)^w, whose second factor is the class posterior of a mixture: by
    autograd of its closed form, to float64's round-off.
    """
    problem = Classes()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None].requires_grad_()
    level = problem.process.level(torch.tensor(450))
    alpha, sigma = level.alpha, level.sigma
    estimate = ClassifierFree(weight).guide(problem, asked(*9 * ["left"])).estimate_at(x, level)
    score = (alpha * estimate.x_0 - x) / sigma**2
    whole = problem.whole  # float64
    variance = (alpha * whole.stds).square() + sigma**2
    log_joint = whole.weights.log() - variance.log() / 2
    log_joint = log_joint - (x - alpha * whole.means).square() / (2 * variance)
    log_marginal = log_joint.logsumexp(1)
    log_density = log_marginal + weight * (log_joint[:, 0] - log_marginal)
    (expected,) = torch.autograd.grad(log_density.sum(), x)
    torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-9)


class Network(nn.Module):
    """Any function of clip, log-SNR and vectors; counts its calls and their clips."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, generator=torch.Generator().manual_seed(0)))
        self.calls: list[int] = []

    def forward(self, x: Tensor, log_snr: Tensor, vectors: Tensor) -> Tensor:
        self.calls.append(len(x))
        shift = (vectors @ self.weight + 0.01 * log_snr)[:, None, None, None, None]
        return (x + shift).tanh()


def denoiser(dropout: float = 0.1) -> Denoiser:
    members = {"label": Label(["a", "b"]), "fps": FrameRate()}
    process = process_under(StandardProcess, "cosine")
    return Denoiser(
        Network(10), process, CleanObjective(), conditions=members, condition_dropout=dropout
    )


def clips(seed: int = 0) -> Tensor:
    return torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


LEVEL = Level.at(torch.tensor(0.3))
ASKED: Sequence[Annotation] = [{"label": "a", "fps": 5.0}, {"label": "b"}]


def calls_of(guided: Any, model: Denoiser, level: Level = LEVEL) -> list[int]:
    model.network.calls.clear()  # type: ignore[operator, union-attr]
    guided.estimate_at(clips(), level)
    return list(model.network.calls)  # type: ignore[arg-type]


def test_both_halves_are_one_call_and_facts_are_equal_in_them() -> None:
    model = denoiser()
    guided = ClassifierFree(3.0).guide(model, ASKED)
    assert calls_of(guided, model) == [4]
    with torch.no_grad():
        strong, weak = (
            Conditioned(model, **model.conditions.encode(known)).estimate_at(clips(), LEVEL).x_0
            for known in (ASKED, [{"fps": 5.0}, {}])
        )
        expected = strong + 2 * (strong - weak)
        torch.testing.assert_close(guided.estimate_at(clips(), LEVEL).x_0, expected)


@torch.no_grad()
def test_weight_1_and_levels_outside_the_interval_are_no_guidance_to_the_bit() -> None:
    model = denoiser()
    plain = NoGuidance().guide(model, ASKED).estimate_at(clips(), LEVEL).x_0
    for options in ({"weight": 1.0}, {"weight": 3.0, "interval": [0.5, 4]}):
        for kind in (ClassifierFree, AutoGuidance):
            guided = kind(**options).guide(model, ASKED, denoiser())
            assert torch.equal(guided.estimate_at(clips(), LEVEL).x_0, plain)
            assert calls_of(guided, model) == [2]


@torch.no_grad()
def test_each_clip_is_guided_at_the_levels_inside_the_interval() -> None:
    model = denoiser()
    level = Level.at(torch.tensor([0.3, 3.0]))
    limited = ClassifierFree(3.0, interval=[-1, 1]).guide(model, ASKED).estimate_at(clips(), level)
    everywhere = ClassifierFree(3.0).guide(model, ASKED).estimate_at(clips(), level)
    plain = NoGuidance().guide(model, ASKED).estimate_at(clips(), level)
    assert torch.equal(limited.x_0[0], everywhere.x_0[0])
    assert torch.equal(limited.x_0[1], plain.x_0[1])


@torch.no_grad()
def test_rescaling_brings_the_deviation_back_and_projection_leaves_what_is_orthogonal() -> None:
    model = denoiser()
    x, strong = clips(), NoGuidance().guide(model, ASKED).estimate_at(clips(), LEVEL).x_0
    whole = ClassifierFree(4.0, rescale=1.0).guide(model, ASKED).estimate_at(x, LEVEL).x_0
    torch.testing.assert_close(whole.flatten(1).std(1), strong.flatten(1).std(1))
    projected = ClassifierFree(4.0, parallel=0.0).guide(model, ASKED).estimate_at(x, LEVEL).x_0
    inner = ((projected - strong) * strong).flatten(1).sum(1)
    assert inner.abs().max() < 1e-4 * strong.square().sum()
    assert (projected - strong).abs().max() > 1e-2


@torch.no_grad()
def test_autoguidance_asks_two_networks_and_needs_no_condition() -> None:
    process = process_under(StandardProcess, "cosine")
    strong, weak = (Mixture(process, WEIGHTS, MEANS, [s, s]) for s in (0.1, 0.3))
    x = torch.linspace(-1, 1, 5)[:, None]
    guided = Guided(strong, weak, weight=2.5).estimate_at(x, LEVEL).x_0
    good, bad = strong.denoise_at(x, LEVEL), weak.denoise_at(x, LEVEL)
    torch.testing.assert_close(guided, good + 1.5 * (good - bad))
    assert (strong.num_calls, weak.num_calls) == (2, 2)


@pytest.mark.parametrize("name", ["ancestral", "unipc"])
@pytest.mark.parametrize(
    "guidance", [ClassifierFree(2.0), AutoGuidance(weight=2.0)], ids=["cf", "auto"]
)
def test_samplers_take_guided_estimators_unchanged(name: str, guidance: Guidance) -> None:
    """Clips do not depend on their batch, and networks see each clip twice an evaluation."""
    model, other = CountedCalls(denoiser()), CountedCalls(denoiser())
    sampler = build("sampler", name, num_evaluations=5)

    def sample(numbers: Sequence[int]) -> Tensor:
        estimator = guidance.guide(model, [ASKED[i] for i in numbers], other)
        generators = [torch.Generator().manual_seed(i) for i in numbers]
        return sampler.sample(estimator, (len(numbers), 1, 3, 4, 4), generator=generators)

    both = sample([0, 1])
    assert model.num_clips + other.num_clips == 2 * 2 * sampler.num_calls
    torch.testing.assert_close(sample([1]), both[1:])


REFUSED = [
    ({"weight": -1.0}, r"guidance.weight must be 0 or more, got -1.0"),
    ({"weight": float("nan")}, r"guidance.weight must be 0 or more"),
    ({"interval": [4, -4]}, r"guidance.interval must be null or \[lowest, highest\]"),
    ({"interval": [4]}, r"guidance.interval"),
    ({"rescale": 1.5}, r"guidance.rescale must lie in \[0, 1\], got 1.5"),
    ({"parallel": -0.5}, r"guidance.parallel must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
@pytest.mark.parametrize("kind", [ClassifierFree, AutoGuidance])
def test_options_that_mean_nothing_are_refused(kind: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        kind(**options)
    assert "\n" not in str(error.value)


def test_guidance_needs_a_second_half_or_a_weaker_denoiser() -> None:
    process = process_under(StandardProcess, "cosine")
    bare = Denoiser(Network(1), process, CleanObjective())
    with pytest.raises(ValueError, match=r"was trained without any: use guidance=none"):
        ClassifierFree().guide(bare, [{}])
    with pytest.raises(ValueError, match=r"trained with model.denoiser.condition_dropout=0"):
        ClassifierFree().guide(denoiser(dropout=0.0), ASKED)
    with pytest.raises(ValueError, match=r"auto needs a weaker denoiser: give guidance.weak="):
        AutoGuidance().guide(bare, [{}])
