"""What options and inputs of a network may be: refusals in one line, with the nearest that work."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches
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
    check_head_width(head_width)
    if width % head_width:
        even = (d for d in range(2, width + 1, 2) if not width % d)
        near = [str(d) for d in sorted(even, key=lambda d: abs(d - head_width))[:2]]
        low = max(width // head_width, 1) * head_width
        remedy = (
            f"set network.head_width to {' or '.join(near)}, or network.num_heads per level"
            if near
            else f"{low} or {low + head_width} channels would do; change network.base_width"
        )
        raise ValueError(
            f"head_width must divide the width of each level, got {head_width} for a level of "
            f"{width} channels; {remedy}"
        )
    return width // head_width


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in choices:
        near = get_close_matches(value, choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"set network.{name} to one of them"
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}; {hint}")


def check_counts(name: str, values: Sequence[int]) -> None:
    """Raise ValueError unless there is at least one of them at every level."""
    if min(values) < 1:
        nearest = ",".join(str(max(1, value)) for value in values)
        raise ValueError(
            f"{name} must be at least 1 at every level, got {values}; "
            f"set network.{name}=[{nearest}]"
        )


def check_head_width(head_width: int) -> None:
    """Raise ValueError unless channels of a head come in pairs."""
    if head_width < 2 or head_width % 2:
        raise ValueError(
            f"head_width must be even and at least 2, got {head_width}; "
            f"the nearest is {max(2, head_width + head_width % 2)}"
        )


def check_condition(name: str, condition: Tensor | None, wanted: tuple[int | str, ...]) -> None:
    """Raise ValueError unless a condition has the wanted shape.

    Any L >= 1 fits; where the last number is 0, the network takes no such condition.
    """
    shape = None if condition is None else tuple(condition.shape)
    if shape is None:
        fits = wanted[-1] == 0
    else:
        fits = len(shape) == len(wanted) and 0 not in shape
        fits = fits and all(w in ("L", n) for w, n in zip(wanted, shape, strict=True))
    if not fits:
        axes = ", ".join(map(str, wanted))
        takes = (
            f"takes {name} of shape ({axes}) beside log-SNR" if wanted[-1] else f"takes no {name}"
        )
        width = f"network.{name.removesuffix('s')}_width"
        remedy = f"set {width} to their width"
        if shape is None:  # as in every command
            remedy = f"set {width}=0, or give them as keywords of a call"
        raise ValueError(f"this network {takes}, got {shape}; {remedy}")


def check_condition_widths(
    vector_width: int, token_width: int, spatial_attention: Sequence[str]
) -> None:
    """Raise ValueError unless both are 0 or more and tokens have attention to enter by."""
    if min(vector_width, token_width) < 0:
        raise ValueError(
            "vector_width and token_width must be 0, for none, or more, "
            f"got {vector_width} and {token_width}"
        )
    if token_width and set(spatial_attention) == {"none"}:
        raise ValueError(
            f"token_width={token_width} needs spatial attention at some level, got "
            f"{spatial_attention}; set the last to full, or network.token_width=0"
        )


def check_image_share(image_share: float, temporal_mixing: str) -> None:
    """Raise ValueError unless the share lies in [0, 1) and frames can be treated as images."""
    if not 0 <= image_share < 1:
        raise ValueError(f"image_share must lie in [0, 1), got {image_share}; 0 is clips alone")
    if image_share and temporal_mixing == "full":
        raise ValueError(
            f"3x3x3 convolutions cannot leave frames alone, got image_share={image_share} "
            "with temporal_mixing=full; choose temporal_mixing=separable, or image_share=0"
        )
