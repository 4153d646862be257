"""The one broadcasting helper: per-sample coefficients against clips."""

from torch import Tensor


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient, () or (B,), as x (B, ...) has it: device, dtype, dimensions.

    This is the seam where tables in float64 meet clips in float32: cast here, once.
    """
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    return coefficient.reshape(-1, *[1] * (x.dim() - 1)) if coefficient.dim() else coefficient
