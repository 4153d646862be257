"""The weaker denoiser of autoguidance: an earlier checkpoint of a run, or other weights of one."""

from pathlib import Path

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.run.checkpoint import Run, choose_denoiser
from ddpm_lightning.run.errors import UserError


def weaker(guidance: Guidance, run: Run) -> Denoiser | None:
    """Return the denoiser with the weights that guidance leads away from, on the CPU; None where it
    needs none.

    Raises:
        UserError: unless they are of the same run.
    """
    weak = guidance.weak
    if weak is None:
        return None
    if not run.checkpoint.suffix == ".ckpt":
        raise UserError(f"guidance.weak={weak}: {run.checkpoint} holds one denoiser; give its run")
    if not (isinstance(weak, str) and weak.endswith(".ckpt")):
        return choose_denoiser(run, weak)[0]
    path = next((p for p in (Path(weak), run.checkpoint.parent / weak) if p.is_file()), None)
    if path is None or path.absolute().parent != run.checkpoint.absolute().parent:
        there = ", ".join(sorted(p.name for p in run.checkpoint.parent.glob("*.ckpt")))
        raise UserError(f"guidance.weak={weak} is no checkpoint of this run, which has {there}")
    return choose_denoiser(run._replace(checkpoint=path))[0]
