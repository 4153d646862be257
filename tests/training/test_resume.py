"""A run that stops anywhere goes on to the bit: losses, samples, weights, averages, optimizer."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from ddpm_lightning.averages import ConstantDecay, PowerDecay
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.files.checkpoints import by_step, link, read
from ddpm_lightning.plots.curves import read_metrics
from ddpm_lightning.training.callbacks.checkpoints import Checkpoints
from ddpm_lightning.training.callbacks.ema import EMA
from ddpm_lightning.training.checkpoint_plugin import VerifiedCheckpointIO
from ddpm_lightning.training.datamodule import ClipDataModule
from ddpm_lightning.training.lightning_inside import FitLoop
from ddpm_lightning.training.loggers import MetricsTable
from ddpm_lightning.training.signals import Stopped
from tests.commands import write_gifs
from tests.training.test_callbacks import module
from tests.training.test_datamodule import data

pytestmark = pytest.mark.slow  # as a whole, not one by one


def more(*values: Any) -> Any:
    """A case that is left to make test-long."""
    return pytest.param(*values, marks=pytest.mark.long)


NUM_STEPS = 13  # 8 clips in batches of 2 are 4 batches an epoch


class Recorder(pl.Callback):
    """What every step was: optimizer step, sample numbers, clips, loss; and validations."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[int], list[int], float]] = []
        self.validations: list[tuple[int, float]] = []
        self.ended_at = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        loss = float(outputs["loss"])
        self.steps.append((trainer.global_step, batch.number, batch.index.tolist(), loss))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations.append((trainer.global_step, float(trainer.callback_metrics["val/loss"])))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ended_at = trainer.global_step


class Interrupt(pl.Callback):
    """A signal that comes while a step is trained, or in the second batch of a validation."""

    def __init__(self, checkpoints: Checkpoints, in_step: int, in_validation: int) -> None:
        self.checkpoints = checkpoints
        self.in_step, self.in_validation = in_step, in_validation

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step + 1 == self.in_step:
            self.checkpoints._watch.received = 15

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Batch,
        batch_idx: int,
        *_: Any,
    ) -> None:
        if trainer.global_step == self.in_validation and batch_idx == 1:
            self.checkpoints._watch.received = 15


class Result(NamedTuple):
    recorder: Recorder
    checkpoint: dict[str, Any]


