"""Autoguidance (Karras et al. 2024): a denoiser and a weaker one, which has learned less."""

from collections.abc import Sequence

from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.guidance import ConditionalEstimator, Conditioned, Guided, check_options
from ddpm_lightning.guidances.base import Guidance


class AutoGuidance(Guidance):
    """Leads away from a weaker denoiser of the same run; needs no condition.

    Args:
        weak: weaker weights: an earlier checkpoint, other weights of the same one by their name
            (raw), or the length of a shorter average, to rebuild.
        weight, interval, rescale, parallel: see Guided.
    """

    def __init__(
        self,
        weak: str | float | None = None,
        weight: float = 2.0,
        interval: Sequence[float] | None = None,
        rescale: float = 0.0,
        parallel: float = 1.0,
    ) -> None:
        check_options(weight, interval, rescale, parallel)
        self.weak, self.weight, self.interval = weak, weight, interval
        self.rescale, self.parallel = rescale, parallel

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
            self.weight,
            self.interval,
            self.rescale,
            self.parallel,
        )
