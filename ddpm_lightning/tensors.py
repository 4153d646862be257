"""The seam between coefficients, float64 on the CPU, and clips: cast here, once."""

import torch
from torch import Tensor


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """Return a float64 coefficient, () or (B,), shaped and typed to multiply x (B, ...).

    One of each frame, (B, F), multiplies x (B, C, F, H, W). A scalar stays on the CPU: torch hands
    it to the accelerator as a number, without waiting.
    """
    if not coefficient.dim():
        return coefficient.to(x.dtype)
    coefficient = coefficient.to(device=x.device, dtype=x.dtype, non_blocking=True)
    if coefficient.dim() == 2:
        return coefficient[:, None, :, None, None]
    return coefficient.reshape(-1, *[1] * (x.dim() - 1))


def combine(a: Tensor | float, x: Tensor, b: Tensor | float, y: Tensor) -> Tensor:
    """Return a x + b y, with coefficients as in `expand`, or numbers."""
    if isinstance(b, Tensor) and b.dim():
        assert isinstance(a, Tensor)
        return expand(a, x) * x + expand(b, x) * y
    factor = expand(a, x) if isinstance(a, Tensor) else torch.tensor(a, dtype=x.dtype)
    return torch.mul(x, factor).add_(y, alpha=float(b))


def moved(x: Tensor, *coefficients: Tensor) -> tuple[Tensor, ...]:
    """Return coefficients of one shape; where they are not (), on x's device, by one copy."""
    if x.device.type == "cpu" or not coefficients[0].dim():
        return coefficients
    together = torch.stack(coefficients).to(x.dtype).to(x.device, non_blocking=True)
    return together.unbind()
