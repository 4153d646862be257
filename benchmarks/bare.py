"""A training script as one would write it by hand, with the default network and batch: what
benchmarks.startup measures ours beside.

python benchmarks/bare.py FOLDER csv|default
"""

import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ddpm_lightning.networks.unet3d import UNet3D


class Bare(pl.LightningModule):
    """Predicts the noise of a cosine schedule with continuous t."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet3D(
            channels=1,
            base_width=48,
            width_multipliers=[1, 2, 2],
            patch=2,
            num_blocks=[1, 1, 1],
            spatial_attention=["none", "full", "full"],
            temporal_attention=[True, True, True],
            head_width=24,
            num_heads=None,
        )

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        (x_0,) = batch
        angle = torch.rand(len(x_0)) * torch.pi / 2
        alpha, sigma = (f(angle).view(-1, 1, 1, 1, 1) for f in (torch.cos, torch.sin))
        noise = torch.randn_like(x_0)
        predicted = self.network(alpha * x_0 + sigma * noise, -2 * angle.tan().log())
        loss = (predicted - noise).square().mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    folder, name = sys.argv[1:]
    loggers: list[Logger] = [CSVLogger(folder)]
    if name == "default":
        loggers += [
            TensorBoardLogger(folder),
            WandbLogger(project="bare", save_dir=folder, offline=True),
        ]
    trainer = pl.Trainer(
        max_steps=4000,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        accelerator="cpu",
        default_root_dir=folder,
        logger=loggers,
    )
    clips = TensorDataset(torch.randn(1618, 1, 8, 16, 16))
    trainer.fit(Bare(), DataLoader(clips, batch_size=8, shuffle=True))


if __name__ == "__main__":
    main()
