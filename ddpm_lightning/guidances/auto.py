"""Autoguidance (Karras et al. 2024): a denoiser and a weaker one, which has learned less."""

from collections.abc import Sequence
from typing import Any

from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.guidance import ConditionalEstimator, Conditioned, Guided
from ddpm_lightning.guidances.base import Extrapolation


class AutoGuidance(Extrapolation):
    """Leads away from a weaker denoiser of the same run; needs no condition.

    Args:
        weak: weaker weights: an earlier checkpoint, other weights of the same one by their name
            (raw), or the length of a shorter average, to rebuild.
        weight, options: see Extrapolation.
    """

    def __init__(
        self,
        weak: str | float | None = None,
        weight: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(weight, **options)
        self.weak = weak

    def guide(
        self,
        denoiser: ConditionalEstimator,
        annotations: Sequence[Annotation],
        weak: ConditionalEstimator | None = None,
    ) -> Estimator:
        if weak is None:
            raise ValueError(
                "auto needs a weaker denoiser: give guidance.weak=CHECKPOINT, an earlier one of "
                "the run, or the length of a shorter average, such as guidance.weak=0.02"
            )
        return Guided(
            Conditioned(denoiser, **denoiser.conditions.encode(annotations)),
            Conditioned(weak, **weak.conditions.encode(annotations)),
            **self.options,
        )
