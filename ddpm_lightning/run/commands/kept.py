"""What of a GIF is kept in the clip that is sampled: frames (keep=) and pixels (mask=).

    keep=0:4   keep=[0,1,2,3]   keep=0,-1   keep=-2:

Number i is the GIF's frame i at place i; -1 is its last one at the last place. A GIF that is longer
than the clip counts as cut to the clip's length. A mask is a picture, black where the clip is kept.
"""

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
        UserError: for a word that is none of these, and a place that the two do not share.
    """
    length = min(gif_length, num_frames)
    kept = {}
    for place in range(length) if keep is None else _places(str(keep)):
        if not -length <= place < length:
            raise UserError(
                f"keep={keep}: the clip has {num_frames} frames, {name} at the run's frame rate "
                f"{gif_length}; {place} is none of {-length} to {length - 1}"
            )
        kept[place % num_frames] = place % length
    return dict(sorted(kept.items()))


def _places(keep: str) -> list[int]:
    places: list[int] = []
    try:
        for part in keep.strip().removeprefix("[").removesuffix("]").split(","):
            first, colon, stop = part.partition(":")
            added = range(int(first or 0), int(stop or 0)) if colon else [int(first)]
            if not added:
                raise ValueError
            places += added
    except ValueError:
        raise UserError(
            f"keep={keep} names no frames; keep=0:4 are the first four, keep=[0,-1] the first and "
            "the last, keep=-2: the last two"
        ) from None
    return places


def read_mask(path: Path, form: ClipFormat, gif_size: tuple[int, int]) -> Tensor:
    """Return which pixels are kept, Bool (H, W) of a clip.

    Args:
        gif_size: height and width. A mask as large as the GIF is scaled and cut as the GIF is.
    Raises:
        UserError: for a file that is no picture, and one of neither the GIF's nor the clip's size.
    """
    with user_errors("mask"):
        data = torch.frombuffer(bytearray(read_picture(path)), dtype=torch.uint8)
    try:
        picture = decode_image(data, ImageReadMode.RGB)
        _, height, width = picture.shape
    except (RuntimeError, ValueError) as e:  # ValueError: it is a film
        raise UserError(f"mask={path} is no PNG or JPEG that can be read; save it as PNG") from e
    if (height, width) not in (gif_size, (form.height, form.width)):
        raise UserError(
            f"mask={path} is {width} x {height} pixels, and must be {form.width} x {form.height} "
            f"(clips) or {gif_size[1]} x {gif_size[0]} (the GIF)"
        )
    small = resize(picture.permute(1, 2, 0).contiguous().numpy(), form)
    return torch.from_numpy(small).float().mean(-1) < WHITE
