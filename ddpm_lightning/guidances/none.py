"""No guidance."""

from collections.abc import Sequence

from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.guidance import ConditionalEstimator, Conditioned
from ddpm_lightning.guidances.base import Guidance


class NoGuidance(Guidance):
    """Samples what was asked for as it was learned."""

    def guide(
        self,
        denoiser: ConditionalEstimator,
        annotations: Sequence[Annotation],
        weak: ConditionalEstimator | None = None,
    ) -> Estimator:
        return Conditioned(denoiser, **denoiser.conditions.encode(annotations))
