"""Laplace over log-SNR (Hang et al. 2024, "Improved Noise Schedule for Diffusion Training")."""

import torch
from torch.distributions import Laplace as LaplaceDistribution

from ddpm_lightning.times.log_snr_law import LogSNRLaw


class Laplace(LogSNRLaw):
    """log-SNR has the density exp(-|log-SNR - mean| / scale) / (2 scale)."""

    def __init__(self, mean: float = 0.0, scale: float = 0.5, stratified: bool = True) -> None:
        super().__init__(stratified)
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}; 0.5 is customary")
        self.mean, self.scale = mean, scale

    @property
    def law(self) -> LaplaceDistribution:
        return LaplaceDistribution(*torch.tensor([self.mean, self.scale], dtype=torch.float64))
