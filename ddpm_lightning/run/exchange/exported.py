"""The file of export.py: a denoiser in safetensors, which holds tensors and text and runs no code.

Its metadata has the model's configuration, the form of its clips, and the file's seal.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files.bounded import read_small
from ddpm_lightning.files.sealed import NUM_DIGITS, seal
from ddpm_lightning.run.config.build import build_denoiser
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.checkpoint import Run, check_stored, load_weights

SUFFIX = ".safetensors"
_MAX_BYTES = 2**34
_BLANK = b"0" * NUM_DIGITS


def sealed(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return a sealed safetensors file."""
    before, after = save(tensors, metadata | {"sha256": _BLANK.decode()}).split(_BLANK, 1)
    return before + seal(before, after) + after


def load_exported(path: Path) -> tuple[Run, Denoiser, int | None, str]:
    """Return what export wrote: the run's configuration, the denoiser, step and weights' name; no
    step of weights that came from diffusers.
    """
    try:
        data = read_small(path, _MAX_BYTES)
        tensors = load(data)
        metadata = _metadata(data)
        digits = metadata["sha256"].encode()
        before, after = data.split(digits, 1)
        if digits != seal(before, after):
            raise ValueError("its checksum is not that of its content")
        config = json.loads(metadata["config"])
        step = int(metadata["step"]) if metadata["step"] else None
        weights = metadata["weights"]
    except (OSError, SafetensorError, ValueError, KeyError, MemoryError, RecursionError) as e:
        raise UserError(f"{path} is not a file of export.py, or damaged: {e}") from e
    check_stored(config, path)
    run = Run(path.parent, path, config)
    denoiser = build_denoiser(config["model"])
    load_weights(denoiser, tensors, path)
    return run, denoiser.eval(), step, weights


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the metadata of a safetensors file: its header is JSON after eight bytes of length."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])
