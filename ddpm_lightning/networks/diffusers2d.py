"""A UNet2DModel of the package diffusers as a network of ours: every frame is a still of its own.

Our denoiser scales x_t by 1 / sqrt(m), m = alpha^2 s_d^2 + sigma^2, and hands on log-SNR. Theirs
takes x_t where alpha^2 + sigma^2 = 1, of clips in [-1, 1], and an index t: what is step t of our
chain is t - 1 of theirs. Here the scale is undone,

    x = sqrt(a^2 s_d^2 + s^2) (x_t / sqrt(m)),   a^2 = sigmoid(log-SNR),   s^2 = sigmoid(-log-SNR),

and the index is the real number at which the chain that it was trained on has that log-SNR, linear
in between; beyond the chain's ends it is that of the end.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ddpm_lightning.noise.base import NoiseSchedule
from ddpm_lightning.statistics import DATA_STD


class DiffusersUNet2D(nn.Module):
    """Maps x (B, C, F, H, W) and log-SNR (B,) or (B, F) to (B, C, F, H, W), frame by frame.

    Args:
        unet: arguments of UNet2DModel.
        schedule: the betas of the standard chain that it was trained on.
    Raises:
        ValueError: without diffusers, or for arguments that UNet2DModel does not take.
    """

    negative_log_snr: Tensor  # (T,): rises with their t = 0 .. T - 1

    def __init__(self, unet: dict[str, Any], schedule: NoiseSchedule) -> None:
        super().__init__()
        self.unet = build_unet(unet)
        alpha_bar = (1 - schedule.betas()).cumprod(0)
        negative = (1 - alpha_bar).log() - alpha_bar.log()
        self.register_buffer("negative_log_snr", negative.float(), persistent=False)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        batch, num_frames = x.shape[0], x.shape[2]
        stills = x.transpose(1, 2).flatten(0, 1)  # (B*F, C, H, W)
        if log_snr.dim() == 1:
            log_snr = log_snr[:, None].expand(-1, num_frames)
        levels = log_snr.flatten()  # (B*F,)
        m = levels.sigmoid() * DATA_STD**2 + (-levels).sigmoid()
        scaled = m.sqrt()[:, None, None, None] * stills
        output = self.unet(scaled, self.index_at(levels), return_dict=False)[0]
        clips: Tensor = output.unflatten(0, (batch, num_frames)).transpose(1, 2)
        return clips

    def index_at(self, log_snr: Tensor) -> Tensor:
        """Return their real-valued t (N,), 0 to T - 1, at log-SNR (N,)."""
        table = self.negative_log_snr
        wanted = -log_snr.to(table.dtype).contiguous()
        after = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        low, high = table[after - 1], table[after]
        share = (wanted - low) / (high - low).clamp(min=1e-12)  # 0 where a step adds no noise
        return after - 1 + share.clamp(0, 1)


def import_diffusers() -> Any:
    """Return the package diffusers, which imports its parts when they are first used.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"checkpoints of diffusers need that package ({error}); pip install "
            "'ddpm_lightning[diffusers]'"
        ) from error
    return diffusers


def build_unet(arguments: dict[str, Any]) -> nn.Module:
    """Return a UNet2DModel with random weights.

    Raises:
        ValueError: in one line.
    """
    unet_class = import_diffusers().UNet2DModel
    try:
        unet: nn.Module = unet_class(**arguments)
    except Exception as error:  # what its constructor raises has many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"UNet2DModel does not take this configuration: {reason}") from error
    return unet
