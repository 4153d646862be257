"""LightningModules: batch -> loss -> log, and the optimizer. Everything else is a callback.

DiffusionModule trains any denoiser; StandardDiffusion and MedianDiffusion make it from a schedule
and a network, for use from Python.
"""

from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite
from typing import Annotated, Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.evaluation.levels import LEVELS, LevelErrors, covered
from ddpm_lightning.evaluation.losses import LossByLogSNR
from ddpm_lightning.level import log_snr_floor
from ddpm_lightning.losses.base import Loss
from ddpm_lightning.losses.simple import SimpleLoss
from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.objectives.base import Objective
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.autoregressive import AutoregressiveProcess
from ddpm_lightning.processes.median import MedianProcess
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.noise import noise_source
from ddpm_lightning.times.base import TimeSampling
from ddpm_lightning.times.uniform_t import UniformTime
from ddpm_lightning.training.compilation import Choice, compile_in_place, mode_of, pays
from ddpm_lightning.training.lightning_inside import leave_unscaling, reaches_loggers
from ddpm_lightning.training.randomness import StepDraws

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
ADAMW = partial(AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
SIMPLE, STRATIFIED, VELOCITY = SimpleLoss(), UniformTime(stratified=True), VelocityObjective()


class Trained(NamedTuple):
    """The batch, log-SNR and losses of a training step: (B,), or (B, F) of frames, with NaN for
    the loss of one that does not count.
    """

    batch: Batch
    log_snr: Tensor
    loss: Tensor


class DiffusionModule(pl.LightningModule):
    """Trains a denoiser.

    Args:
        denoiser: network, process and objective.
        loss: how the errors of levels are weighted against each other.
        times: which times a batch is trained at.
        optimizer: makes the optimizer from the parameters.
        warmup_steps: over which the learning rate rises linearly from 0.
        cooldown: share of all steps, at the end, over which it falls linearly to 0; 0: it stays.
        val_draws: fixed (t, noise) pairs per validation clip, of val/loss.
        seed: of the times and the noise that are trained at.
        compile: whether torch.compile makes training steps faster, in place, so that checkpoints
            stay the same; auto, or None: on CUDA, where the run is long enough to pay for it;
            graphs: and on CUDA replays them as CUDA graphs.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        loss: Loss = SIMPLE,
        times: TimeSampling = STRATIFIED,
        optimizer: MakeOptimizer = ADAMW,
        warmup_steps: NonNegativeInt = 100,
        cooldown: Annotated[float, Field(ge=0, le=1)] = 0.4,
        val_draws: PositiveInt = 1,
        seed: int = 0,
        compile: Choice | None = "auto",
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        # Built and updated by the EMA callback.
        self.ema_denoiser: Denoiser | None = None
        self.has_average = False
        if times.by_frame and not loss.by_frame:
            raise ValueError(
                f"{type(loss).__name__} bounds the likelihood of clips at one level, and times="
                "frames gives every frame its own; choose loss=simple, or times=stratified"
            )
        self.loss, self.times = loss, times
        self.optimizer = optimizer(self.parameters())  # a loss may have some too
        self.warmup_steps, self.cooldown = warmup_steps, cooldown
        self.val_draws = val_draws
        self.seed = seed
        self.compiles: Choice = "auto" if compile is None else compile
        self._gradient_norm: Tensor | None = None

    def gradient_norm(self) -> Tensor:
        """Return the norm () of all gradients before clipping, computed once an optimizer step."""
        if self._gradient_norm is None:
            parameters = [p for g in self.trainer.optimizers[0].param_groups for p in g["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients)
        return self._gradient_norm

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        self._gradient_norm = None

    @property
    def inference_denoiser(self) -> Denoiser:
        """Return the denoiser with averaged weights, or the raw one until there are any."""
        return self.ema_denoiser if self.ema_denoiser and self.has_average else self.denoiser

    def on_train_start(self) -> None:
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        # A checkpoint's optimizer has its own rate and options; those of the configuration hold. A
        # resumed run that is longer follows its own course too.
        optimizer = scheduler.optimizer
        for i, (group, factor) in enumerate(
            zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True)
        ):
            rate = optimizer.defaults["lr"]
            group.update(optimizer.defaults, initial_lr=rate)
            scheduler.base_lrs[i] = rate
            group["lr"] = rate * factor(scheduler.last_epoch)
        num_steps = self.trainer.estimated_stepping_batches - self.trainer.global_step
        if pays(self.compiles, self.device, num_steps):
            compile_in_place(self.denoiser.network, self.device, mode=mode_of(self.compiles))

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        num_parts = self.trainer.world_size * self.trainer.accumulate_grad_batches
        self.prepare_draws(batch, self.trainer.global_step, num_parts)

    def prepare_draws(self, batch: Batch, step: int, num_parts: int = 1) -> None:
        """Key all that is random in the next training step.

        Args:
            step: of the optimizer.
            num_parts: batches like this one that the optimizer step sees, on all devices.
        """
        self._draws = StepDraws(self.seed, step, batch.number)
        self._num_parts = num_parts
        torch.manual_seed(self._draws.seed())

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x_0 = self.denoiser.statistics.standardise(batch.clip)
        batch_size = len(x_0) * self._num_parts  # of the optimizer step
        place = torch.tensor(batch.number) % batch_size
        process, floor = self.denoiser.process, log_snr_floor(x_0.shape)
        levels = self.times.levels(process, self._draws, place, batch_size, floor, x_0.shape[2])
        noise = noise_source(x_0.shape, self._draws.generators(x_0.device), x_0.device)()
        conditions = self.denoiser.conditions
        annotations = conditions.drop(batch.annotations, self._draws.wishes())
        encoded = conditions.encode(annotations)
        losses = self.loss(self.denoiser, x_0, levels.t, levels.level, noise, **encoded)
        self.trained = Trained(batch, levels.level.log_snr, levels.mark(losses.detach()))
        loss = levels.per_clip(losses).mean()
        shown = loss.detach()
        if self._num_parts > 1 and reaches_loggers(self):
            shown = self.trainer.strategy.reduce(shown.clone(), reduce_op="mean")
        self.log("train/loss", shown, prog_bar=True, batch_size=len(x_0))
        # An infinite one may have a finite gradient; with this all ranks get none.
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def on_validation_epoch_start(self) -> None:
        loader: Any = self.trainer.val_dataloaders
        num_batches = self.trainer.num_val_batches[0] * self.trainer.world_size
        most = num_batches * loader.order.batch_size  # with limit_val_batches, or to overfit
        self._val_errors = LevelErrors(int(min(len(loader.dataset), most)))
        self._val_losses = LossByLogSNR(self.loss, self.times)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        denoiser = self.inference_denoiser
        x_0 = denoiser.statistics.standardise(batch.clip)
        self._val_shape = x_0.shape
        conditions = denoiser.conditions.encode(batch.annotations)
        self._val_errors.update(denoiser, x_0, batch.index, **conditions)
        self._val_losses.update(denoiser, x_0, batch.index, self.val_draws, **conditions)

    def on_validation_epoch_end(self) -> None:
        errors, losses = self._val_errors, self._val_losses
        errors.finish(self.inference_denoiser)
        if self.trainer.world_size > 1:
            for measured in (errors, losses):
                sums = self.all_gather(measured.sums.to(self.device))  # (ranks, ...)
                assert isinstance(sums, Tensor)
                measured.sums = sums.sum(0).cpu()
        values = {
            "val/loss": losses.mean(),
            **{f"val_by_log_snr/{name}": mean for name, (_, mean) in losses.by_bin().items()},
        }
        if isfinite(error := errors.standard_error()):  # of more than one clip
            values["val/error_se"] = error
        trained_at = LEVELS[
            covered(self.denoiser.process, self.times, log_snr_floor(self._val_shape))
        ].tolist()
        for row in errors.by_level():
            if row.log_snr in trained_at:
                values[f"val_error_at/{row.log_snr:+06.2f}"] = row.weighted
        self.log("val/error", errors.mean(), prog_bar=True, rank_zero_only=True)
        self.log_dict(values, rank_zero_only=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self.optimizer
        leave_unscaling(optimizer)
        num_steps = int(self.trainer.estimated_stepping_batches)
        scheduler = LambdaLR(optimizer, partial(self.learning_rate_factor, num_steps=num_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            norm = self.gradient_norm()  # Lightning would compute it again
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def learning_rate_factor(self, step: int, num_steps: int) -> float:
        """Return the factor on the learning rate at step 0, 1, .. of num_steps: a trapezium."""
        rise = (step + 1) / max(self.warmup_steps, 1)
        fall = (num_steps - step) / max(self.cooldown * num_steps, 1)
        return max(0.0, min(1.0, rise, fall))


class ChainDiffusion(DiffusionModule):
    """Trains a network along a chain of a noise schedule.

    Args:
        schedule: of the chain.   network: see Denoiser.   objective: what it predicts.
        training: further arguments of DiffusionModule.
    """

    chain: type[AutoregressiveProcess]

    def __init__(
        self,
        schedule: NoiseSchedule,
        network: nn.Module,
        objective: Objective = VELOCITY,
        **training: Any,
    ) -> None:
        super().__init__(Denoiser(network, self.chain(schedule), objective), **training)


class StandardDiffusion(ChainDiffusion):
    """Trains a network along the standard (DDPM) chain; see ChainDiffusion."""

    chain = StandardProcess


class MedianDiffusion(ChainDiffusion):
    """Trains a network along the median chain; see ChainDiffusion."""

    chain = MedianProcess
