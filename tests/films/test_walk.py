"""Samplers walk from one noise, and as far as their order and calls bring them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from ddpm_lightning.films.walk import WalkFilm
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ancestral import AncestralSampler
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.dpmpp_2m import DPMpp2MSampler
from ddpm_lightning.samplers.heun import HeunSampler
from tests.problems import process_under

SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "ddim": DDIMSampler,
    "heun": HeunSampler,
    "ancestral": AncestralSampler,
    "dpmpp_2m_sde": partial(DPMpp2MSampler, eta=1.0),
}


def film(evaluations: int = 10, num_points: int = 1000) -> WalkFilm:
    chain = process_under(StandardProcess, "cosine")
    return WalkFilm(chain, SAMPLERS, evaluations, num_points=num_points)


def test_all_walks_begin_with_the_same_noise() -> None:
    walks = film().walks()
    starts = [walked.x[0] for walked in walks.values()]
    assert all(torch.equal(starts[0], start) for start in starts)
    assert float(starts[0].std()) == pytest.approx(1, abs=5 / 2000**0.5 / 2**0.5)
    assert len({tuple(walked.x[-1, 0].tolist()) for walked in walks.values()}) == len(walks)


@pytest.mark.slow
def test_many_steps_come_to_the_data_and_few_do_not() -> None:
    few, many = film(5).walks(), film(40)
    draws = many.ring.draw(1000, torch.Generator().manual_seed(3))
    floor = many.distance(draws, seed=0)
    for name, walked in many.walks().items():
        assert walked.distance < 2 * floor, name
        assert few[name].distance > walked.distance, name
