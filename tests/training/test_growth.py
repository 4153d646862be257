"""A store that grows while a run trains on it, and how such a run goes on after a stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from ddpm_lightning.data.clips.urls import UrlClips
from ddpm_lightning.data.dataset import Batch
from ddpm_lightning.data.ingest import urls
from ddpm_lightning.data.ingest.background import LOG, Background
from ddpm_lightning.data.ingest.driver import run
from ddpm_lightning.training.datamodule import ClipDataModule
from tests.commands import write_gifs
from tests.data.ingest.ingester import LIMITS
from tests.data.ingest.server import GifServer
from tests.training.test_datamodule import Witness, assert_same

NUM_FIRST, NUM_GIFS = 8, 13


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GifServer]:
    monkeypatch.setattr(urls, "BLOCK_SIZE", 4)
    folder = write_gifs(tmp_path / "served", NUM_GIFS)
    with GifServer({path.name: path.read_bytes() for path in folder.iterdir()}) as server:
        yield server


def data(folder: Path, **changes: Any) -> UrlClips:
    arguments: dict[str, Any] = {
        "list": str(folder / "list.txt"),
        "limits": LIMITS,
        "min_clips": 1,
        "size": 8,
        "num_frames": 4,
        "fps": 10,
        "channels": 1,
        "val_fraction": 0.3,
        "cache_path": str(folder / "cache"),
        "batch_size": 2,
        "flip": True,
        "fps_jitter": 0.2,
    }
    return UrlClips(**arguments | changes)


def ingest(folder: Path, server: GifServer, num_urls: int) -> None:
    names = sorted(server.gifs)[:num_urls]
    (folder / "list.txt").write_text("".join(f"{server.url(name)}\n" for name in names))
    job = data(folder).urls.job(0, 1, LIMITS, 1)
    assert run(job, "none", wait=False, on_news=lambda news: None).complete


class Grower(Witness):
    """The rest of the list arrives during the second step."""

    def __init__(self, folder: Path, server: GifServer) -> None:
        super().__init__()
        self.folder, self.server = folder, server

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        if self.global_step == 1:
            ingest(self.folder, self.server, NUM_GIFS)
        return super().training_step(batch, batch_index)


def fit(module: Witness, clips: UrlClips, folder: Path, resume: Path | None = None) -> None:
    every_step = ModelCheckpoint(
        folder / "steps",
        "{step}",
        every_n_train_steps=1,
        save_top_k=-1,
        auto_insert_metric_name=False,
    )
    trainer = pl.Trainer(
        max_steps=14,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[] if resume else [every_step],
        enable_checkpointing=resume is None,
    )
    trainer.fit(module, datamodule=ClipDataModule(clips), ckpt_path=resume, weights_only=True)


def validated(clips: UrlClips) -> list[str]:
    assert clips.store is not None
    return [clips.store.entries[i].key for i in clips.val_set.indices]


@pytest.mark.slow
def test_a_run_that_grew_resumes_with_its_own_clips(tmp_path: Path, server: GifServer) -> None:
    """At once, and at the same step: also from before the growth, with all clips there by now."""
    ingest(tmp_path, server, NUM_FIRST)
    clips, module = data(tmp_path), Grower(tmp_path, server)
    clips.load()
    first = validated(clips)
    fit(module, clips, tmp_path)
    assert len(module.seen) == 14
    assert len(clips.train_set) + len(first) > NUM_FIRST
    assert validated(clips) == first  # a curve over the run is over the same clips
    for step in (1, 3, 6, 9):
        again, witness = data(tmp_path), Witness()
        fit(witness, again, tmp_path, tmp_path / "steps" / f"{step}.ckpt")
        assert_same(witness.seen, module.seen[step:])
        assert validated(again) == first


@pytest.mark.slow
def test_frozen_data_does_not_grow(tmp_path: Path, server: GifServer) -> None:
    ingest(tmp_path, server, NUM_FIRST)
    clips, module = data(tmp_path, frozen=True), Grower(tmp_path, server)
    fit(module, clips, tmp_path)
    assert clips.store is not None
    assert len(clips.store) == NUM_FIRST


@pytest.mark.slow
def test_an_ingest_that_dies_beside_a_run_is_told_with_its_cause(
    tmp_path: Path, server: GifServer, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(tmp_path, server, NUM_FIRST)
    given = data(tmp_path).urls
    (given.parts()[0] / "ledger.db").write_bytes(b"not a ledger any more" * 100)
    (given.directory / LOG).write_text("a line of the last time\n")
    beside = Background(given, LIMITS)
    assert len(beside.first_clips(NUM_FIRST + 1)) == NUM_FIRST
    for _ in range(2):
        beside.check()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "ended too early" in warnings[0]
    assert "ledger.db is damaged" in warnings[0]
