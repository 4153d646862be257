"""Likelihood of validation clips under a denoiser, in nats and bits per value."""

import heapq
from collections.abc import Iterable

import torch
from torch import Tensor

from ddpm_lightning.data.dataset import Annotation, Batch
from ddpm_lightning.data.draws import uniform
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.guidance import Conditioned
from ddpm_lightning.likelihood.base import Likelihood, Nats
from ddpm_lightning.samplers.noise import per_sample_generators


def measure(
    likelihood: Likelihood,
    denoiser: Denoiser,
    batches: Iterable[Batch],
    num_clips: int,
    device: torch.device | str,
) -> Nats:
    """Return the terms of num_clips distinct clips, uint8, drawn from all batches.

    Which are drawn, and their noise, depends on a clip's place in the data alone: those of a
    smaller num_clips are among those of a larger one.
    """
    kept: list[tuple[float, int, Tensor, Annotation]] = []
    batch_size = 1
    for batch in batches:
        batch_size = max(batch_size, len(batch.index))
        keys = uniform(0, batch.index.numpy(), 1)[:, 0].tolist()
        kept += zip(keys, batch.index.tolist(), batch.clip, batch.annotations, strict=True)
        distinct = {row[1]: row for row in kept}  # damage repeats some
        kept = heapq.nsmallest(num_clips, distinct.values(), key=lambda row: row[0])
    measured: list[Nats] = []
    for start in range(0, len(kept), batch_size):
        rows = kept[start : start + batch_size]
        _, indices, clips, annotations = zip(*rows, strict=True)
        x_0 = denoiser.statistics.standardise(torch.stack(clips).to(device))
        estimator = Conditioned(denoiser, **denoiser.conditions.encode(annotations))
        measured.append(likelihood.nats(estimator, x_0, per_sample_generators(0, indices)))
    names = measured[0].terms
    return Nats({n: torch.cat([part.terms[n].double().cpu() for part in measured]) for n in names})
