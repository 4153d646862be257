"""Tabulated schedule: betas as numbers, such as those that another library's checkpoint has."""

import torch
from torch import Tensor

from ddpm_lightning.noise.base import NoiseSchedule, check_betas


class TableSchedule(NoiseSchedule):
    """beta_t = betas[t - 1].

    Raises:
        ValueError: for betas outside [0, 1), and for none, or more than a chain may have.
    """

    def __init__(self, betas: list[float]) -> None:
        super().__init__(len(betas))
        self._table = torch.tensor(betas, dtype=torch.float64)
        check_betas(self._table, self.num_steps)

    def betas(self) -> Tensor:
        return self._table.clone()
