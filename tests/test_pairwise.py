"""Members of different groups work together: every pair of them in some combination.

Laws are tested where they hold: an objective sees a level alone, a loss log-SNR, times an axis, a
sampler levels and covariances. What is left is that any two members meet without an error; all but
schedules and samplers, between which a process stands.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import pytest
import torch

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.processes.base import GaussianProcess
from tests.losses.shared import Affine, outputs_of
from tests.problems import (
    PROCESSES,
    ThirdOrderProcess,
    build,
    denoise,
    loss_at,
    options,
    process_under,
)

GROUPS = ["process", "noise", "objective", "loss", "times", "sampler"]
MEMBERS: list[Sequence[object]] = [
    [*PROCESSES, ThirdOrderProcess],
    *(options(group) for group in GROUPS[1:]),
]


SIDES = [
    (i, j)
    for i, j in combinations(range(len(GROUPS)), 2)
    if (GROUPS[i], GROUPS[j]) != ("noise", "sampler")
]


def pairwise(
    groups: Sequence[Sequence[object]], sides: Sequence[tuple[int, int]]
) -> list[tuple[object, ...]]:
    """Return rows of one member of each group that hold every pair of members of these two groups.

    A row starts from a pair that none holds yet; the other groups add the member that meets most
    of those chosen for the first time.
    """
    left = {(i, a, j, b): None for i, j in sides for a in groups[i] for b in groups[j]}

    def pairs(row: dict[int, object]) -> list[tuple[int, object, int, object]]:
        return [(i, row[i], j, row[j]) for i, j in sides if i in row and j in row]

    rows = []
    while left:
        i, a, j, b = next(iter(left))
        row = {i: a, j: b}
        for k in set(range(len(groups))) - {i, j}:
            extended = [{**row, k: member} for member in groups[k]]
            row = max(extended, key=lambda row: sum(pair in left for pair in pairs(row)))
        for pair in pairs(row):
            left.pop(pair, None)
        rows.append(tuple(row[k] for k in range(len(groups))))
    return rows


ROWS = pairwise(MEMBERS, SIDES)
built = cache(build)


def name_of(member: object) -> str:
    return getattr(member, "__name__", str(member))


def test_rows_hold_every_pair_in_few_more_than_the_two_largest_groups_need() -> None:
    for i, j in SIDES:
        held = {(row[i], row[j]) for row in ROWS}
        assert held == {(a, b) for a in MEMBERS[i] for b in MEMBERS[j]}
    assert len(ROWS) <= 1.2 * max(len(MEMBERS[i]) * len(MEMBERS[j]) for i, j in SIDES)


@pytest.mark.parametrize(GROUPS, ROWS, ids=name_of)
def test_members_train_denoise_and_sample_together(
    process: type[GaussianProcess], noise: str, objective: str, loss: str, times: str, sampler: str
) -> None:
    """A training step, an estimate and a short walk: finite, and of the right shape; seed 0."""
    chain = process_under(process, noise, 50)
    network = Affine(outputs_of(loss), torch.float32)
    denoiser = Denoiser(network, chain, built("objective", objective))
    generator = torch.Generator().manual_seed(0)
    x_0, e = torch.randn(2, 4, 1, 2, 3, 3, generator=generator) / 2
    uniform = torch.rand(4, dtype=torch.float64, generator=generator)
    t = built("times", times).draw(chain, uniform, torch.arange(4), 4, log_snr_floor(x_0.shape))
    losses = loss_at(built("loss", loss), denoiser, x_0, t, e)
    losses.mean().backward()
    assert losses.shape == (4,)
    assert losses.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    estimate = denoise(denoiser, chain.diffuse(x_0, t, e), t)
    clips = built("sampler", sampler, num_evaluations=4).sample(
        denoiser, (2, *x_0.shape[1:]), generator=generator
    )
    assert estimate.shape == x_0.shape
    assert clips.shape == (2, *x_0.shape[1:])
    assert estimate.isfinite().all()
    assert clips.isfinite().all()
