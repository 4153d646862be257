"""UNet3D on a GPU: training steps, sampling and a whole run, beside video-diffusion-pytorch.

    python -m benchmarks.gpu FOLDER                        # at most 6 minutes on an H200
    python -m benchmarks.gpu FOLDER --device cpu --quick   # in small: whether it works

Writes gpu.json and gpu.md after each row, the most important rows first, so that who is stopped has
all rows but one; and a profile by kernel of eager steps. Needs torch and PyYAML; the peer's rows
are missing where its package is. A step is forward, backward and AdamW on 16x64x64 in bfloat16,
eager, compiled and with CUDA graphs; what there is no time for says so. MFU is three forward
passes' FLOPs over the device's dense bfloat16 peak. The run is train.py's until its first grid of
samples. Sampling draws 16 clips with 50 evaluations (DDIM); the peer's loop of 1,000 is timed by
some of its calls.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
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

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf" / "network"
SECONDS = 330.0  # after which no further row is begun
EAGER, COMPILED, GRAPHS = "eager", "compiled", "CUDA graphs"
PEER = "peer, dim 64"
# The most important first: those that compile take up to two minutes.
TRAINING = [
    *(("base", EAGER, 8), ("small", EAGER, 8), ("small", EAGER, 32), ("base", EAGER, 32)),
    *((PEER, EAGER, 8), ("base", GRAPHS, 8), ("base", COMPILED, 8), ("small", GRAPHS, 32)),
    *((PEER, COMPILED, 8), ("small", COMPILED, 32), ("base", GRAPHS, 32), ("small", GRAPHS, 8)),
]
RUN = "trainer=gpu network=unet3d_small data.size=32 data.num_frames=16 data.batch_size=32"
COLUMNS = (
    "kind", "network", "mode", "batch", "ms_per_step", "clips_per_s", "mfu", "kernels_per_step",
    "kernel_ms_per_step", "peak_gib", "seconds", "setup_s",
)  # fmt: skip

Row = dict[str, Any]


def options(name: str) -> Row:
    """Return the options of a file of conf/network, and of those that it begins with."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    bases = [options(base) for base in own.pop("defaults", []) if base != "_self_"]
    return bases[0] | own if bases else own


def preset(name: str, channels: int = 3, **more: Any) -> UNet3D:
    given = options(f"unet3d_{name}") | {"channels": channels} | more
    del given["_target_"]
    return UNet3D(**given)


def build(name: str) -> nn.Module:
    if name != PEER:
        return preset(name)
    from video_diffusion_pytorch import Unet3D

    network: nn.Module = Unet3D(dim=64)
    return network


