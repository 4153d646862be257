"""export.py format=diffusers: a pipeline folder, as far as diffusers has an equivalent.

A checkpoint that came from there goes back whole. Of a run it is scheduler/ alone: diffusers has no
network that takes what UNet3D takes.
"""

from pathlib import Path

from ddpm_lightning.networks.diffusers2d import DiffusersUNet2D, import_diffusers
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.exchange.opened import Opened
from ddpm_lightning.run.exchange.scheduler import build_scheduler


def write_diffusers(opened: Opened, folder: Path) -> tuple[str, str]:
    """Write what there is an equivalent of into an empty folder; return lines that say what is
    lacking, and a line for the model card.

    Raises:
        UserError: for a process or an objective that no scheduler of theirs has, and without the
            package.
    """
    denoiser, network = opened.denoiser, opened.denoiser.network
    with user_errors("format=diffusers"):
        scheduler = build_scheduler(denoiser.process, denoiser.objective)
    with user_errors("output"):
        if isinstance(network, DiffusersUNet2D):
            import_diffusers().DDPMPipeline(network.unet, scheduler).save_pretrained(folder)
            written = (
                f"  pipeline       {folder}\n"
                f"  load it        DDPMPipeline.from_pretrained({str(folder)!r})"
            )
            return written, "DDPMPipeline.from_pretrained(FOLDER)"
        home = folder / "scheduler"
        scheduler.save_pretrained(home)
    written = (
        f"  scheduler      {home}/scheduler_config.json\n"
        f"  lacking        unet/ and model_index.json: diffusers has no {type(network).__name__}, "
        f"which takes log-SNR and clips of {denoiser.statistics}; format=torch_export has it"
    )
    return written, 'DDPMScheduler.from_pretrained(FOLDER, subfolder="scheduler")'
