"""What precision=auto means on this machine.

Only the network computes in it: schedules and times stay in float64, clips and losses in float32.
"""

import time

import torch

from ddpm_lightning.training.module import DiffusionModule

FULL, HALF = "32-true", "bf16-mixed"
_NUM_STEPS = 5
_WORTHWHILE = 0.9  # of the time; less gain than this is not worth fewer digits


def choose_precision(accelerator: str, module: DiffusionModule, clips: torch.Tensor) -> str:
    """bf16-mixed on a GPU that computes in bfloat16, and on a CPU that does and is faster so.

    Args:
        accelerator: as Lightning names it.
        clips: (B, C, F, H, W) of a training batch, whose content does not matter.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return HALF if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if accelerator not in ("auto", "cpu") or not cpu_computes_in_bfloat16():
        return FULL
    seconds = {name: _seconds(module, clips, name == HALF) for name in (FULL, HALF)}
    return HALF if seconds[HALF] < _WORTHWHILE * seconds[FULL] else FULL


def cpu_computes_in_bfloat16() -> bool:
    """Natively, by AMX or AVX512-bf16; elsewhere it is emulated and slow."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_tile", "avx512_bf16"))


def _seconds(module: DiffusionModule, clips: torch.Tensor, is_half: bool) -> float:
    """Of a step forward and back, the quickest of a few; the module stays as it was."""
    log_snr = torch.zeros(len(clips))
    taken = []
    for _ in range(_NUM_STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            output = module.denoiser.network(clips, log_snr)
        torch.autograd.grad(output.float().square().mean(), list(module.denoiser.parameters()))
        taken.append(time.perf_counter() - start)
    return min(taken)
