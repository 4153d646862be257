"""Where a sampler's noise comes from: one generator, or one for each sample of a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddpm_lightning.samplers.walk import Draw

Generators = torch.Generator | Sequence[torch.Generator] | None


def noise_source(shape: tuple[int, ...], generator: Generators, device: torch.device | str) -> Draw:
    """Return a function that draws N(0, I) of the shape (B, ...), float32, on the device.

    Noise from generators on the CPU crosses over through pinned memory, without waiting.
    """
    device = torch.device(device)
    if isinstance(generator, Sequence) and len(generator) != shape[0]:
        raise ValueError(f"{shape[0]} samples need as many generators, got {len(generator)}")

    def draw() -> Tensor:
        one = generator[0] if isinstance(generator, Sequence) else generator
        home = one.device if one is not None else torch.device("cpu")
        pinned = home.type == "cpu" and device.type == "cuda"
        noise = torch.empty(shape, device=home, pin_memory=pinned)
        if isinstance(generator, Sequence):
            for row, own in zip(noise, generator, strict=True):
                row.normal_(generator=own)
        else:
            noise.normal_(generator=generator)
        return noise.to(device, non_blocking=True)

    return draw


def per_sample_generators(seed: int, numbers: Sequence[int]) -> list[torch.Generator]:
    """Return a generator for each sample, seeded by the seed and the sample's number alone."""
    return [
        torch.Generator().manual_seed(
            int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)
        )
        for number in numbers
    ]
