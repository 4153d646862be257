"""export.py format=torch_export: the denoiser as a program, which runs without this package.

    program(x, log_snr, conditions) -> x_0 estimate (B, C, F, H, W), standardised like x

at the level alpha^2 + sigma^2 = 1 of log-SNR (B,): x_t of any other process, divided by
sqrt(alpha^2 + sigma^2), is at that level too.
"""

import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_lightning.data.clip import clip_format
from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.files.atomic import write_file
from ddpm_lightning.level import Level
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.directory.checkpoint import FORM_KEYS
from ddpm_lightning.run.exchange.opened import Opened

PROGRAM_SUFFIX = ".pt2"
FACTS = "ddpm_lightning.json"  # inside the file: form of the clips, mean, std, weights, step


class DenoiserProgram(nn.Module):
    """A denoiser with tensors alone as arguments."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, log_snr: Tensor, conditions: dict[str, Tensor]) -> Tensor:
        return self.denoiser.denoise_at(x, Level.at(log_snr), **conditions)


def write_program(opened: Opened, path: Path) -> tuple[str, str]:
    """Write the program, on the CPU, for any number of clips, and facts that its users need; return
    lines that say what is there, and a line for the model card.
    """
    form = clip_format(**opened.run.config["data"])
    program = trace(opened.denoiser, form.shape)
    statistics = opened.denoiser.statistics
    facts = {
        **{key: opened.run.config["data"][key] for key in FORM_KEYS},
        "mean": statistics.mean.tolist(),
        "std": float(statistics.std),
        "weights": opened.weights,
        "step": opened.step,
    }
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={FACTS: json.dumps(facts)})
    data = buffer.getvalue()
    with user_errors("output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [data], len(data))
    shape = ", ".join(map(str, form.shape))
    written = (
        f"  file           {path}, {len(data):,} bytes\n"
        f"  run it         torch.export.load({str(path)!r}).module()(x, log_snr, {{}}) with x (B, "
        f"{shape}), log_snr (B,)"
    )
    return written, f'torch.export.load("{path.name}").module()'


def trace(denoiser: Denoiser, shape: tuple[int, ...]) -> torch.export.ExportedProgram:
    """Return the program for clips of a shape (C, F, H, W), any number of them."""
    batch = torch.export.Dim("batch")
    conditions = denoiser.conditions.null(2)
    arguments = (torch.zeros(2, *shape), torch.zeros(2), conditions)
    dynamic = ({0: batch}, {0: batch}, {name: {0: batch} for name in conditions})
    return torch.export.export(
        DenoiserProgram(denoiser.requires_grad_(False)), arguments, dynamic_shapes=dynamic
    )
