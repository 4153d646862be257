"""Tables and conditionals against numbers from the definitions in 60-digit arithmetic."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from tests.problems import build

NAMES: dict[str, type[AutoregressiveProcess]] = {
    "standard": StandardProcess,
    "median": MedianProcess,
}
CASES = [(p, n, T) for p in NAMES for n in ("linear", "cosine", "hybrid") for T in (8, 50)]

Case = tuple[AutoregressiveProcess, dict[str, Any]]


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    """A process, and the table that describes it."""
    name, schedule, num_steps = request.param
    tables = json.loads((shared / "reference" / "processes.json").read_text())
    table = next(
        t for t in tables if (t["process"], t["schedule"], t["T"]) == (name, schedule, num_steps)
    )
    return NAMES[name](build("noise", schedule, num_steps=num_steps)), table


def float64(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def probe(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients of x_t and x_0, and variance, from a conditional at the probes of each step."""
    mean = mean.reshape(-1, 2)
    return mean[:, 0], mean[:, 1], std.reshape(-1, 2)[:, 0].square()


def probes(num_steps: int) -> tuple[Tensor, Tensor]:
    """x_0 and x_t with (0, 1) and (1, 0) in turn."""
    x_t = float64([1.0, 0.0]).repeat(num_steps)
    return 1 - x_t, x_t


def test_marginals_equal_the_reference(case: Case) -> None:
    process, table = case
    alpha, sigma, _ = process.level(torch.arange(process.num_steps + 1))
    torch.testing.assert_close(alpha, float64(table["signal"]), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(sigma.square(), float64(table["variance"]), rtol=1e-12, atol=1e-15)


def test_covariances_equal_the_reference(case: Case) -> None:
    process, table = case
    s, t, expected = float64(table["covariance"]).T
    covariance = process.covariance(s.long(), t.long())
    torch.testing.assert_close(covariance, expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(covariance, process.covariance(t.long(), s.long()))


def test_conditionals_equal_the_reference(case: Case) -> None:
    process, table = case
    s, t, of_x_t, of_x_0, variance = float64(table["posterior"]).T
    steps = (s.long().repeat_interleave(2), t.long().repeat_interleave(2))
    actual = probe(*process.condition(*probes(len(s)), *steps))
    # Differences of numbers of order one, each exact to 1e-16: an absolute floor of a few of these.
    for value, expected in zip(actual, (of_x_t, of_x_0, variance), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)


def test_midpoint_conditionals_equal_the_reference(case: Case) -> None:
    process, table = case
    if not isinstance(process, MedianProcess):
        assert not table["midpoint"]
        return
    t, of_x_t, of_x_0, variance = float64(table["midpoint"]).T
    steps = t.long().repeat_interleave(2)
    actual = probe(*process.to_origin(steps).at(*probes(len(t))))
    for value, expected in zip(actual, (of_x_t, of_x_0, variance), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)
