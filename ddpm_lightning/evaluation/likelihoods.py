"""Likelihood of validation clips under a denoiser, in nats and bits per value."""

from collections.abc import Iterable
from math import isnan
from typing import Any

import torch

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.likelihood.base import Likelihood, Nats, mean_and_error
from ddpm_lightning.samplers.noise import per_sample_generators


def measure(
    likelihood: Likelihood,
    denoiser: Denoiser,
    batches: Iterable[Batch],
    num_clips: int,
    device: torch.device | str,
) -> Nats:
    """Terms of the first num_clips clips, uint8; noise depends on a clip's place in the data."""
    measured: list[Nats] = []
    left = num_clips
    for batch in batches:
        if left <= 0:
            break
        clip, index = batch.clip[:left].to(device), batch.index[:left].tolist()
        x_0 = denoiser.statistics.standardise(clip)
        measured.append(likelihood.nats(denoiser, x_0, per_sample_generators(0, index)))
        left -= len(index)
    names = measured[0].terms
    return Nats({n: torch.cat([part.terms[n].double().cpu() for part in measured]) for n in names})


def summary(nats: Nats) -> dict[str, Any]:
    """Mean and standard error in bits and nats per value, and each term's mean in nats."""
    bits, error = mean_and_error(nats.bits)
    return {
        "bits_per_value": bits,
        "bits_standard_error": None if isnan(error) else error,
        "nats_per_value": float(nats.total.mean()),
        "num_clips": len(nats.total),
        "terms_in_nats": {name: float(value.mean()) for name, value in nats.terms.items()},
    }
