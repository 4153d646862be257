"""What sample.py and export.py open: a run, a file of export.py, or a pipeline of diffusers.

And the weaker denoiser of autoguidance: an earlier checkpoint of a run, or other weights of one.
"""

from pathlib import Path
from typing import NamedTuple

from ddpm_lightning.denoiser import Denoiser
from ddpm_lightning.guidances.base import Guidance
from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.errors import UserError
from ddpm_lightning.run.directory.checkpoint import Run, choose_denoiser, find_run
from ddpm_lightning.run.exchange.exported import SUFFIX, load_exported
from ddpm_lightning.run.exchange.pipeline import is_pipeline, load_pipeline


class Opened(NamedTuple):
    """A denoiser in evaluation mode, on the CPU, and the run that it is of.

    weights: their name.   step: that they were saved at; None where that is not known.
    """

    run: Run
    denoiser: Denoiser
    weights: str
    step: int | None

    @property
    def origin(self) -> str:
        """Return which weights they are."""
        return "of diffusers" if self.step is None else f"step {self.step}, {self.weights} weights"


def open_checkpoint(config: Node) -> Opened:
    """Return what the keys checkpoint and weights of a command ask for.

    Raises:
        UserError: in one line.
    """
    path, weights = str(config["checkpoint"]), config["weights"]
    if is_pipeline(path):
        return Opened(*load_pipeline(path, weights), str(weights), None)
    if not path.endswith(SUFFIX):
        run = find_run(path, Path(config["outputs_dir"]))
        return Opened(run, *choose_denoiser(run, weights))
    run, denoiser, held_step, held = load_exported(Path(path))
    if str(weights) != held:
        raise UserError(f"{path} holds the {held} weights; add weights={held}")
    return Opened(run, denoiser, held, held_step)


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
