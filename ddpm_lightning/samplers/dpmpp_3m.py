"""DPM-Solver++(3M): the exponential integrator of third order, for data prediction.

Over l = log(alpha / sigma), h = l_s - l_t, the flow is exactly

    x_s = sigma_s / sigma_t x_t + alpha_s int_0^h exp(u - h) D(l_t + u) du.

D is taken from the polynomial through its last three values, and integrated as it is. The formula
of the same name in wide use leaves a factor 2 out of the second difference and is of second order.
The first interval uses its own far end (one more network call), so that the start does not lower
the order.
"""

from math import expm1

from torch import Tensor

from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.ddim import flow_step
from ddpm_lightning.samplers.grids.base import Grid
from ddpm_lightning.samplers.grids.uniform_log_snr import UniformLogSNRGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding, Thresholding
from ddpm_lightning.samplers.walk import Past, Point, Walk


class DPMpp3MSampler(Sampler):
    """Walks with one evaluation a step, two in the first: 50 evaluations walk 49 intervals."""

    order = 3
    looks_back = 3
    stochastic = False

    def __init__(
        self,
        num_evaluations: int = 50,
        grid: Grid = UniformLogSNRGrid(),
        thresholding: Thresholding = StaticThresholding(),
    ) -> None:
        super().__init__(num_evaluations, grid, thresholding)

    @property
    def num_intervals(self) -> int:
        return max(1, self.num_evaluations - 1)

    @property
    def num_calls(self) -> int:
        return self.num_intervals + (self.num_intervals > 1)

    def step(self, walk: Walk, x: Tensor, here: Point, there: Point) -> Tensor:
        x_0 = walk.estimate(x, here)
        if not there.sigma:
            return x_0
        nodes = list(walk.past)
        if len(nodes) == 1:
            walk.estimate(flow_step(x, x_0, here, there), there)
            nodes.append(walk.past.popleft())
        return integrate(x, nodes, here, there)


def integrate(x: Tensor, nodes: list[Past], here: Point, there: Point) -> Tensor:
    """Return the integral above, with D the polynomial through the nodes, the first at `here`."""
    h = there.log_ratio - here.log_ratio
    # m_k = int_0^h exp(u - h) u^k du
    m_0 = -expm1(-h)
    m_1 = h - m_0
    m_2 = h**2 - 2 * m_1
    at = [node.point.log_ratio - here.log_ratio for node in nodes]
    if len(nodes) == 2:
        shares = [m_0 - m_1 / at[1], m_1 / at[1]]
    else:  # Lagrange's polynomials through 0, p, q
        p, q = at[1:]
        shares = [
            m_0 - m_1 * (p + q) / (p * q) + m_2 / (p * q),
            (m_2 - q * m_1) / (p * (p - q)),
            (m_2 - p * m_1) / (q * (q - p)),
        ]
    x_s = x * (there.sigma / here.sigma)
    for share, node in zip(shares, nodes, strict=True):
        x_s.add_(node.x_0, alpha=there.alpha * share)
    return x_s
