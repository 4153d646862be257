"""One progress bar for the whole run: loss, clips/s, data-wait share and the time that is left."""

import os
import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from ddpm_lightning.training.callbacks.throughput import is_logging_step

LABELS = {
    "train/loss": ("loss", "{:.4f}"),
    "val/error": ("val/error", "{:.4f}"),
    "train/clips_per_s": ("clips/s", "{:.0f}"),
    "train/data_wait": ("data wait", "{:.1%}"),
}


class RunProgress(ProgressBar):
    """Shows a tqdm bar; into a file or a pipe it writes a line every `seconds_between_lines`."""

    def __init__(self, seconds_between_lines: float = 10) -> None:
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled = True
        self._bar: tqdm[Any] | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        interactive = sys.stderr.isatty()
        self._bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            desc="training",
            unit="step",
            dynamic_ncols=interactive,
            smoothing=0.1,  # so that the first steps, which compile, are soon forgotten
            mininterval=0.2 if interactive else self.seconds_between_lines,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed} elapsed, {remaining} left]{postfix}",
            disable=not self._enabled or trainer.global_rank > 0 or bool(os.getenv("TQDM_DISABLE")),
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if self._bar is None:
            return
        if is_logging_step(trainer, trainer.global_step):
            metrics = trainer.progress_bar_metrics
            shown = {
                label: style.format(float(metrics[name]))
                for name, (label, style) in LABELS.items()
                if name in metrics
            }
            self._bar.set_postfix(shown, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def teardown(self, *args: Any, **more: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    on_exception = teardown  # else its last line would follow the cause

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        tqdm.write(sep.join(map(str, args)))
