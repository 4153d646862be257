"""UNet3D on a GPU: training steps of the presets, and sampling, beside video-diffusion-pytorch.

    python -m benchmarks.gpu FOLDER                        # under 8 minutes on an H200
    python -m benchmarks.gpu FOLDER --device cpu --quick   # in small: whether it works

Writes gpu.json and gpu.md. Needs torch and PyYAML; the peer's rows are missing where its package
is. A step is forward, backward and AdamW in bfloat16 autocast, eager, compiled and with CUDA
graphs, at a batch of 8 or 4, or as much of it as fits; what there is no time for says so. MFU is
three forward passes' FLOPs over the device's dense bfloat16 peak. Sampling draws 16 clips with 50
evaluations (DDIM); the peer's loop of 1,000 is timed by some of its calls.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.networks.flops import forward_flops, peak_flops
from ddpm_lightning.networks.unet3d import UNet3D
from ddpm_lightning.noise.cosine import CosineSchedule
from ddpm_lightning.objectives.velocity import VelocityObjective
from ddpm_lightning.processes.standard import StandardProcess
from ddpm_lightning.samplers.ddim import DDIMSampler
from ddpm_lightning.samplers.grids.uniform_t import UniformTimeGrid
from ddpm_lightning.samplers.thresholding import StaticThresholding

CONF = Path(__file__).parents[1] / "conf" / "network"
SECONDS = 460.0  # after which no further measurement is begun
COLUMNS = (
    "network", "clip", "mode", "parameters", "batch", "ms_per_step", "clips_per_s", "mfu",
    "peak_gib",
)  # fmt: skip
MODES = {64: ("eager", "compiled", "CUDA graphs"), 128: ("eager", "compiled")}

Row = dict[str, Any]
LATE: Row = {"error": "left out: out of time"}


def options(name: str) -> Row:
    """Return the options of a file of conf/network, and of those that it begins with."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    bases = [options(base) for base in own.pop("defaults", []) if base != "_self_"]
    return bases[0] | own if bases else own


def preset(name: str, channels: int = 3, **more: Any) -> UNet3D:
    given = options(f"unet3d_{name}") | {"channels": channels} | more
    del given["_target_"]
    return UNet3D(**given)


def peer() -> nn.Module:
    from video_diffusion_pytorch import Unet3D

    network: nn.Module = Unet3D(dim=64)
    return network


