"""What options and inputs of a network may be, beyond the types of its options."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def per_level(name: str, value: Any, levels: int) -> list[Any]:
    """Return a value for every level, from one for all of them or a list; else ValueError."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * levels
    if len(value) != levels:
        raise ValueError(
            f"{name} needs one entry per level, {levels} (network.width_multipliers), or one for "
            f"all, got {value}"
        )
    return list(value)


def fitting_heads(width: int, head_width: int) -> int:
    """Return the number of heads of head_width channels that make up the width."""
    if width % head_width:
        raise ValueError(
            f"head_width must divide the width of each level, got {head_width} for a level of "
            f"{width} channels; change network.head_width or network.base_width, or give "
            "network.num_heads per level"
        )
    return width // head_width


def check_condition(name: str, condition: Tensor | None, wanted: tuple[int | str, ...]) -> None:
    """Raise ValueError unless a condition has the wanted shape.

    Any L >= 1 fits; where the last number is 0, the network takes no such condition.
    """
    shape = () if condition is None else tuple(condition.shape)
    fits = len(shape) == len(wanted) and 0 not in shape
    fits = fits and all(w in ("L", n) for w, n in zip(wanted, shape, strict=True))
    if not fits and (condition is not None or wanted[-1]):
        axes = ", ".join(map(str, wanted))
        raise ValueError(
            f"this network takes {name} of shape ({axes}) beside log-SNR, got {shape or None}; "
            f"network.{name.removesuffix('s')}_width is their width, 0 for none"
        )
