"""Ranks that would train different configurations stop before the first step."""

import hashlib
import json
from typing import Any

import lightning.pytorch as pl


class SameConfiguration(pl.Callback):
    """Compares this process's configuration with that of rank 0; RuntimeError if it is another."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        agreed = self.digest == trainer.strategy.broadcast(self.digest)
        if not trainer.strategy.reduce_boolean_decision(agreed, all=True):
            raise RuntimeError(
                f"rank {trainer.global_rank} of {trainer.world_size}: the ranks have different "
                "configurations; start all of them with the same command"
            )
