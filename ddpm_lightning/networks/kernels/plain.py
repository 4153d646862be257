"""Operations as they are defined: what a compiler fuses, and what kernels are compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm_lightning.networks.rotary import rotated, rotation


def scaled_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.silu(torch.addcmul(shift, x, scale))


def stacked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.stack([query, key, value], dim=1)


def turned(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = tokens.unbind(3)
    angles = rotation(tokens.shape[1], tokens.shape[-1], tokens.device)
    cos, sin = (t.to(tokens.dtype)[:, None] for t in angles)
    return rotated(q, cos, sin), rotated(k, cos, sin), v


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights: Tensor = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)
    return weights @ v
