"""Draws sample grids from fixed noise during training, a film of the reverse process, and what
other samplers make of the same noise.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
from pydantic import Field, PositiveInt

from ddpm_lightning.conditions.columns import columns_of, in_columns
from ddpm_lightning.data.dataset import Annotation
from ddpm_lightning.guidances.auto import AutoGuidance
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.guidances.classifier_free import ClassifierFree
from ddpm_lightning.guidances.none import NoGuidance
from ddpm_lightning.plots.films import ReverseFilm, save_grid
from ddpm_lightning.samplers.base import Sampler
from ddpm_lightning.samplers.noise import per_sample_generators
from ddpm_lightning.samplers.walk import State
from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.datamodule import clips_of
from ddpm_lightning.training.lightning_inside import is_between_steps
from ddpm_lightning.training.loggers import log_picture
from ddpm_lightning.training.module import DiffusionModule
from ddpm_lightning.training.process_group import fence

log = logging.getLogger(__name__)

FileName = Annotated[str, Field(pattern=r"^[\w-]+$")]
GUIDANCE = ClassifierFree()


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal was received while samples were drawn: the checkpoint cannot wait for them."""


@contextmanager
def on_one_rank(trainer: pl.Trainer) -> Iterator[bool]:
    """Yield whether this rank is to draw, which a signal may cut short, and wait for the others."""
    try:
        yield trainer.is_global_zero
    except Interrupted:
        step = trainer.global_step
        log.warning("samples of step %d are not drawn: the run is asked to end", step)
    fence()


def interruptible(
    trainer: pl.Trainer, record: Callable[[State], None] | None = None
) -> Callable[[State], None]:
    """Return a sampler's callback that records, and raises Interrupted when the run is to end."""

    def step(state: State) -> None:
        checkpoints = trainer.checkpoint_callback
        if isinstance(checkpoints, Checkpoints) and checkpoints.is_asked_to_stop:
            raise Interrupted
        if record is not None:
            record(state)

    return step


class SampleGrid(pl.Callback):
    """Draws samples with the averaged weights, always from the same noise: grids can be compared.

    Each label is a column, where there are no more of them than samples; else samples are asked for
    what is known of held-out clips. Rank 0 draws them, so that they are the same on any number of
    devices; the others wait.

    Args:
        sampler: walks from noise to clips.
        directory: where step_*.gif, final.gif, reverse.gif and compare_*.gif are written.
        num_samples: clips of a grid.
        first_step: after which the first grid is drawn.
        every_n_steps: at whose multiples the others are.
        seed: of the noise.
        compare: further samplers by name, drawn at the end of the run.
        compare_every_n_steps: at whose multiples they are drawn as well; null for never.
        guidance: of all of them, where clips are trained on without what is wished for.
    """

    def __init__(
        self,
        sampler: Sampler,
        directory: str,
        num_samples: PositiveInt = 16,
        first_step: int = 50,
        every_n_steps: PositiveInt = 1000,
        seed: int = 0,
        compare: dict[FileName, Sampler] | None = None,
        compare_every_n_steps: PositiveInt | None = None,
        guidance: Guidance = GUIDANCE,
    ) -> None:
        self.sampler = sampler
        self.num_samples = num_samples
        self.first_step, self.every_n_steps = first_step, every_n_steps
        self.seed = seed
        self.directory = Path(directory)
        self.compare, self.compare_every_n_steps = compare or {}, compare_every_n_steps
        self.guidance = guidance

    def check(self) -> None:
        """Raise ValueError for guidance that a run has no weights for while it trains."""
        if isinstance(self.guidance, AutoGuidance):
            raise ValueError(
                "guidance=auto needs weaker weights of a run that has been trained; train with "
                "guidance=classifier_free or none, and give guidance=auto to sample.py"
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if not is_between_steps(trainer):
            return
        step, every = trainer.global_step, self.compare_every_n_steps
        is_due = step == self.first_step or step % self.every_n_steps == 0
        compares = every is not None and step % every == 0 and step != trainer.max_steps
        if is_due or compares:
            self._draw(trainer, f"step_{step:06d}" if is_due else None, compares=compares)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, "final", film=True, compares=True)

    def _draw(
        self, trainer: pl.Trainer, name: str | None, *, film: bool = False, compares: bool
    ) -> None:
        """Write and log a grid of a name, a film of its walk, and the grids of other samplers."""
        with on_one_rank(trainer) as draws:
            if draws and name is not None:
                denoiser = _module(trainer).denoiser
                states = ReverseFilm(denoiser.process, denoiser.statistics.restore)
                record = states.record if film else None
                self._grid(trainer, "samples", name, self.sampler, record)
                if film:
                    path = states.save(self.directory / "reverse.gif", clips_of(trainer).format.fps)
                    log_picture(trainer, "reverse_process", path)
            if draws and compares:
                for other, sampler in self.compare.items():
                    tag = f"compare/{other}_{sampler.num_calls}_calls"
                    self._grid(trainer, tag, f"compare_{other}", sampler)

    def _grid(
        self,
        trainer: pl.Trainer,
        tag: str,
        name: str,
        sampler: Sampler,
        record: Callable[[State], None] | None = None,
    ) -> None:
        module, form = _module(trainer), clips_of(trainer).format
        denoiser = module.inference_denoiser
        asked, columns = self._asked(trainer)
        can_guide = denoiser.conditions.wishes and denoiser.conditions.dropout
        guidance = self.guidance if can_guide else NoGuidance()
        was_training = denoiser.training
        denoiser.eval()
        try:
            x = sampler.sample(
                guidance.guide(denoiser, asked),
                (len(asked), *form.shape),
                generator=per_sample_generators(self.seed, range(len(asked))),
                device=module.device,
                callback=interruptible(trainer, record),
            )
            clips = denoiser.statistics.restore(x)
        finally:
            denoiser.train(was_training)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = save_grid(clips, self.directory / f"{name}.gif", form.fps, columns)
        log_picture(trainer, tag, path)

    def _asked(self, trainer: pl.Trainer) -> tuple[list[Annotation], int | None]:
        """Return what is asked of each clip of a grid, and how many columns it has."""
        columns = columns_of(_module(trainer).denoiser.conditions)
        if 0 < len(columns) <= self.num_samples:
            return in_columns(columns, self.num_samples), len(columns)
        held_out = clips_of(trainer).val_set
        numbers = [k * len(held_out) // self.num_samples for k in range(self.num_samples)]
        return [held_out.annotation(i) for i in numbers], None


def _module(trainer: pl.Trainer) -> DiffusionModule:
    module = trainer.lightning_module
    assert isinstance(module, DiffusionModule)
    return module
