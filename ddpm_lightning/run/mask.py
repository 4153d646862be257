"""mask=: a picture that says what of a clip is kept (black) and what is sampled (white)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ddpm_lightning.data.clip import ClipFormat, resize
from ddpm_lightning.data.sources.folder import read_picture
from ddpm_lightning.run.errors import UserError, user_errors

WHITE = 128  # from here on


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
