"""Lightning's plugin for the checkpoint files of files.checkpoints, which needs no Lightning."""

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import CheckpointIO

from ddpm_lightning.files.checkpoints import read, write


class VerifiedCheckpointIO(CheckpointIO):
    """Writes and reads Lightning's checkpoints as verified files."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read(Path(path), map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
