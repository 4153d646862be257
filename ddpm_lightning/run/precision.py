"""What precision=auto means on this machine.

Only the network computes in it: schedules and times stay in float64, clips and losses in float32.
"""

import hashlib
import json
import logging
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from ddpm_lightning.files.atomic import write_file

log = logging.getLogger(__name__)

FULL, HALF = "32-true", "bf16-mixed"
_NUM_STEPS = 5
_ENOUGH = 2.0  # seconds of them
_WORTHWHILE = 0.9  # of the time; less gain than this is not worth fewer digits


def choose_precision(
    accelerator: str, network: nn.Module, clips: torch.Tensor, answers: Path
) -> str:
    """bf16-mixed on a GPU that computes in bfloat16, and on a CPU that does and is faster so.

    Args:
        accelerator: as Lightning names it.
        clips: (B, C, F, H, W) of a training batch, whose content does not matter.
        answers: a file of what was measured before: a CPU is asked once about a network, so that
            runs that are compared have one precision, and later ones start sooner.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return HALF if torch.cuda.is_bf16_supported(including_emulation=False) else FULL
    if accelerator not in ("auto", "cpu") or not cpu_computes_in_bfloat16():
        return FULL
    question, known = _question(network, clips), _read(answers)
    if known.get(question) not in (FULL, HALF):
        log.info("asking this CPU whether bf16-mixed is faster for the network")
        seconds = {name: _seconds(network, clips, name == HALF) for name in (FULL, HALF)}
        known[question] = HALF if seconds[HALF] < _WORTHWHILE * seconds[FULL] else FULL
        data = json.dumps(known, indent=2).encode()
        with suppress(OSError):  # then it is asked again
            answers.parent.mkdir(parents=True, exist_ok=True)
            write_file(answers, [data], len(data))
    return known[question]


def cpu_computes_in_bfloat16() -> bool:
    """Natively, by AMX or AVX512-bf16; elsewhere it is emulated and slow."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_tile", "avx512_bf16"))


def _question(network: nn.Module, clips: torch.Tensor) -> str:
    """All that the answer depends on: machine, torch, threads, network, clips."""
    machine = [dict(torch.cpu.get_capabilities()), torch.__version__, torch.get_num_threads()]
    asked = [*machine, repr(network), list(clips.shape)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _read(answers: Path) -> dict[str, str]:
    try:
        found = json.loads(answers.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(network: nn.Module, clips: torch.Tensor, is_half: bool) -> float:
    """Of a step forward and back, the quickest of a few, or of one that takes long; the network
    stays as it was.
    """
    log_snr = torch.zeros(len(clips))
    taken: list[float] = []
    while len(taken) < _NUM_STEPS and sum(taken) < _ENOUGH:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            output = network(clips, log_snr)
        torch.autograd.grad(output.float().square().mean(), list(network.parameters()))
        taken.append(time.perf_counter() - start)
    return min(taken)
