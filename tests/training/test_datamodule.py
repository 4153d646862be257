"""The data module under Lightning: what a run is trained on, and how it goes on after a stop."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from ddpm_lightning.data.clips.base import CHECKPOINT_KEY
from ddpm_lightning.data.clips.source import SourceClips
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.training.datamodule import ClipDataModule
from tests.commands import write_gifs

NUM_GIFS = 11
BATCH_SIZE = 2


class Witness(pl.LightningModule):
    """Learns nothing; remembers the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[Batch] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        self.seen.append(batch)
        return self.weight * batch.clip.float().mean()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_gifs(path / "gifs", NUM_GIFS)
    return path


def data(folder: Path, **changes: Any) -> SourceClips:
    arguments: dict[str, Any] = {
        "source": GifFolder,
        "path": str(folder / "gifs"),
        "size": 8,
        "num_frames": 4,
        "fps": 10,
        "channels": 1,
        "val_fraction": 0.0,
        "cache_path": str(folder / "cache"),
        "batch_size": BATCH_SIZE,
        "flip": True,
        "fps_jitter": 0.2,
    }
    return SourceClips(**arguments | changes)


def fit(folder: Path, max_steps: int, checkpoint: Path | None = None, **settings: Any) -> Witness:
    module = Witness()
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{
            "val_check_interval": 3,
            "check_val_every_n_epoch": None,
            "enable_checkpointing": False,
        }
        | settings,
    )
    clips = ClipDataModule(data(folder))
    trainer.fit(module, datamodule=clips, ckpt_path=checkpoint, weights_only=True)
    if checkpoint is None:
        trainer.save_checkpoint(folder / f"{max_steps}.ckpt")
    return module


def assert_same(found: list[Batch], wanted: list[Batch]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.clip, b.clip)


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[Batch]:
    """The batches of 17 steps, of which every one leaves a checkpoint."""
    every_step = ModelCheckpoint(
        folder / "steps",
        "{step}",
        every_n_train_steps=1,
        save_top_k=-1,
        auto_insert_metric_name=False,
    )
    seen = fit(folder, 17, callbacks=[every_step], enable_checkpointing=True).seen
    assert len(seen) == 17
    return seen


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(4, marks=pytest.mark.slow),
        pytest.param(5, marks=pytest.mark.slow),
        *(pytest.param(step, marks=pytest.mark.long) for step in (1, 3, 6, 10, 13)),
    ],
)
def test_a_resumed_run_gets_the_batches_it_has_not_had(
    step: int, folder: Path, whole: list[Batch]
) -> None:
    """11 clips in batches of 2: 5 batches an epoch, and checkpoints within, at and after one."""
    assert_same(fit(folder, 17, folder / "steps" / f"{step}.ckpt").seen, whole[step:])


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 5])
def test_so_does_one_that_had_come_to_its_end(step: int, folder: Path, whole: list[Batch]) -> None:
    assert_same(fit(folder, step).seen, whole[:step])
    assert_same(fit(folder, 17, folder / f"{step}.ckpt").seen, whole[step:])


def test_every_clip_is_trained_on_once_a_pass(folder: Path) -> None:
    index = torch.cat([batch.index for batch in fit(folder, 11).seen])
    assert sorted(index[:NUM_GIFS].tolist()) == list(range(NUM_GIFS))
    assert sorted(index[NUM_GIFS:].tolist()) == list(range(NUM_GIFS))


@pytest.mark.slow
def test_torch_randomness_does_not_choose_samples(folder: Path) -> None:
    torch.manual_seed(1)
    first = fit(folder, 4).seen
    torch.manual_seed(2)
    assert_same(fit(folder, 4).seen, first)


@pytest.mark.slow
def test_overfitting_repeats_one_batch(folder: Path) -> None:
    first, *others = fit(folder, 4, overfit_batches=1, val_check_interval=1).seen
    assert first.index.tolist() == [0, 1]
    for batch in others:
        assert_same([batch], [first])


def test_the_state_in_a_checkpoint_is_read_without_lightning_by_this_key() -> None:
    assert ClipDataModule.__qualname__ == CHECKPOINT_KEY
