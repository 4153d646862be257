"""What a noise schedule is: beta_t, t = 1..T, in float64. It knows nothing of any chain."""

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

MAX_STEPS = 20_000  # the tables of a chain take a second or so
LOWEST_LOG_SNR = -1400.0  # below it alpha is 0 in float64


class NoiseSchedule(ABC):
    """Variances beta_t of the noise added at each of num_steps diffusion steps."""

    def __init__(self, num_steps: int) -> None:
        if not 1 <= num_steps <= MAX_STEPS:
            raise ValueError(
                f"num_steps must be at least 1, at most {MAX_STEPS}, got {num_steps}; set "
                "noise.num_steps=1000, say"
            )
        self.num_steps = num_steps

    @abstractmethod
    def betas(self) -> Tensor:
        """(T,) float64 in [0, 1); betas()[t - 1] is beta_t."""

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha of the continuous process at real t in [0, T], float64: 0 at t = 0.

        Here linear between the steps of the standard chain, so that beta(t) is constant between
        them; steps without noise are passed over. Schedules with a closed form give that.
        """
        knots, values = self._knots
        after = torch.searchsorted(knots, t.contiguous()).clamp(1, len(knots) - 1)
        before = after - 1
        share = (t - knots[before]) / (knots[after] - knots[before])
        return values[before] + share * (values[after] - values[before])

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        betas = self.betas()
        check_betas(betas, self.num_steps)
        table = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas) / 2]).cumsum(0)
        last_of_its_level = torch.cat([table[1:] < table[:-1], torch.ones(1, dtype=torch.bool)])
        last_of_its_level[:-1] &= table[:-1] < 0  # also those before the first noise,
        last_of_its_level[0] = True  # all but data itself
        steps = last_of_its_level.nonzero().flatten()
        return steps.double(), table[steps]


def betas_from_cumulative(cumulative: Tensor, max_beta: float) -> Tensor:
    """Return beta_i = clip(1 - c_i / c_{i-1}, 0, max_beta) of a cumulative signal curve c_0 .. c_T,
    float64; 0 where nothing was left before.
    """
    before, after = cumulative[:-1], cumulative[1:]
    return (1 - torch.where(before == 0, 1.0, after / before)).clamp(0, max_beta)


def betas_from_log_snr(log_snr: Tensor, max_beta: float) -> Tensor:
    """Return beta_t, clipped at max_beta, of the standard chain with this log-SNR at t = 1..T.

    It must not rise; abar_0 = 1. Betas are exact to round-off also where abar is close to 1.
    """
    log_abar = torch.nn.functional.logsigmoid(log_snr.clamp(min=LOWEST_LOG_SNR))
    fall = log_abar.diff(prepend=torch.zeros(1)).clamp(max=0)
    return (-torch.expm1(fall)).clamp(max=max_beta)


def check_betas(betas: Tensor, num_steps: int) -> None:
    """Raise ValueError unless there is a beta in [0, 1) for every step."""
    if betas.shape != (num_steps,):
        raise ValueError(
            f"betas must be one for each of {num_steps} steps, got {tuple(betas.shape)}"
        )
    allowed = (betas >= 0) & (betas < 1)  # false for NaN too
    if not allowed.all():
        raise ValueError(
            f"betas must lie in [0, 1), got {float(betas[~allowed][0]):.4g}; see max_beta of noise="
        )


def check_max_beta(max_beta: float) -> None:
    """Raise ValueError unless it lies in (0, 1): a step with beta = 1 could not be reversed."""
    if not 0 < max_beta < 1:
        raise ValueError(f"max_beta must lie in (0, 1), got {max_beta}; 0.9999 is customary")


def check_offset(offset: float) -> None:
    """Raise ValueError for a cosine curve with a negative offset."""
    if not offset >= 0:
        raise ValueError(f"offset must be 0 or more, got {offset}; 0.008 is customary")


def check_ends(start: float, end: float, customary: str) -> None:
    """Raise ValueError unless betas between these ends rise from 0 or more."""
    if not 0 <= start <= end:
        raise ValueError(
            f"betas that rise need 0 <= start <= end, got start={start}, end={end}; "
            f"the customary ends are {customary}"
        )


def unit_interval(num_steps: int) -> Tensor:
    """Return x_i = i / T for i = 0..T, float64."""
    return torch.arange(num_steps + 1, dtype=torch.float64) / num_steps


def squared_cosine(x: Tensor, offset: float) -> Tensor:
    """Return cos^2(((x + s) / (1 + s)) pi / 2), divided by its value at 0.

    Nichol & Dhariwal 2021, eq. 17.
    """
    curve = torch.cos((x + offset) / (1 + offset) * torch.pi / 2).square()
    return curve / curve[0]