class Bench:
    """Measures on one device."""

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick
        self.start = time.perf_counter()
        self.rows: list[Row] = []
        self.sampling: list[Row] = []

    @property
    def is_late(self) -> bool:
        return time.perf_counter() - self.start > SECONDS

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, step: Callable[[], object]) -> float:
        """Of one call, the mean over a second or so of calls, after three to warm up."""
        for _ in range(1 if self.quick else 3):
            step()
        self.synchronize()
        count, start = 0, time.perf_counter()
        while count < 1 or (time.perf_counter() - start < 1.5 and not self.quick):
            for _ in range(1 if self.quick else 5):
                step()
                count += 1
            self.synchronize()
        return 1000 * (time.perf_counter() - start) / count

    def training(self, name: str, make: Callable[[], nn.Module], size: tuple[int, int]) -> None:
        frames, side = size
        batch = 1 if self.quick else {64: 8, 128: 4}[side]
        for mode in ("eager",) if self.quick else MODES[side]:
            row: Row = {"network": name, "clip": f"{frames}x{side}x{side}", "mode": mode}
            if self.is_late:
                self.rows.append(row | LATE)
                continue
            self._free()
            while batch:
                try:
                    self.rows.append(row | self._step(make(), (batch, 3, frames, side, side), mode))
                    break
                except torch.OutOfMemoryError:
                    self._free()
                    batch //= 2
                except Exception as e:  # a compiler's errors have many types; the table goes on
                    self.rows.append(row | {"error": f"{type(e).__name__}: {str(e)[:200]}"})
                    break
            print(self.rows[-1], flush=True)

    def _step(self, network: nn.Module, shape: tuple[int, ...], mode: str) -> Row:
        network = network.to(self.device)
        flops = 3 * self._flops(network, shape)
        if mode != "eager":
            network.compile(mode="reduce-overhead" if mode == "CUDA graphs" else None)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        x, level = torch.randn(shape, device=self.device), torch.ones(shape[0], device=self.device)

        def step() -> None:
            torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(self.device.type, torch.bfloat16):
                output: Tensor = network(x, level)
            (output.float() - x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        taken = self.milliseconds(step)
        peak = peak_flops(self.device)
        cuda = self.device.type == "cuda"
        return {
            "parameters": sum(p.numel() for p in network.parameters()),
            "batch": shape[0],
            "ms_per_step": round(taken, 2),
            "clips_per_s": round(1000 * shape[0] / taken, 2),
            "mfu": round(flops / taken * 1000 / peak, 4) if peak else None,
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None,
        }

    def _flops(self, network: nn.Module, shape: tuple[int, ...]) -> int:
        try:
            return forward_flops(network, shape)
        except RuntimeError:  # the peer cannot be run on tensors without values
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(
                    torch.zeros(shape, device=self.device), torch.ones(shape[0]).to(self.device)
                )
            return int(counter.get_total_flops())

    def sample_all(self, names: list[str]) -> None:
        for name in names:
            for compiled in (False,) if self.quick else (False, True):
                self.sample(name, compiled)
        if has_peer():
            self.sample_peer()

    def sample(self, name: str, compiled: bool) -> None:
        """Seconds for 16 clips with 50 evaluations, noise to clip."""
        clips, evaluations, side = (2, 2, 16) if self.quick else (16, 50, 64)
        row: Row = {"network": name, "clips": clips, "evaluations": evaluations}
        row |= {"compiled": compiled}
        if self.is_late:
            self.sampling.append(row | LATE)
            return
        self._free()
        network = preset(name).to(self.device).eval()
        if compiled:
            network.compile()
        process = StandardProcess(CosineSchedule(1000, 0.008, 0.9999))
        denoiser = Denoiser(network, process, VelocityObjective())
        sampler = DDIMSampler(evaluations, UniformTimeGrid(), StaticThresholding(1.0), eta=0.0)

        def draw() -> None:
            with torch.autocast(self.device.type, torch.bfloat16):
                sampler.sample(denoiser, (clips, 3, 16, side, side), device=self.device)

        taken = self.milliseconds(draw)
        self.sampling.append(row | {"seconds": round(taken / 1000, 3)})

    def sample_peer(self) -> None:
        """The peer draws with all 1,000 steps: so many times one of its network's calls."""
        clips, side = (2, 16) if self.quick else (16, 64)
        row: Row = {"network": "peer, dim 64", "clips": clips, "evaluations": 1000}
        row |= {"compiled": False}
        if self.is_late:
            self.sampling.append(row | LATE)
            return
        self._free()
        network = peer().to(self.device).eval()
        x = torch.randn(clips, 3, 16, side, side, device=self.device)
        t = torch.ones(clips, device=self.device)

        def call() -> None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                network(x, t)

        self.sampling.append(row | {"seconds": round(self.milliseconds(call), 3)})

    def _free(self) -> None:
        gc.collect()
        torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def table(rows: list[Row], columns: tuple[str, ...]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [str(row.get(column, row.get("error", ""))) for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def has_peer() -> bool:
    try:
        import video_diffusion_pytorch  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu --quick tries the script in small")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    bench = Bench(device, arguments.quick)
    sizes = [(4, 16)] if arguments.quick else [(16, 64), (16, 128)]
    names = ["tiny"] if arguments.quick else ["small", "base", "large"]
    for size in sizes:
        for name in names:
            bench.training(name, partial(preset, name), size)
        if has_peer():
            bench.training("peer, dim 64", peer, size)
        if size == sizes[0]:
            bench.sample_all(names)
    cuda = device.type == "cuda"
    about = {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - bench.start, 1),
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    result = {**about, "training": bench.rows, "sampling": bench.sampling}
    (arguments.folder / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")
    columns = ("network", "clips", "evaluations", "compiled", "seconds")
    text = f"{about}\n\n{table(bench.rows, COLUMNS)}\n\n{table(bench.sampling, columns)}\n"
    (arguments.folder / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
