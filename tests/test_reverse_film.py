"""The film of a walk: what of a state is shown."""

import pytest
import torch
from torch import Tensor

from ddpm_lightning.plots.films import ReverseFilm
from ddpm_lightning.processes.base import GaussianProcess
from ddpm_lightning.processes.continuous import VariancePreservingProcess
from ddpm_lightning.processes.flow import FlowProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.processes.sub_variance_preserving import SubVariancePreservingProcess
from ddpm_lightning.processes.variance_exploding import VarianceExplodingProcess
from ddpm_lightning.samplers.walk import State
from ddpm_lightning.statistics import Statistics
from tests.problems import ScheduledType, process_under

TIMES = (1000, 900, 500, 1, 0)


def shown(process: GaussianProcess, x: Tensor) -> list[Tensor]:
    """Return x_t as it was restored to bytes at each of the times, from states with this x."""
    seen: list[Tensor] = []

    def restore(pair: Tensor) -> Tensor:
        seen.append(pair[: len(x)])
        return Statistics().restore(pair)

    film = ReverseFilm(process, restore)
    for t in TIMES:
        film.record(State(t, x, x))
    return seen


@pytest.mark.parametrize(
    "process_type",
    [
        *(StandardProcess, MedianProcess),
        *(VariancePreservingProcess, SubVariancePreservingProcess, FlowProcess),
    ],
)
def test_states_of_variance_at_most_1_are_shown_as_they_are(process_type: ScheduledType) -> None:
    x = torch.randn(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for state in shown(process_under(process_type, "cosine"), x):
        assert torch.equal(state, x)


def test_states_of_exploding_variance_are_shown_at_variance_1() -> None:
    """x / sqrt(1 + 80^2) at the start; sigma = 0.002 at t = 1, and data at 0 as it is."""
    x = torch.full((1, 1, 2, 4, 4), 80.0)
    states = shown(process_under(VarianceExplodingProcess, "karras"), x)
    means = [float(state.mean()) for state in states]
    assert means[0] == pytest.approx(80 / (1 + 80**2) ** 0.5, rel=1e-5)
    assert means == sorted(means)
    assert means[-2] == pytest.approx(80 / (1 + 0.002**2) ** 0.5, rel=1e-6)
    assert means[-1] == 80
