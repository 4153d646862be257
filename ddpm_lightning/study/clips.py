"""The clips of a study, opened before the first training: too few are refused then."""

from pathlib import Path

from ddpm_lightning.evaluation.measures.distances import refuse_too_few
from ddpm_lightning.evaluation.subject import Reference
from ddpm_lightning.run.config.build import build_data
from ddpm_lightning.run.config.check import Node, resolved
from ddpm_lightning.run.config.errors import user_errors
from ddpm_lightning.run.config.job import composed_job
from ddpm_lightning.study.plan import Cell, words


def check_clips(cells: list[Cell], options: Node, directory: Path) -> None:
    """Make or open every set of clips.

    Raises:
        UserError: where fewer are held out than measures need, or fewer trained on than samples.
    """
    for cell in {cell.clips: cell for cell in cells}.values():
        job = composed_job("config", words(cell, options, str(directory)))
        data = build_data(resolved(job.cfg)["data"])
        with user_errors(f"study, {cell.clips} clips"):
            data.load()
            refuse_too_few(Reference(data), options["num_samples"])
