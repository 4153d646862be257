"""Likelihood by the probability-flow ODE (Song et al. 2021, section 4.3).

With n^2 = alpha^2 + sigma^2, y = x / n and the angle phi = atan(sigma / alpha),

    dy / dphi = v = (cos(phi) y - D) / sin(phi),   d log p(y) / dphi = -div v

from the data, at sigma / alpha = 1e-3, to the prior at the process's end, where log-SNR is that of
its noisiest usable time. div v is estimated by Hutchinson's probe e' (dv/dy) e, one e per clip.
8-bit values are dequantised by uniform noise one bin wide. The process enters by its end alone: all
else is a function of log-SNR.
"""

from math import atan, cos, exp, log, sin

import torch
from torch import Tensor

from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.level import Level, log_snr_floor
from ddpm_lightning.likelihood.base import BIN_WIDTH, Likelihood, Nats, gaussian_nats
from ddpm_lightning.likelihood.probes import Probe, RademacherProbe
from ddpm_lightning.likelihood.solvers import RungeKutta45Solver, Solver
from ddpm_lightning.samplers.noise import Generators, noise_source
from ddpm_lightning.tensors import combine

MIN_RATIO = 1e-3  # sigma / alpha where the flow starts, far below a bin of 8-bit data


class FlowLikelihood(Likelihood):
    """Integrates the flow: exact for its model but for the solver's error and the probe's noise.

    Args:
        solver: of the ODE, adaptive or with a fixed number of network calls.
        probe: law of e.
    """

    def __init__(
        self,
        solver: Solver = RungeKutta45Solver(),
        probe: Probe = RademacherProbe(),
        discrete: bool = True,
    ) -> None:
        super().__init__(discrete)
        self.solver, self.probe = solver, probe

    def nats(self, denoiser: Estimator, x_0: Tensor, generator: Generators = None) -> Nats:
        draw = noise_source(tuple(x_0.shape), generator, x_0.device)
        probe = self.probe.shape(draw()).to(x_0.dtype)
        scale = denoiser.statistics.scale
        if self.discrete:
            uniform = torch.special.ndtr(draw()).to(x_0.dtype) - 0.5
            x_0 = x_0 + BIN_WIDTH * scale * uniform
        axis = denoiser.process.axis(log_snr_floor(x_0.shape))
        last = float(axis.log_snr(torch.tensor(axis.last, dtype=torch.float64)))
        start, end = atan(MIN_RATIO), atan(exp(-last / 2))

        def velocity(phi: float, y: Tensor) -> tuple[Tensor, Tensor]:
            level = Level.of(*torch.tensor([cos(phi), sin(phi)], dtype=torch.float64))
            alpha, sigma = float(level.alpha), float(level.sigma)
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                x_hat = denoiser.estimate_at(y, level).x_0
                (pulled,) = torch.autograd.grad((x_hat * probe).sum(), y)
            v = (alpha * y.detach() - x_hat.detach()) / sigma
            pulled = combine(alpha, probe, -1.0, pulled)  # so that little is left of e' e
            divergence = (pulled * probe).flatten(1).mean(1) / sigma
            return v, divergence

        y, volume = self.solver.solve(velocity, cos(start) * x_0, start, end)
        prior = gaussian_nats(y, 0.0, sin(end))
        terms = {"prior": prior, "volume": -volume - log(cos(start)) - log(scale)}
        if self.discrete:
            terms["bin"] = torch.full_like(volume, -log(BIN_WIDTH))
        return Nats(terms)
