"""Measures the quality of samples during training, as evaluate.py measure=quality does later."""

from typing import Any

import lightning.pytorch as pl
from pydantic import PositiveInt

from ddpm_lightning.data.clips.base import ClipData
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.measures.distances import PIXELS
from ddpm_lightning.evaluation.measures.quality import Quality
from ddpm_lightning.evaluation.subject import Reference, Subject
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.training.callbacks.samples import interruptible, on_one_rank
from ddpm_lightning.training.datamodule import clips_of
from ddpm_lightning.training.module import DiffusionModule


class SampleQuality(pl.Callback):
    """Logs val/quality_spatial and val/quality_temporal of samples drawn with averaged weights.

    They are the polynomial MMD to the held-out clips, with the same noise each time. Rank 0 draws
    them; the others wait.

    Args:
        sampler: walks from noise to clips.
        extractor: of the features.
        every_n_validations: how often; None for never.
        num_samples: that are drawn.
        seed: of their noise.
    """

    def __init__(
        self,
        sampler: Sampler,
        extractor: Extractor = PIXELS,
        every_n_validations: PositiveInt | None = None,
        num_samples: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        self.sampler = sampler
        self.measure = Quality(extractor)
        self.every_n_validations = every_n_validations
        self.num_samples, self.seed = num_samples, seed
        self._num_validations = 0

    def state_dict(self) -> dict[str, Any]:
        return {"num_validations": self._num_validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._num_validations = state_dict["num_validations"]

    def check(self, data: ClipData) -> None:
        """Compute the features of loaded data; ValueError where samples cannot be compared."""
        if self.every_n_validations is not None:
            self.measure.of_clips(Reference(data), self.num_samples, "cpu")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After a resumed run has got back the clips that it validates on.
        self._reference = Reference(clips_of(trainer))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_validations is None or trainer.sanity_checking:
            return
        self._num_validations += 1
        if self._num_validations % self.every_n_validations:
            return
        assert isinstance(pl_module, DiffusionModule)
        with on_one_rank(trainer) as draws:
            if not draws:
                return
            subject = Subject(
                pl_module.inference_denoiser,
                self._reference,
                self.sampler,
                pl_module.device,
                self.num_samples,
                self.seed,
                callback=interruptible(trainer),
            )
            for kind, result in self.measure(subject).items():
                pl_module.log(f"val/quality_{kind}", result.value, rank_zero_only=True)
