"""Raw GIF bytes to 16 frames of 64x64 uint8: processor time beside two ways with Pillow.

    python benchmarks/decode.py FOLDER

ours           the structure of the whole file checked, the first 16 frames decoded, composited on
               white and area-filtered
all frames     as video-diffusion-pytorch's Dataset does it (lucidrains, 0.7.0): Pillow seeks
               through the file; every frame is converted to RGB, resized (bilinear, shorter side
               64), cut to the centre, made a float tensor in [-1, 1]; then 16 are kept. Written
               here from what its code does, so that nothing but Pillow and torchvision is needed
first 16       the same, stopping after 16 frames, which are kept as bytes
first 16, box  the same with Pillow's fastest way to these pixels: box filter and cut in one call

FOLDER holds real GIFs; those of fewer than 16 frames are left out. The
synthetic ones are 250 to 500 pixels wide, 40 and 80 frames, moving and dithered to 256
colours. The four take turns on each file, one thread each, and the fastest of their rounds counts;
figures are ratios to ours: the median over files and, in brackets, that of the summed times.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from ddpm_lightning.data import gif
from ddpm_lightning.data.clip import ClipFormat, resize
from ddpm_lightning.data.decode import FETCHED_LIMITS
from ddpm_lightning.data.gif import GifError

NUM_FRAMES = 16
SIDE = 64
ROUNDS = 3
NUM_SYNTHETIC = 8
LONG = 48  # frames

FORMAT = ClipFormat(SIDE, SIDE, NUM_FRAMES, fps=10)
THEIR_FRAME = transforms.Compose(
    [
        transforms.Resize(SIDE),
        transforms.CenterCrop(SIDE),
        transforms.ToTensor(),
        transforms.Lambda(lambda frame: frame * 2 - 1),
    ]
)


def ours(data: bytes) -> np.ndarray:
    canvases = gif.canvases(gif.walk(data, FETCHED_LIMITS))
    return np.stack([resize(canvas, FORMAT) for canvas, _ in islice(canvases, NUM_FRAMES)])


def seek_all(data: bytes) -> Iterator[Image.Image]:
    image = Image.open(io.BytesIO(data))
    number = 0
    while True:
        try:
            image.seek(number)
        except EOFError:
            return
        yield image.convert("RGB")
        number += 1


def all_frames(data: bytes) -> torch.Tensor:
    clip = torch.stack([THEIR_FRAME(frame) for frame in seek_all(data)], dim=1)
    return clip[:, :NUM_FRAMES]


def first_frames(data: bytes) -> np.ndarray:
    resized = THEIR_FRAME.transforms[:2]
    return np.stack(
        [np.asarray(resized[1](resized[0](frame))) for frame in islice(seek_all(data), NUM_FRAMES)]
    )


def first_frames_boxed(data: bytes) -> np.ndarray:
    clip = []
    for frame in islice(seek_all(data), NUM_FRAMES):
        left, top = ((side - min(frame.size)) / 2 for side in frame.size)
        box = (left, top, left + min(frame.size), top + min(frame.size))
        clip.append(np.asarray(frame.resize((SIDE, SIDE), Image.Resampling.BOX, box=box)))
    return np.stack(clip)


WAYS: dict[str, Callable[[bytes], object]] = {
    "ours": ours,
    "all frames": all_frames,
    "first 16": first_frames,
    "first 16, box": first_frames_boxed,
}


def synthetic(seed: int, num_frames: int) -> bytes:
    """A smooth noisy picture seen through a window that goes round, dithered."""
    generator = np.random.default_rng(seed)
    width, height = int(generator.integers(250, 501)), int(generator.integers(180, 376))
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    angles = np.arange(num_frames) / 9
    lefts = np.rint(width / 2 * (1 + np.cos(angles))).astype(int)
    tops = np.rint(height / 2 * (1 + np.sin(angles))).astype(int)
    views = [
        Image.fromarray(noisy[top : top + height, left : left + width])
        for left, top in zip(lefts, tops, strict=True)
    ]
    palette = views[0].quantize(256)
    first, *others = [view.quantize(palette=palette) for view in views]  # Floyd-Steinberg
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=60, loop=0)
    return file.getvalue()


def real(folder: Path) -> list[tuple[int, bytes]]:
    """(frames, bytes) of the usable GIFs of at least 16 frames, by name."""
    found = []
    for path in sorted(folder.glob("*.gif")):
        data = path.read_bytes()
        try:
            num_frames = len(gif.walk(data, FETCHED_LIMITS).images)
        except GifError:
            continue
        if num_frames >= NUM_FRAMES:
            found.append((num_frames, data))
    return found


def seconds(data: bytes) -> list[float]:
    """Of each way, its fastest round; they take turns."""
    fastest = [float("inf")] * len(WAYS)
    for _ in range(ROUNDS):
        for number, way in enumerate(WAYS.values()):
            start = time.process_time()
            way(data)
            fastest[number] = min(fastest[number], time.process_time() - start)
    return fastest


def report(name: str, gifs: list[bytes]) -> None:
    if not gifs:
        return
    times = np.array([seconds(data) for data in gifs])  # (files, ways)
    ratios = times / times[:, :1]
    sums = times.sum(axis=0) / times[:, 0].sum()
    columns = [
        f"{median:7.2f} ({total:.2f})"
        for median, total in zip(np.median(ratios, axis=0)[1:], sums[1:], strict=True)
    ]
    ms = 1000 * np.median(times[:, 0])
    print(f"{name:34}{len(gifs):6}{ms:9.2f}" + "".join(f"{column:>18}" for column in columns))


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) != 2:
        sys.exit("python benchmarks/decode.py FOLDER: a folder of real GIFs must be given")
    files = real(Path(sys.argv[1]))
    print(f"{'':34}{'files':>6}{'ours, ms':>9}" + "".join(f"{name:>18}" for name in list(WAYS)[1:]))
    report("real", [data for _, data in files])
    report(f"real, {LONG} frames and more", [data for count, data in files if count >= LONG])
    for num_frames in (40, 80):
        report(
            f"synthetic, {num_frames} frames",
            [synthetic(seed, num_frames) for seed in range(NUM_SYNTHETIC)],
        )


if __name__ == "__main__":
    main()
