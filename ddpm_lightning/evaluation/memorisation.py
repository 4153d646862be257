"""Memorisation: are samples nearer to the training set than held-out clips are?

With d(z) the distance from z's features to those of its nearest training clip,

    memorisation = P(d(sample) < d(held-out clip)) + P(they are equal) / 2,

over all pairs. Both are measured against the *whole* training set, so that either has as many
neighbours to be near to. Draws from the data's law give 1/2, copies of training clips 1. The
spatial features say so of content, the temporal ones of motion.

It does not see everything: poor samples, far from any clip, give less than 1/2 and may hide copies
among them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

_BATCH = 64  # rows whose distances to the training set are held at a time


class Memorisation(NamedTuple):
    """How much nearer N samples are to the training set than held-out clips."""

    value: float  # 0.5: not at all; 1: every sample
    standard_error: float
    nearest: Tensor  # (N,) the index of each sample's nearest training clip
    distances: Tensor  # (N,) to it


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor) -> Memorisation:
    """Return the probability above, from features (N, d), (T, d) and (H, d).

    The standard error is DeLong's (1988), over draws of samples and held-out clips with the
    training set as it is; it is 0 where all samples are nearer than all held-out clips.
    """
    distances, nearest = _nearest(samples, train)
    others, _ = _nearest(held_out, train)
    nearer = _share_above(distances, others)  # (N,)
    further = 1 - _share_above(others, distances)  # (H,)
    variance = nearer.var() / len(nearer) + further.var() / len(further)
    return Memorisation(float(nearer.mean()), float(variance.sqrt()), nearest, distances)


def _nearest(features: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (N,) to the nearest training clip, and its index (N,)."""
    nearest = torch.cat([torch.cdist(batch, train).argmin(1) for batch in features.split(_BATCH)])
    # Anew, by differences: |a|^2 - 2 ab + |b|^2, as cdist has it, leaves no exact 0 for a copy.
    return (features - train[nearest]).norm(dim=1), nearest


def _share_above(values: Tensor, others: Tensor) -> Tensor:
    """Return, for each value, the share of the others above it; ties count half."""
    ordered = others.sort().values
    above = len(ordered) - torch.searchsorted(ordered, values, right=True)
    not_below = len(ordered) - torch.searchsorted(ordered, values)
    return (above + not_below).double() / (2 * len(ordered))
