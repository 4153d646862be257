"""What each extractor sees of ten corruptions of real clips, as a Markdown table.

    python -m benchmarks.features FOLDER [--extractors pixels,random] [--size 64] [--frames 16]

The GIFs of the folder, at 10 frames a second, are dealt into training clips, held-out clips and
samples, n each. A cell is (MMD corrupted - MMD real) / deviation of real against real at n, in the
spatial and in the temporal features: below 3 it is not seen. Copies are of training clips; only
memorisation, in content and in motion, tells them from new clips.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from benchmarks.corruptions import CORRUPTIONS
from ddpm_lightning.data.decode import Recipe, decode
from ddpm_lightning.data.gif_blocks import GifError
from ddpm_lightning.data.sources.folder import GifFolder
from ddpm_lightning.evaluation.distances import Scale, floor, polynomial_mmd
from ddpm_lightning.evaluation.features.base import Extractor
from ddpm_lightning.evaluation.features.efficientnet import EfficientNet
from ddpm_lightning.evaluation.features.pixels import Pixels
from ddpm_lightning.evaluation.features.random import RandomFeatures
from ddpm_lightning.evaluation.features.transnet import TransNet
from ddpm_lightning.evaluation.memorisation import memorisation

FPS = 10
EXTRACTORS: dict[str, Callable[[], Extractor]] = {
    extractor.name: extractor for extractor in (Pixels, RandomFeatures, TransNet, EfficientNet)
}


def read_clips(folder: str, size: int, num_frames: int) -> Tensor:
    """Return the first frames of each GIF that lasts so long, (N, F, H, W, 3), in hash order."""
    source, recipe = GifFolder(folder), Recipe(size, size, FPS)
    keys = source.keys()
    clips: dict[str, np.ndarray] = {}
    for key in keys:
        try:
            decoded = decode(source.read(key), recipe)
        except GifError:
            continue
        if len(decoded.clip) >= num_frames:
            clips[decoded.sha256] = decoded.clip[:num_frames]
    return torch.from_numpy(np.stack([clips[sha256] for sha256 in sorted(clips)]))


def column(extractor: Extractor, clips: Tensor) -> dict[str, list[str]]:
    """Return the cells of one extractor: sigmas and memorisation, of every corruption."""
    n = len(clips) // 3
    start = time.perf_counter()
    real = extractor.pair(clips)
    cost = 1000 * (time.perf_counter() - start) / len(clips)
    cells = {"(ms a clip)": [f"{cost:.0f}", ""]}
    scales = [Scale.of(features[:n]) for features in real]
    standard = [scale(features) for scale, features in zip(scales, real, strict=True)]
    floors = [floor(polynomial_mmd, features, n, n) for features in standard]
    for name, corruption in {"(none)": None, **CORRUPTIONS}.items():
        samples = clips[:n] if name == "copies" else clips[2 * n : 3 * n]
        if corruption:
            samples = corruption(samples, Generator().manual_seed(0))
        sigmas, shares = [], []
        pair = extractor.pair(samples)
        for scale, features, known, limit in zip(scales, pair, standard, floors, strict=True):
            train, held_out, others = known[:n], known[n : 2 * n], known[2 * n : 3 * n]
            seen = polynomial_mmd(scale(features), held_out) - polynomial_mmd(others, held_out)
            sigmas.append(f"{seen / limit.std:.1f}")
            shares.append(f"{memorisation(scale(features), train, held_out).value:.0%}")
        cells[name.replace("_", " ")] = [" / ".join(sigmas), " / ".join(shares)]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--extractors", default=",".join(EXTRACTORS))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=16)
    options = parser.parse_args()
    names = options.extractors.split(",")
    clips = read_clips(options.folder, options.size, options.frames)
    print(f"n = {len(clips) // 3} clips of {tuple(clips.shape[1:])} at {FPS} frames a second\n")
    columns = [column(EXTRACTORS[name](), clips) for name in names]
    headers = [cell for name in names for cell in (f"{name} (sigmas)", "memorisation")]
    print("| corruption |", " | ".join(headers), "|")
    print("| --- |", " | ".join(["---:"] * len(headers)), "|")
    for row in columns[0]:
        print(f"| {row} |", " | ".join(cell for cells in columns for cell in cells[row]), "|")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
