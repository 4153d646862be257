"""What of a GIF is kept in the clip that is sampled: frames (keep=) and pixels (mask=).

    keep=0:4   keep=[0,1,2,3]   keep=0,-1   keep=-2:

Number i is the GIF's frame i at place i; -1 is its last one at the last place. A GIF that is longer
than the clip counts as cut to the clip's length. A mask is a picture, black where the clip is kept.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ddpm_lightning.data.clip import ClipFormat, resize
from ddpm_lightning.data.sources.folder import read_picture
from ddpm_lightning.run.config.errors import UserError, user_errors

WHITE = 128  # from here on


def kept_frames(keep: str | None, gif_length: int, num_frames: int, name: str) -> dict[int, int]:
    """Return the GIF's frame by the place in the clip where it stands, in order.

    Args:
        keep: as above; None is as many frames as there are.
        gif_length: frames of the GIF.   num_frames: of the clip.   name: of the GIF.
    Raises:
        UserError: for a word that is none of these, a place beyond the clip and a frame beyond the
            GIF.
    """
    gif_length = min(gif_length, num_frames)
    places = list(range(gif_length)) if keep is None else _places(str(keep))
    kept = {}
    for place in places:
        if not -num_frames <= place < num_frames:
            raise UserError(
                f"keep={keep}: the clip has {num_frames} frames, {-num_frames} to "
                f"{num_frames - 1}, and {place} is none of them; keep others, or add frames="
                f"{place + 1 if place >= 0 else -place}"
            )
        if not -gif_length <= place < gif_length:
            raise UserError(
                f"keep={keep}: {name} has {gif_length} frames at the run's frame rate, "
                f"{-gif_length} to {gif_length - 1}, and {place} is none of them; keep fewer"
            )
        kept[place % num_frames] = place % gif_length
    return dict(sorted(kept.items()))


def _places(keep: str) -> list[int]:
    text = keep.strip().removeprefix("[").removesuffix("]")
    places: list[int] = []
    try:
        for part in text.split(","):
            first, colon, stop = (piece.strip() for piece in part.partition(":"))
            if not colon:
                places.append(int(first))
                continue
            low, high = int(first or 0), int(stop or 0)
            if (stop == "0" or high <= low) and not (low < 0 and not stop):
                raise ValueError
            places += range(low, high)
    except ValueError:
        raise UserError(
            f"keep={keep} names no frames; keep=0:4 are the first four, keep=[0,-1] the first and "
            "the last, keep=-2: the last two"
        ) from None
    return places


def read_mask(path: Path, form: ClipFormat, sizes: Mapping[str, tuple[int, int]]) -> Tensor:
    """Return which pixels are kept, Bool (H, W) of a clip.

    Args:
        sizes: height and width that a mask may have, by what has them. One as large as the GIF is
            scaled and cut as the GIF is.
    Raises:
        UserError: for a file that is no picture, one of another size, one that keeps all or none.
    """
    with user_errors("mask"):
        data = torch.frombuffer(bytearray(read_picture(path)), dtype=torch.uint8)
    try:
        picture = decode_image(data, ImageReadMode.RGB)
        _, height, width = picture.shape
    except (RuntimeError, ValueError) as e:  # ValueError: it is a film
        raise UserError(f"mask={path} is no PNG or JPEG that can be read; save it as PNG") from e
    if (height, width) not in sizes.values():
        fitting = " or ".join(f"{w} x {h} ({name})" for name, (h, w) in sizes.items())
        raise UserError(f"mask={path} is {width} x {height} pixels, and must be {fitting}")
    small = resize(picture.permute(1, 2, 0).contiguous().numpy(), form)
    kept = torch.from_numpy(small).float().mean(-1) < WHITE
    if kept.all() or not kept.any():
        what = "black, so nothing is sampled" if kept.all() else "white, so nothing is kept"
        raise UserError(f"mask={path} is all {what}; paint white what is to be sampled")
    return kept
