"""Curves of log-SNR along the chain: what a process makes of a noise schedule."""

from pathlib import Path

import torch

from ddpm_lightning.processes.base import GaussianProcess

HIGHEST = 12.0  # log-SNR of the panels


def save_log_snr(panels: dict[str, dict[str, GaussianProcess]], floor: float, path: Path) -> Path:
    """Draws log-SNR over t / T, a panel for each group of processes and a curve for each of them.

    A dashed line shows the log-SNR floor.

    Where log-SNR rises at single steps (the median chain under hybrid noise) a curve is a band.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (title, processes) in zip(axes, panels.items(), strict=True):
        for name, process in processes.items():
            t = torch.arange(1, process.num_steps + 1)
            axis.plot(t / process.num_steps, process.log_snr(t), label=name, linewidth=1.2)
        axis.axhline(floor, color="0.6", linewidth=0.8, linestyle="--")
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.set(title=title, xlabel="t / T", ylim=(floor - 4, HIGHEST))
        axis.margins(x=0)
    axes[0].set_ylabel("log-SNR = 2 log(alpha / sigma)")
    axes[-1].legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)
    return path
