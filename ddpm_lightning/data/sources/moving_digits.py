"""Handwritten digits that bounce in a small square: real .gif files, made on first use.

The digits are scikit-learn's bundled 8x8 images, so nothing is downloaded. A position bounces in
[0, L] as the triangle wave L - |((p + k v) mod 2L) - L|, frame by frame k.
"""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
from pydantic import PositiveInt

from ddpm_lightning.data.gif import encode
from ddpm_lightning.data.sources.folder import FileFolder
from ddpm_lightning.files.atomic import write_folder
from ddpm_lightning.files.bounded import read_json

_VERSION = 1  # raise it when the pictures change
CANVAS, DIGIT, _GRID = 32, 20, 8  # pixels; the digit's grid is enlarged by 20 / 8
_NUM_FRAMES, FRAME_MS = 24, 100
SPEED = (0.5, 1.0)  # pixels a frame
_MANIFEST = "manifest.json"
_OWN_FILE = re.compile(r"\d{5,}_\d\.gif|" + re.escape(_MANIFEST))


class MovingDigits(FileFolder):
    """Makes num_clips clips of 24 frames at 100 ms, 32x32, white on black, one digit in each.

    They lie in path as NUMBER_DIGIT.gif, and the same seed gives the same bytes. The folder is
    written again when it was made with other arguments or is incomplete.
    Raises ValueError if path holds anything else.
    """

    suffixes = (".gif",)

    def __init__(
        self, path: str | os.PathLike[str], num_clips: PositiveInt = 1797, seed: int = 0
    ) -> None:
        self.path = Path(path)
        self._num_clips = num_clips
        self._seed = seed
        self._manifest = {"version": _VERSION, "num_clips": num_clips, "seed": seed}
        if not self._is_complete(self.path):
            self._refuse_foreign_files()
            write_folder(self.path, self._write, self._is_complete)
        super().__init__(path)

    def label(self, key: str) -> str:
        """Return the digit that the GIF shows."""
        return key.removesuffix(".gif").rpartition("_")[2]

    def fingerprint(self) -> str:
        """Return a hash of the arguments alone: they determine every byte."""
        return hashlib.sha256(json.dumps(self._manifest).encode()).hexdigest()

    def describe(self) -> str:
        return f"{self.path} (moving digits, seed {self._seed})"

    def _is_complete(self, folder: Path) -> bool:
        try:
            manifest = read_json(folder / _MANIFEST)
        except (OSError, ValueError):
            return False
        return manifest == self._manifest and len(list(folder.glob("*.gif"))) == self._num_clips

    def _refuse_foreign_files(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"data.path={self.path} is not a folder; give a new or empty one")
        foreign = [path.name for path in self.path.glob("*") if not _OWN_FILE.fullmatch(path.name)]
        if foreign:
            raise ValueError(
                f"data.path={self.path} holds other files ({foreign[0]}), which would be "
                "deleted; give a new or empty folder"
            )

    def _write(self, folder: Path) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        for number in range(self._num_clips):
            which = number % len(digits.images)
            frames = _bounce(digits.images[which], np.random.default_rng([self._seed, number]))
            name = f"{number:05d}_{digits.target[which]}.gif"
            (folder / name).write_bytes(encode(frames, [FRAME_MS] * _NUM_FRAMES))
        (folder / _MANIFEST).write_text(json.dumps(self._manifest))


def _bounce(digit: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return frames (24, 32, 32, 3) uint8 of a digit (8, 8), values 0 to 16, that bounces."""
    span = CANVAS - DIGIT
    angle = generator.uniform(0, 2 * np.pi)
    velocity = generator.uniform(*SPEED) * np.array([np.sin(angle), np.cos(angle)])
    path = generator.uniform(0, span, 2) + np.arange(_NUM_FRAMES)[:, None] * velocity
    rows, columns = (span - np.abs(path % (2 * span) - span)).T  # (24,) each
    frames: np.ndarray = np.repeat(draw_digit(digit, rows, columns)[..., None], 3, axis=-1)
    return frames


def draw_digit(digit: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return frames (F, 32, 32) uint8 of a digit (8, 8) whose corner lies at rows, columns (F,)."""
    image = _spread(rows) @ digit @ _spread(columns).mT
    grey: np.ndarray = np.rint(image * 255 / 16).astype(np.uint8)
    return grey


def _spread(offsets: np.ndarray) -> np.ndarray:
    """Return weights (F, 32, 8) that interpolate the digit's grid, enlarged, to the canvas."""
    scale = DIGIT / _GRID
    pixels = (np.arange(CANVAS) + 0.5 - offsets[:, None]) / scale - 0.5  # in units of the grid
    weights: np.ndarray = np.maximum(0, 1 - np.abs(pixels[..., None] - np.arange(_GRID)))
    return weights
