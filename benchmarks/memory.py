"""The memory plan beside the peak of a process that trains.

    python -m benchmarks.memory    # one thread, some minutes

Each row is a fresh process that measures its plan, then takes two steps of AdamW with one average.
The peak is that of its resident memory above what it had before the network was built. It holds
what the plan does not count: code and buffers of libraries, and what the C library keeps.
"""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.gpu import preset
from ddpm_lightning.networks.memory import measure
from ddpm_lightning.run.fitting.allocator import keep_freed

# preset, frames, size, batch size, precision, recomputation
SETTINGS = (
    ("tiny", 8, 16, 8, "float32", False),
    ("tiny", 16, 64, 4, "float32", False),
    ("tiny", 16, 64, 4, "bfloat16", False),
    ("tiny", 16, 64, 4, "float32", True),
    ("small", 16, 64, 2, "float32", False),
    ("base", 16, 64, 1, "float32", False),
)


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far."""
    (size,) = re.findall(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    return 1024 * int(size)


def peak(name: str, frames: int, size: int, batch: int, dtype: torch.dtype, again: bool) -> None:
    """Print what a step of training is planned to take and what it took, in bytes."""
    keep_freed()
    torch.set_num_threads(1)
    a = torch.randn(64, 64, requires_grad=True)
    (a @ a).sum().backward()
    torch.optim.AdamW([a], fused=True).step()  # imports torch's compiler
    before = resident("VmRSS")
    network = preset(name, channels=1, checkpointing=again)
    plan = measure(network, (1, frames, size, size), torch.device("cpu"), dtype)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x = torch.randn(batch, 1, frames, size, size)
    for _ in range(2):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = network(x, torch.ones(batch))
        (output - x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 0.1)
    print(json.dumps([plan.total(batch), resident("VmHWM") - before]))


def main() -> None:
    print("| network | clips | precision | recomputed | plan, MiB | peak, MiB | plan / peak |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, frames, size, batch, dtype, again) in enumerate(SETTINGS):
        command = [sys.executable, "-m", "benchmarks.memory", str(number)]
        planned, took = json.loads(subprocess.check_output(command))
        clips = f"{batch} x {frames}x{size}x{size}"
        print(
            f"| {name} | {clips} | {dtype} | {'yes' if again else 'no'} | {planned / 2**20:.0f} "
            f"| {took / 2**20:.0f} | {planned / took:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) == 2:
        name, frames, size, batch, dtype, again = SETTINGS[int(sys.argv[1])]
        peak(name, frames, size, batch, getattr(torch, dtype), again)
    else:
        main()