class Bench:
    """Measures on one device, and writes each row at once."""

    def __init__(self, folder: Path, device: torch.device, quick: bool) -> None:
        self.folder, self.device, self.quick = folder, device, quick
        self.start = time.perf_counter()
        self.rows: list[Row] = []
        self.shape = (3, 4, 16, 16) if quick else (3, 16, 64, 64)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def attempt(self, row: Row, measure: Callable[[], Row]) -> None:
        """Add a row, with what is measured or why it is not."""
        start = time.perf_counter()
        if start - self.start > SECONDS:
            row |= {"error": "left out: out of time"}
        else:
            gc.collect()
            torch.compiler.reset()
            if self.on_cuda:
                torch.cuda.empty_cache()
            try:
                row |= measure()
            except Exception as e:  # a compiler's errors have many types; the table goes on
                row |= {"error": f"{type(e).__name__}: {str(e)[:200]}"}
            row["setup_s"] = round(time.perf_counter() - start, 1)
        self.rows.append(row)
        print(row, flush=True)
        self.write()

    def write(self) -> None:
        about = {
            "device": torch.cuda.get_device_name(self.device) if self.on_cuda else "cpu",
            "torch": torch.__version__,
            "clip": "x".join(map(str, self.shape[1:])),
            "seconds": round(time.perf_counter() - self.start, 1),
        }
        result = json.dumps({**about, "rows": self.rows}, indent=2)
        (self.folder / "gpu.json").write_text(result + "\n")
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        for row in self.rows:
            cells = [str(row.get(column, "")) for column in COLUMNS]
            lines.append("| " + " | ".join(cells) + " | " + row.get("error", ""))
        (self.folder / "gpu.md").write_text(f"{about}\n\n" + "\n".join(lines) + "\n")

    def synchronize(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, step: Callable[[], object]) -> float:
        """Return those of one call, the mean over a second or so of calls, after three."""
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

    def train(self, name: str, mode: str, batch: int) -> Row:
        """Measure training steps, and profile three of them where they are eager."""
        network = build(name).to(self.device)
        flops = 3 * self.flops(network, (batch, *self.shape))
        if mode != EAGER:
            network.compile(mode="reduce-overhead" if mode == GRAPHS else None)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        x = torch.randn(batch, *self.shape, device=self.device)
        level = torch.ones(batch, device=self.device)

        def step() -> None:
            torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(self.device.type, torch.bfloat16):
                output: Tensor = network(x, level)
            (output.float() - x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        taken, peak = self.milliseconds(step), peak_flops(self.device)
        row: Row = {"ms_per_step": round(taken, 2), "clips_per_s": round(1000 * batch / taken, 2)}
        if peak:
            row["mfu"] = round(flops / taken * 1000 / peak, 4)
        if self.on_cuda:
            memory = torch.cuda.max_memory_allocated(self.device)
            row["peak_gib"] = round(memory / 2**30, 2)
        return row | self.profile(step, f"profile_{name}_{mode}_{batch}.txt".replace(" ", "_"))

    def profile(self, step: Callable[[], object], file: str, steps: int = 3) -> Row:
        """Write the time of steps by kernel, and return how many there are and what they take."""
        activities = [ProfilerActivity.CUDA] if self.on_cuda else []
        with profile(activities=[ProfilerActivity.CPU, *activities]) as profiler:
            for _ in range(steps):
                step()
            self.synchronize()
        by = "self_device_time_total" if self.on_cuda else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=50, max_name_column_width=90)
        (self.folder / file).write_text(table)
        kernels = [e for e in profiler.events() if e.device_type.name == "CUDA"]
        if not kernels:
            return {}
        taken = sum(e.self_device_time_total for e in kernels) / 1000
        return {
            "kernels_per_step": len(kernels) // steps,
            "kernel_ms_per_step": round(taken / steps, 2),
        }

    def flops(self, network: nn.Module, shape: tuple[int, ...]) -> int:
        try:
            return forward_flops(network, shape)
        except RuntimeError:  # the peer cannot be run on tensors without values
            x = torch.zeros(shape, device=self.device)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(x, torch.ones(shape[0]).to(self.device))
            return int(counter.get_total_flops())

    def run(self) -> Row:
        """Measure a run of train.py, from the command to its first grid, at step 50."""
        directory = (self.folder / "run").absolute()
        words = [*RUN.split(), "logger=csv", "trainer.max_steps=2000", f"run_dir={directory}"]
        process = subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT)
        start, grid = time.perf_counter(), directory / "samples" / "step_000050.gif"
        try:
            while not grid.exists():
                if process.poll() is not None or time.perf_counter() - start > 120:
                    raise RuntimeError(f"no grid: exit code {process.returncode}")
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait()
        return {"seconds": round(time.perf_counter() - start, 1)}

    def sample(self, name: str) -> Row:
        """Measure the seconds for 16 clips with 50 evaluations, noise to clip; the peer's 1,000."""
        network = build(name).to(self.device).eval()
        clips, evaluations = (2, 2) if self.quick else (16, 50)
        x = torch.randn(clips, *self.shape, device=self.device)
        level = torch.ones(clips, device=self.device)
        process = StandardProcess(CosineSchedule(1000, 0.008, 0.9999))
        denoiser = Denoiser(network, process, VelocityObjective())
        sampler = DDIMSampler(evaluations, UniformTimeGrid(), StaticThresholding(1.0), eta=0.0)

        def draw() -> None:
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
                if name == PEER:
                    network(x, level)
                else:
                    sampler.sample(denoiser, (clips, *self.shape), device=self.device)

        taken = self.milliseconds(draw) / 1000
        return {"batch": clips, "seconds": round(taken * (1000 if name == PEER else 1), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu --quick tries the script in small")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    bench = Bench(arguments.folder, device, arguments.quick)
    training = [("tiny", EAGER, 1)] if arguments.quick else TRAINING
    for position, (name, mode, batch) in enumerate(training):
        row: Row = {"kind": "training", "network": name, "mode": mode, "batch": batch}
        bench.attempt(row, partial(bench.train, name, mode, batch))
        if position == 1:
            bench.attempt({"kind": "run to its first grid", "network": "small"}, bench.run)
        if position == min(4, len(training) - 1):
            for sampled in ("tiny",) if arguments.quick else ("base", "small", PEER):
                bench.attempt(
                    {"kind": "sampling", "network": sampled}, partial(bench.sample, sampled)
                )


if __name__ == "__main__":
    main()
