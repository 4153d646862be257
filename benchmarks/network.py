"""A training step of UNet3D beside that of video-diffusion-pytorch's Unet3D (lucidrains, 0.7.0)
and of diffusers' UNet3DConditionModel.

    python -m benchmarks.network            # make bench: everything, in Markdown
    python -m benchmarks.network --quick    # the small size, one round: whether it works

Forward, backward and optimizer; one thread, processor time of user and system together; both sides
take turns in one process, and medians are compared. Ours has the peer's architecture here, layer
for layer (widths, heads, attention per level, blocks), and its number of parameters within 2 %.
Diffusers' network is of another kind: its widths are chosen for the same number of parameters, it
sees one token of zeros where a text would be, and is measured once, where freed memory is kept.

Half of the peer's time goes into getting memory from the system page by page. Where the C library
is told to keep what is freed (retained), it does not: that is the peer's faster setting, and both
are measured with and without. Memory is the peak of a fresh process above what it held before its
first step.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.run.fitting.allocator import keep_freed

SHAPES = {"16x64x64, batch 1": (1, 3, 16, 64, 64), "8x32x32, batch 2": (2, 3, 8, 32, 32)}
PEER_WIDTH = 32
ROUNDS = 3
TWIN: dict[str, Any] = {
    "channels": 3,
    "base_width": PEER_WIDTH,
    "width_multipliers": [1, 2, 4, 8],
    "patch": 1,
    "num_blocks": [2, 2, 2, 2],
    "spatial_attention": ["linear"] * 4,  # and full in the middle
    "temporal_attention": [True] * 4,
    "head_width": 32,
    "num_heads": [8] * 4,
    "resampling": "strided",
    "wide_ends": True,
}

Step = Callable[[], None]


def ours() -> nn.Module:
    torch.manual_seed(0)
    return UNet3D(**TWIN)


def theirs() -> nn.Module:
    from video_diffusion_pytorch import Unet3D

    torch.manual_seed(0)
    network: nn.Module = Unet3D(dim=PEER_WIDTH)
    return network


def diffusers() -> nn.Module:
    from diffusers import UNet3DConditionModel

    class WithoutText(UNet3DConditionModel):
        def forward(self, x: Tensor, level: Tensor) -> Tensor:
            text = x.new_zeros(len(x), 1, self.config.cross_attention_dim)
            output: Tensor = super().forward(x, level, text).sample
            return output

    torch.manual_seed(0)
    return WithoutText(
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64, 96, 112),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )


SIDES = {"peer": theirs, "ours": ours}
ALL = {**SIDES, "diffusers": diffusers}


def training_step(side: str, shape: tuple[int, ...], bf16: bool) -> Step:
    network = ALL[side]()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    x, level = torch.randn(shape), torch.ones(shape[0])

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output: Tensor = network(x, level)
        (output.float() - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(
    shape: tuple[int, ...], bf16: bool, rounds: int, sides: Sequence[str]
) -> dict[str, float]:
    """Median processor time of a step by side."""
    steps = {side: training_step(side, shape, bf16) for side in sides}
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for side, step in steps.items():
            start = time.process_time()
            step()
            taken[side].append(time.process_time() - start)
    return {side: median(values) for side, values in taken.items()}


def peak(side: str, shape: tuple[int, ...], bf16: bool) -> float:
    """MiB that two steps need above what the process held before."""
    step = training_step(side, shape, bf16)
    idle = most_resident()
    step()
    step()
    return most_resident() - idle


def most_resident() -> float:
    """MiB so far. Not ru_maxrss, which begins at what the parent of the process had."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) / 1024


def in_fresh_process(*words: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.network", "--measure", *words]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    return json.loads(result.stdout.splitlines()[-1])


def measure(kind: str, shape: str, precision: str, *more: str) -> Any:
    torch.set_num_threads(1)
    bf16 = precision == "bf16"
    if kind == "peak":
        return peak(more[0], SHAPES[shape], bf16)
    if more[0] == "retained":
        keep_freed()
    return seconds(SHAPES[shape], bf16, int(more[1]), more[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    counts = {name: sum(p.numel() for p in make().parameters()) for name, make in ALL.items()}
    print("parameters:", ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    print("\n| clip | precision | memory | peer, s | ours, s | ratio |\n|---|---|---|---|---|---|")
    shapes = list(SHAPES)[-1:] if arguments.quick else list(SHAPES)
    for shape in shapes:
        for precision in ("fp32", "bf16"):
            for allocator in ("as it comes", "retained"):
                rounds = "1" if arguments.quick else str(ROUNDS)
                taken = in_fresh_process("time", shape, precision, allocator, rounds, *SIDES)
                ratio = taken["peer"] / taken["ours"]
                print(
                    f"| {shape} | {precision} | {allocator} | {taken['peer']:.2f} | "
                    f"{taken['ours']:.2f} | {ratio:.2f} |",
                    flush=True,
                )
    print("\n| clip | precision | diffusers, s | ours, s | ratio |\n|---|---|---|---|---|")
    for shape in shapes:
        for precision in ("fp32", "bf16"):
            words = ("time", shape, precision, "retained", "1", "diffusers", "ours")
            taken = in_fresh_process(*words)
            ratio = taken["diffusers"] / taken["ours"]
            print(
                f"| {shape} | {precision} | {taken['diffusers']:.2f} | {taken['ours']:.2f} | "
                f"{ratio:.2f} |",
                flush=True,
            )
    print("\n| clip | precision | peer, MiB | ours, MiB | ours / peer |\n|---|---|---|---|---|")
    for shape in shapes:
        for precision in ("fp32", "bf16"):
            a, b = (in_fresh_process("peak", shape, precision, side) for side in SIDES)
            print(f"| {shape} | {precision} | {a:.0f} | {b:.0f} | {b / a:.2f} |", flush=True)


if __name__ == "__main__":
    main()
