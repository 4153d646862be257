"""The contract of guidance: an estimator from a denoiser and what is asked of each clip."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.denoiser import Estimator
from ddpm_lightning.guidance import ConditionalEstimator, check_options


class Guidance(ABC):
    """How samples are led to what is asked for; weak: which weaker weights it needs, if any."""

    weak: str | float | None = None

    @abstractmethod
    def guide(
        self,
        denoiser: ConditionalEstimator,
        annotations: Sequence[Annotation],
        weak: ConditionalEstimator | None = None,
    ) -> Estimator:
        """Return the estimator of a walk.

        Args:
            annotations: what is asked of each of its B clips.
            weak: the denoiser with the weaker weights.
        Raises:
            ValueError: in one line, where the denoiser has not learned what this needs.
        """


class Extrapolation(Guidance):
    """Guidance that leads from a weak estimate through a strong one, by Guided.

    Args:
        weight, interval, rescale, parallel: see Guided.
    """

    def __init__(
        self,
        weight: float,
        interval: Sequence[float] | None = None,
        rescale: float = 0.0,
        parallel: float = 1.0,
    ) -> None:
        check_options(weight, interval, rescale, parallel)
        self.options: dict[str, Any] = {
            "weight": weight,
            "interval": interval,
            "rescale": rescale,
            "parallel": parallel,
        }
