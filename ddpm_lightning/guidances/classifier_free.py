"""Classifier-free guidance (Ho & Salimans 2022): one network, with and without what is wished."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm_lightning.conditions.joint import Conditions
from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Estimate, Estimator
from ddpm_lightning.guidance import ConditionalEstimator, Conditioned, Guided
from ddpm_lightning.guidances.base import Extrapolation
from ddpm_lightning.level import Level


class ClassifierFree(Extrapolation):
    """Leads away from what clips are like without any wish; both halves are one batch.

    Args:
        weight, options: see Extrapolation.
    """

    def __init__(self, weight: float = 3.0, **options: Any) -> None:
        super().__init__(weight, **options)

    def guide(
        self,
        denoiser: ConditionalEstimator,
        annotations: Sequence[Annotation],
        weak: ConditionalEstimator | None = None,
    ) -> Estimator:
        conditions = denoiser.conditions
        check_guidable(conditions)
        strong = conditions.encode(annotations)
        bare = conditions.encode(conditions.without_wishes(annotations))
        return Guided(
            Conditioned(denoiser, **strong),
            Conditioned(denoiser, **bare),
            **self.options,
            both=partial(_in_one_batch, denoiser, strong, bare),
        )


def check_guidable(conditions: Conditions) -> None:
    """Raise ValueError unless the network has learned what clips are like without any wish."""
    if not conditions.wishes:
        raise ValueError(
            "classifier-free guidance needs a run that was trained on wishes, such as "
            "condition=label; this one was trained without any: use guidance=none, or auto"
        )
    if not conditions.dropout:
        raise ValueError(
            f"classifier-free guidance needs clips without {' and '.join(conditions.wishes)} in "
            "training; this run was trained with model.denoiser.condition_dropout=0: use "
            "guidance=none, or auto"
        )


def _in_one_batch(
    denoiser: ConditionalEstimator,
    first: dict[str, Tensor],
    second: dict[str, Tensor],
    x: Tensor,
    level: Level,
) -> tuple[Estimate, Estimate]:
    """Return the estimates under two sets of conditions, by one call with twice the clips."""
    conditions = {name: torch.cat([first[name], second[name]]) for name in first}
    twice = Level(*(torch.cat([v, v]) if v.dim() else v for v in level))
    x_0, share = denoiser.estimate_at(torch.cat([x, x]), twice, **conditions)
    shares = (None, None) if share is None else share.chunk(2)
    one, other = (Estimate(*pair) for pair in zip(x_0.chunk(2), shares, strict=True))
    return one, other
