"""Which device sample.py and evaluate.py work on."""

import torch

from ddpm_lightning.run.config.errors import UserError


def choose_device(name: str) -> torch.device:
    """auto: the first accelerator, else the CPU; otherwise a device by its torch name."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f"device={name} is not available here; choose auto, cpu or cuda") from e
    return device