def fit(
    folder: Path,
    out: Path,
    resume: Path | None = None,
    stop_in_step: int = 0,
    stop_in_validation: int = 0,
    keep: int = 100,
    minutes: float | None = None,
    every_n_steps: int = 1,
    batch_size: int = 2,
    num_steps: int = NUM_STEPS,
    after: Sequence[pl.Callback] = (),
    **settings: Any,
) -> Result:
    model = module()
    model.seed = 3
    recorder = Recorder()
    checkpoints = Checkpoints(str(out), every_n_steps, minutes, keep, "val/loss")
    interrupt = Interrupt(checkpoints, stop_in_step, stop_in_validation)
    averages = {"ema": ConstantDecay(0.9), "power": PowerDecay(0.1)}
    ema = EMA(averages, directory="")
    callbacks: list[pl.Callback] = [ema, recorder, checkpoints, interrupt, *after]
    trainer = pl.Trainer(
        max_steps=num_steps,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        plugins=[VerifiedCheckpointIO()],
        **{"logger": False, **settings},
    )
    trainer.fit_loop = FitLoop.of(trainer)
    clips = ClipDataModule(data(folder, val_fraction=0.4, batch_size=batch_size))
    torch.manual_seed(torch.seed())  # nothing may depend on it
    trainer.fit(model, datamodule=clips, ckpt_path=resume, weights_only=True)
    return Result(recorder, read(out / "last.ckpt"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_gifs(path / "gifs", 13, num_frames=8)
    return path


@pytest.fixture(scope="module")
def whole(folder: Path) -> Result:
    """A run that nothing disturbed, with a checkpoint after every step."""
    return fit(folder, folder / "whole")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Where two checkpoints are not the same to the bit."""
    if isinstance(a, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict):
        keys = {*a, *b}
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{where}/{key}")]
    if isinstance(a, list | tuple):
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [where]


def kept(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Without Lightning's counters, which it mends when it goes on."""
    loader = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "callbacks")
    return {key: checkpoint[key] for key in keys} | {"loader": loader}


# Of 4 steps an epoch, with a validation after every third.
STEPS = [step if step in (1, 6) else more(step) for step in range(1, NUM_STEPS)]


@pytest.mark.parametrize("step", STEPS)
def test_a_run_resumed_after_any_step_is_the_same_to_the_bit(
    step: int, folder: Path, whole: Result, tmp_path: Path
) -> None:
    """Within, at and after an epoch's end, with and without a validation due there."""
    link(folder / "whole" / "best.ckpt", tmp_path / "best.ckpt")
    assert by_step(folder / "whole")[-step].name == f"step_{step:08d}.ckpt"
    found = fit(folder, tmp_path, by_step(folder / "whole")[-step])
    assert found.recorder.steps == whole.recorder.steps[step:]
    after = [entry for entry in whole.recorder.validations if entry[0] > step]
    assert found.recorder.validations == after
    assert differences(kept(found.checkpoint), kept(whole.checkpoint)) == []


@pytest.mark.parametrize(
    ("stop", "step"),
    [
        more({"stop_in_step": 4}, 4),
        more({"stop_in_step": 6}, 6),  # after which there is a validation
        ({"stop_in_validation": 6}, 6),
    ],
)
def test_a_run_stopped_by_a_signal_loses_no_step_and_no_validation(
    stop: dict[str, Any], step: int, folder: Path, whole: Result, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        fit(folder, tmp_path, every_n_steps=100, **stop)
    assert by_step(tmp_path)[0].name == f"step_{step:08d}.ckpt"
    assert read(tmp_path / "last.ckpt")["global_step"] == step
    found = fit(folder, tmp_path, tmp_path / "last.ckpt")
    assert found.recorder.steps == whole.recorder.steps[step:]
    assert found.recorder.validations == whole.recorder.validations[1:]
    assert differences(kept(found.checkpoint), kept(whole.checkpoint)) == []


@pytest.mark.parametrize(
    ("stop", "num_steps"),
    [
        more({}, 12),
        more({}, 13),
        more({"stop_in_step": 12}, 12),  # after which there is a validation
        ({"stop_in_validation": 12}, 12),
        more({"stop_in_step": 13}, 13),
    ],
)
def test_a_run_resumed_after_its_last_step_comes_to_its_end_again(
    stop: dict[str, Any], num_steps: int, folder: Path, whole: Result, tmp_path: Path
) -> None:
    """With the validation that it was stopped in, and no other; nothing is trained."""
    with pytest.raises(Stopped) if stop else nullcontext():
        fit(folder, tmp_path, num_steps=num_steps, **stop)
    before = read(tmp_path / "last.ckpt")
    assert before["global_step"] == num_steps
    found = fit(folder, tmp_path, tmp_path / "last.ckpt", num_steps=num_steps)
    assert found.recorder.steps == []
    owed = whole.recorder.validations[-1:] if stop and num_steps == 12 else []
    assert found.recorder.validations == owed
    assert found.recorder.ended_at == num_steps
    changed = differences(kept(found.checkpoint), kept(before))
    assert {path.removesuffix("_step") for path in changed} <= {"/callbacks/Checkpoints/best"}
    again = fit(folder, tmp_path, tmp_path / "last.ckpt")  # it may be made longer, too
    assert again.recorder.steps == whole.recorder.steps[num_steps:]
    assert differences(kept(again.checkpoint), kept(whole.checkpoint)) == []


@pytest.mark.long
@pytest.mark.parametrize("step", [2, 3])
def test_so_is_one_that_accumulates_gradients(step: int, folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"accumulate_grad_batches": 2}
    undisturbed = fit(folder, tmp_path / "whole", **settings)
    path = next(p for p in by_step(tmp_path / "whole") if p.name == f"step_{step:08d}.ckpt")
    found = fit(folder, tmp_path / "resumed", path, **settings)
    assert found.recorder.steps == undisturbed.recorder.steps[-len(found.recorder.steps) :]
    assert differences(kept(found.checkpoint), kept(undisturbed.checkpoint)) == []


@pytest.mark.long
def test_two_halves_of_a_batch_accumulated_are_the_whole_batch(
    folder: Path, tmp_path: Path
) -> None:
    """Over ends of epochs as well; losses agree to rounding."""
    whole = fit(folder, tmp_path / "whole", batch_size=4)
    halves = fit(folder, tmp_path / "halves", accumulate_grad_batches=2)
    assert len(halves.recorder.steps) == 2 * NUM_STEPS
    pairs = zip(halves.recorder.steps[::2], halves.recorder.steps[1::2], strict=True)
    for (first, second), (step, numbers, clips, loss) in zip(
        pairs, whole.recorder.steps, strict=True
    ):
        assert (second[0], first[1] + second[1], first[2] + second[2]) == (step, numbers, clips)
        # Lightning has halved them. Adam makes more of rounding at each step: 1e-5 at the twelfth.
        assert first[3] + second[3] == pytest.approx(loss, rel=1e-6 if step <= 5 else 1e-4)


def test_the_newest_few_the_last_and_the_best_are_kept(folder: Path, tmp_path: Path) -> None:
    found = fit(folder, tmp_path, keep=2, every_n_steps=5)
    assert [path.name for path in by_step(tmp_path)] == ["step_00000013.ckpt", "step_00000012.ckpt"]
    best_step, best = min(found.recorder.validations, key=lambda entry: entry[1])
    stored = read(tmp_path / "best.ckpt")
    assert stored["global_step"] == best_step
    assert stored["callbacks"]["Checkpoints"]["best"] == best


class Die(Checkpoint):
    """After the checkpoint of a step, and before Lightning logs what it was: those that are called
    Checkpoint come last."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step == 5:
            raise ZeroDivisionError


@pytest.mark.parametrize("dies", [False, True])
def test_a_step_that_is_in_the_checkpoint_is_in_the_table_once(
    dies: bool, folder: Path, tmp_path: Path
) -> None:
    def table(first_step: int = 0) -> dict[str, Any]:
        return {"logger": MetricsTable(tmp_path, first_step, 1), "log_every_n_steps": 1}

    with pytest.raises(ZeroDivisionError) if dies else nullcontext():
        fit(folder, tmp_path, num_steps=5, after=[Die()] if dies else [], **table())
    before = read_metrics(tmp_path / "metrics.csv")["train/loss"][0]
    assert before == list(range(4 if dies else 5))
    found = fit(folder, tmp_path, tmp_path / "last.ckpt", num_steps=8, **table(5))
    steps, losses = read_metrics(tmp_path / "metrics.csv")["train/loss"]
    assert steps == list(range(8))
    assert losses[5:] == pytest.approx([loss for *_, loss in found.recorder.steps])


@pytest.mark.long
def test_time_alone_saves_too(folder: Path, tmp_path: Path) -> None:
    fit(folder, tmp_path, every_n_steps=1000, minutes=1e-9)
    assert len(by_step(tmp_path)) == NUM_STEPS


def table(out: Path, first_step: int = 0) -> dict[str, Any]:
    """Settings of runs whose rows are compared: one batch is validated on, to be quick."""
    logger = MetricsTable(out, first_step, 1)
    every = {"log_every_n_steps": 1, "every_n_steps": 100, "limit_val_batches": 2}
    return {"logger": logger, "num_steps": 16, **every}


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The table of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("rows")
    fit(folder, out, **table(out))
    return read_metrics(out / "metrics.csv")


@pytest.mark.long
@pytest.mark.parametrize(
    "stop",
    [
        more({"stop_in_step": 5}),
        more({"stop_in_step": 6}),  # after which there is a validation
        more({"stop_in_validation": 6}),
        {"stop_in_step": 12},  # at an epoch's end, too
        more({"stop_in_validation": 12}),
    ],
)
def test_rows_of_a_run_that_was_stopped_are_those_of_one_that_was_not(
    stop: dict[str, Any], folder: Path, rows: Any, tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        fit(folder, tmp_path, **stop, **table(tmp_path))
    fit(folder, tmp_path, tmp_path / "last.ckpt", **table(tmp_path, next(iter(stop.values()))))
    assert read_metrics(tmp_path / "metrics.csv") == rows
    assert rows["val/loss"][0] == [2, 5, 8, 11, 14]
